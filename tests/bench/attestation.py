"""A warm attestation of a chain of eight, beside the same walk with psutil; and the look at every message."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from attestd.appraisal.appraiser import Appraiser
from attestd.appraisal.digests import Naming
from attestd.daemon.installation import find_installation
from attestd.daemon.paths import policy_directory
from attestd.daemon.policy import load_policy
from attestd.kernel.linux.files import YOUNG_NS
from attestd.kernel.linux.kernel import LinuxKernel
from attestd.mediation import attest
from tests.bench.report import Figure
from tests.bench.rounds import interleaved, medians

LINKS = 8
BATCH = 20
"""Runs in one timed round: a single one is too short for the clock."""
PEER = """\
import os, socket, subprocess, sys, time
depth, path = int(sys.argv[1]), sys.argv[2]
if depth:
    child = subprocess.Popen([sys.executable, __file__, str(depth - 1), path])
    sys.stdin.read()
    child.kill()
    child.wait()
else:
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    s.recv(1)
"""


def measure(*, quick: bool) -> list[Figure]:
    """Attest a real peer with real ancestors again and again; walk the same processes with psutil in between."""
    rounds = 30 if quick else 150
    kernel = LinuxKernel()
    appraiser = _appraiser()
    with connected() as (sock, pid):
        time.sleep(YOUNG_NS / 1e9 + 0.2)  # digests of younger files are not remembered, so that would not be warm
        peer = kernel.peer(sock.fileno())
        kept = attest(kernel, sock.fileno(), peer, appraiser)
        links = len(kept.evidence.chain)

        def ours() -> None:
            for _ in range(BATCH):
                attest(kernel, sock.fileno(), peer, appraiser).watch.close()

        def theirs() -> None:
            for _ in range(BATCH):
                walk(pid)

        parts = medians(interleaved(rounds, {"attestd": ours, "psutil": theirs}), 1e6 / BATCH)
        verify = [_timed(lambda: kept.watch.verify(pid)) for _ in range(rounds * 50)]
        relative = [_timed(lambda: os.pread(kept.watch._peer_status[0], 400, 0)) for _ in range(rounds * 50)]
        kept.watch.close()
    kernel.close()
    note = "" if links == LINKS else f"the chain here has {links} links; scaled to {LINKS}"
    each = {f"{name} µs": value * LINKS / links for name, value in parts.items()}
    return [
        Figure(
            name=f"warm attestation of a chain of {LINKS}",
            value=each["attestd µs"],
            unit="µs",
            limit=300,
            parts=each,
            note=note,
            rounds=rounds,
        ),
        Figure(
            name="warm attestation ÷ the same walk with psutil",
            value=parts["attestd"] / parts["psutil"],
            unit="×",
            limit=0.333,
            parts=each,
            rounds=rounds,
        ),
        Figure(
            name="look at every message (recheck)",
            value=statistics.median(verify) * 1e6,
            unit="µs",
            limit=15,
            parts={"one read of /proc/PID/status µs": statistics.median(relative) * 1e6},
            rounds=rounds * 50,
        ),
    ]


def walk(pid: int) -> None:
    """What psutil can tell of the same chain, asked the cheapest way it has."""
    process = psutil.Process(pid)
    for one in (process, *process.parents()):
        with one.oneshot():
            with contextlib.suppress(psutil.AccessDenied):
                one.exe()
            one.name(), one.cmdline(), one.create_time(), one.uids(), one.gids(), one.ppid(), one.terminal()


@contextlib.contextmanager
def connected() -> Iterator[tuple[socket.socket, int]]:
    """A connection from a peer whose chain has ``LINKS`` links, or as few as our own ancestors allow."""
    own = 1 + len(psutil.Process().parents())
    with tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as directory:
        script = Path(directory, "peer.py")
        script.write_text(PEER, encoding="utf-8")
        with socket.socket(socket.AF_UNIX) as front:
            front.bind(f"{directory}/s")
            front.listen()
            front.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            time.sleep(0.2)  # a script as young as its process is not attestable
            command = [sys.executable, str(script), str(max(0, LINKS - own - 1)), f"{directory}/s"]
            process = subprocess.Popen(command, stdin=subprocess.PIPE)
            sock, _ = front.accept()
            credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            try:
                yield sock, int.from_bytes(credentials[:4], sys.byteorder)
            finally:
                sock.close()
                process.communicate()


def _appraiser() -> Appraiser:
    policy = load_policy(policy_directory(), Path("/nonexistent"), "0" * 32)
    references = find_installation().references(user_mode=True)
    return Appraiser(
        table=policy.table, references=references, naming=Naming(trust_domain="attestd.local", host_id="0" * 32)
    )


def _timed(call: object) -> float:
    start = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - start
