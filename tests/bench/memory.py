"""Memory of the daemon: what an idle session keeps, and what a large result takes on its way."""

from __future__ import annotations

import contextlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.report import Figure
from tests.bench.stage import instance, let_in, memory_kib, unix_server
from tests.support.instance import Instance

SESSIONS = 500
RESULT_BYTES = 16 * 1024 * 1024 - 1024
"""The result, its envelope and the line end fit the message limit of 16 MiB."""
CROWD = '''\
"""Opens sessions and leaves them idle: crowd.py SOCKET NUMBER. Prints a line when all have made one call."""
import socket, sys

INIT = b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},'
INIT += b'"clientInfo":{"name":"bench","version":"1"}}}\\n'
CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{}}}\\n'
ends = []
for _ in range(int(sys.argv[2])):
    one = socket.socket(socket.AF_UNIX)
    one.connect(sys.argv[1])
    lines = one.makefile("rb", buffering=512)
    one.sendall(INIT)
    answer = lines.readline()
    if b'"result"' in answer:
        one.sendall(CALL)
        answer = lines.readline()
    if b'"result"' not in answer:
        print(answer.decode(), flush=True)
        sys.exit(3)
    ends.append(one)
print("ready", flush=True)
sys.stdin.read()
'''
BIG = '''\
"""Asks for one large result: big.py SOCKET BYTES."""
import socket, sys

INIT = b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},'
INIT += b'"clientInfo":{"name":"bench","version":"1"}}}\\n'
one = socket.socket(socket.AF_UNIX)
one.connect(sys.argv[1])
lines = one.makefile("rb")
one.sendall(INIT)
answer = lines.readline()
if b'"result"' in answer:
    call = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"big","arguments":{"size":%d}}}\\n'
    one.sendall(call % int(sys.argv[2]))
    answer = lines.readline()
    if len(answer) > int(sys.argv[2]):
        sys.exit(0)
print(answer[:4096].decode())
sys.exit(3)
'''


def measure(*, quick: bool) -> list[Figure]:
    """One daemon for each, so that the allocator's history is the same every time."""
    return [_idle(), _large(1 if quick else 3)]


def _idle() -> Figure:
    """Growth of the daemon's resident memory by 500 sessions that have made one call, divided by 500."""
    with instance(connections_per_uid=SESSIONS + 50) as made, unix_server(made):
        script = made.script("crowd.py", CROWD)
        made.start()
        let_in(made, [str(script), str(made.socket("bench")), "1"])
        assert made.process is not None
        pid = made.process.pid
        with _held(made, script, 20):  # what the first sessions load is not kept per session
            before = memory_kib(pid, "VmRSS")
            fds = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            with _held(made, script, SESSIONS):
                after = memory_kib(pid, "VmRSS")
                more = len(list(Path(f"/proc/{pid}/fd").iterdir())) - fds
    return Figure(
        name=f"resident memory per idle session ({SESSIONS} sessions)",
        value=(after - before) / SESSIONS,
        unit="KiB",
        limit=100,
        parts={
            "daemon before MiB": before / 1024,
            "daemon after MiB": after / 1024,
            "descriptors each": more / SESSIONS,
        },
    )


def _large(rounds: int) -> Figure:
    """The peak of the daemon's memory while it relays a result of 16 MiB, above what it held before."""
    peaks = []
    for _ in range(rounds):
        with instance() as made, unix_server(made):
            script = made.script("big.py", BIG)
            made.start()
            command = [str(script), str(made.socket("bench"))]
            let_in(made, [*command, "10"])
            assert made.process is not None
            pid = made.process.pid
            before = memory_kib(pid, "VmRSS")
            Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
            subprocess.run([sys.executable, *command, str(RESULT_BYTES)], env=made.environment, check=True)
            peaks.append((memory_kib(pid, "VmHWM") - before) / 1024)
    return Figure(
        name="peak extra memory for a result of 16 MiB",
        value=statistics.median(peaks),
        unit="MiB",
        limit=64,
        parts={"daemon before MiB": before / 1024, "result MiB": RESULT_BYTES / (1 << 20)},
        rounds=rounds,
    )


@contextlib.contextmanager
def _held(made: Instance, script: Path, number: int) -> Iterator[None]:
    """Sessions that stay idle as long as the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * SESSIONS)), hard))
    process = subprocess.Popen(
        [sys.executable, str(script), str(made.socket("bench")), str(number)],
        env=made.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        if said != "ready\n":
            raise RuntimeError(f"the sessions were not opened: {said}")
        time.sleep(1.5)  # idle means that the sync and the sweep after the last call have passed
        yield
    finally:
        process.communicate()
