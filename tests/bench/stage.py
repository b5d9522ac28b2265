"""The stage of the figures: a throw-away attestd, a fast server on a Unix socket, clients that hold a grant."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.instance import Instance, approver_digest

ENDING = """

try:
    asyncio.run(main())
except BaseException as raised:
    error = raised
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, MCPError):
        raise
    print(json.dumps({"refused": error.error.data, "message": str(error)}))
    sys.exit(3)
"""
"""The last lines of a client made with the SDK: a refusal is printed, with exit status 3."""
SERVER = '''\
"""An MCP server on a Unix socket, as fast as Python makes it. A call with ``size`` answers with that many bytes."""
import json, selectors, socket, sys

INFO = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "bench", "version": "1"}}
SMALL = json.dumps({"content": [{"type": "text", "text": "hello"}], "isError": False}, separators=(",", ":")).encode()


def answer(message):
    if message["method"] == "initialize":
        return json.dumps(INFO, separators=(",", ":")).encode()
    size = (message.get("params") or {}).get("arguments", {}).get("size")
    return SMALL if size is None else b'{"content":[{"type":"text","text":"' + b"x" * size + b'"}],"isError":false}'


def readable(connection, rest):
    data = connection.recv(65536)
    if not data:
        ready.unregister(connection)
        connection.close()
        return
    rest += data
    while (end := rest.find(b"\\n")) >= 0:
        message = json.loads(rest[:end])
        del rest[: end + 1]
        if "id" in message and "method" in message:
            connection.sendall(b'{"jsonrpc":"2.0","id":%d,"result":' % message["id"] + answer(message) + b"}\\n")


ready = selectors.DefaultSelector()
front = socket.socket(socket.AF_UNIX)
front.bind(sys.argv[1])
front.listen(1024)
ready.register(front, selectors.EVENT_READ, None)
print("ready", flush=True)
while True:
    for key, _ in ready.select():
        if key.fileobj is front:
            connection = front.accept()[0]
            ready.register(connection, selectors.EVENT_READ, bytearray())
        else:
            readable(key.fileobj, key.data)
'''

CALLER = '''\
"""Times tools/call on several Unix sockets, block by block in turn: caller.py BLOCKS CALLS SOCKET…

Prints one line of JSON: for each socket the median of every block, in microseconds; or the refusal, with status 3.
"""
import json, socket, statistics, sys, time

blocks, calls = int(sys.argv[1]), int(sys.argv[2])
INIT = b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},'
INIT += b'"clientInfo":{"name":"bench","version":"1"}}}\\n'
CALL = b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"echo","arguments":'
CALL += b'{"text":"hello world","n":%d}}}\\n'
ends = []
for path in sys.argv[3:]:
    one = socket.socket(socket.AF_UNIX)
    one.connect(path)
    lines = one.makefile("rb")
    one.sendall(INIT)
    first = lines.readline()
    if b'"error"' in first:
        print(first.decode())
        sys.exit(3)
    ends.append((one, lines))
number = 0


def block(one, lines):
    global number
    times = []
    for _ in range(calls):
        number += 1
        call = CALL % (number, number)
        start = time.perf_counter()
        one.sendall(call)
        answer = lines.readline()
        times.append(time.perf_counter() - start)
        if b'"result"' not in answer:
            print(answer.decode())
            sys.exit(4)
    return statistics.median(times) * 1e6


for end in ends:
    block(*end)
print(json.dumps([list(column) for column in zip(*([block(*end) for end in ends] for _ in range(blocks)))]))
'''


@contextlib.contextmanager
def one_cpu() -> Iterator[None]:
    """Everything started in the block runs on one CPU.

    A call passes from process to process and never runs in two places at once. Left alone, the scheduler puts each
    process where it likes and leaves it there, and what is measured is whether a wake-up had to cross CPUs, a factor of
    two either way for either side.
    """
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextlib.contextmanager
def instance(**limits: int) -> Iterator[Instance]:
    """A throw-away instance, not yet started; ended and removed at the end."""
    root = Path(tempfile.mkdtemp(prefix="ab-", dir="/tmp"))
    made = Instance(root, approvers=[approver_digest()])
    made.environment.pop("PYTHONDONTWRITEBYTECODE", None)
    made.settings["limits"].update(limits)
    try:
        yield made
    finally:
        if made.process is not None:
            made.stop()
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def running(command: Sequence[str], **popen: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs as long as the block."""
    process = subprocess.Popen(list(command), **popen)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextlib.contextmanager
def unix_server(made: Instance, name: str = "bench") -> Iterator[Path]:
    """The fast server, registered as ``name``; its own socket."""
    script = made.script("bench_server.py", SERVER)
    path = made.root / f"{name}.sock"
    with running([sys.executable, str(script), str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        made.server(name, transport="unix", socket=str(path))
        yield path


@contextlib.contextmanager
def socat(made: Instance, path: Path) -> Iterator[Path]:
    """Socat in front of ``path``; its socket."""
    front = made.root / "socat.sock"
    with running(["socat", f"UNIX-LISTEN:{front},fork", f"UNIX-CONNECT:{path}"]):
        deadline = time.monotonic() + 10
        while not front.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        yield front


def call_blocks(
    made: Instance, blocks: int, calls: int, *paths: Path, ask: Instance | None = None
) -> list[list[float]]:
    """Run the timing client; a refusal is approved once (in ``ask``, by default ``made``) and tried again."""
    script = made.script("bench_caller.py", CALLER)
    return list(json.loads(let_in(made, [str(script), str(blocks), str(calls), *map(str, paths)], ask=ask)))


def memory_kib(pid: int, field: str) -> int:
    """A field of ``/proc/PID/status`` in KiB, for example VmRSS."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc/{pid}/status has no {field}")


def installed(name: str) -> str | None:
    """The path of a system program, or None."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def let_in(made: Instance, words: Sequence[str], *, ask: Instance | None = None) -> str:
    """Run a Python client to its end, approving (in ``ask``, by default ``made``) what attestd refuses; what it printed.

    A refused client ends with status 3 and prints the refusal: the JSON-RPC answer, or what ``ENDING`` prints.
    """
    for _ in range(8):
        done = subprocess.run(
            [sys.executable, *words],
            env=made.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 3:
            break
        said = json.loads(done.stdout)
        (ask or made).approve((said["refused"] if "refused" in said else said["error"]["data"])["code"])
    if done.returncode:
        raise RuntimeError(f"the client failed: {done.stdout[-300:]} {done.stderr[-900:]}")
    return done.stdout
