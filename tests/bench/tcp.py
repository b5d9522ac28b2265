"""The peer of a loopback TCP connection, beside a scan of everyone's descriptors, with 500 processes."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from attestd.kernel.linux.connector import glance
from attestd.kernel.linux.recorder.reader import BpfRecorder
from attestd.kernel.linux.tcp.holders import scan
from attestd.kernel.linux.tcp.peers import TcpPeers
from tests.bench.recorder import unloadable
from tests.bench.report import Figure, unmeasured
from tests.bench.rounds import interleaved, medians
from tests.bench.stage import one_cpu
from tests.support.recorder import recording

PROCESSES = 500
BATCH = 50
NAMES = ("peer of a TCP connection", "peer of a TCP connection ÷ a scan of descriptors")
CLIENT = """
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sys.stdin.read()
"""


def measure(*, quick: bool) -> list[Figure]:
    """Look one connection up again and again; scan for it in between."""
    if why := unloadable():
        return [unmeasured(name, why) for name in NAMES]
    rounds = 9 if quick else 41
    with (
        crowd(),
        one_cpu(),
        recording() as root,
        contextlib.closing(BpfRecorder.open(root)) as reader,
        contextlib.closing(TcpPeers(reader)) as peers,
        connection() as accepted,
    ):
        first = peers.lookup(accepted)
        if first.source != "recorder" or first.exec_changed is not False:
            raise RuntimeError(f"the recorder does not know who connected: {first.reasons}")

        def ours() -> None:
            for _ in range(BATCH):
                peers.lookup(accepted)

        def theirs() -> None:
            if not scan(first.inode, first.cookie, first.uid):
                raise RuntimeError("the scan did not find the holder")

        times = medians(interleaved(rounds, {"lookup": ours, "scan": theirs}, clock=time.thread_time), 1e6)
        count = len(glance.pids())
    parts = {"lookup µs": times["lookup"] / BATCH, "scan µs": times["scan"]}
    note = f"{count} processes"
    return [
        Figure(name=NAMES[0], value=parts["lookup µs"], unit="µs", limit=25, note=note, rounds=rounds),
        Figure(
            name=NAMES[1],
            value=parts["lookup µs"] / parts["scan µs"],
            unit="×",
            limit=0.01,
            parts=parts,
            note=note,
            rounds=rounds,
        ),
    ]


@contextlib.contextmanager
def crowd() -> Iterator[None]:
    """At least ``PROCESSES`` processes on this machine, all of our uid where they are ours."""
    missing = PROCESSES - len(glance.pids())
    running = [subprocess.Popen(["sleep", "3600"]) for _ in range(max(0, missing))]
    try:
        yield
    finally:
        for each in running:
            each.kill()
        for each in running:
            each.wait()


@contextlib.contextmanager
def connection() -> Iterator[socket.socket]:
    """Our end of a connection from another process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        words = [sys.executable, "-I", "-S", "-c", CLIENT, str(server.getsockname()[1])]
        with subprocess.Popen(words, stdin=subprocess.PIPE) as client:
            accepted, _ = server.accept()
            with accepted:
                yield accepted
                client.communicate()
