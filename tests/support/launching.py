"""Real servers for the launcher's tests, and the proof that nothing of them is left.

Every server of a test carries a mark in its environment; all its descendants inherit it, whatever they fork.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from pathlib import Path

from attestd.launch.client import ProcessLauncher
from attestd.launch.protocol import Command
from attestd.launch.server import ServerProcess

PATH = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"

HYDRA = """
import os, signal, sys, time
ready, tell = os.pipe()
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if os.fork() == 0:
                os.setsid()
            os.closerange(0, 3)
            os.write(tell, b".")
            time.sleep(1000)
        os._exit(0)
    os.wait()
waiting = 6
while waiting:
    waiting -= len(os.read(ready, waiting))
print("ready", flush=True)
sys.stdin.read()
"""
"""Leaves six daemons in sessions of their own that ignore SIGTERM; itself ends with its standard input."""


class Mark:
    """The mark of one test."""

    def __init__(self) -> None:
        self.value = uuid.uuid4().hex

    def command(self, *argv: str, cwd: str = "/", **env: str) -> Command:
        """A command that carries the mark."""
        return Command(argv=argv, env=(("PATH", PATH), ("MARK", self.value), *env.items()), cwd=cwd)

    def python(self, source: str) -> Command:
        """A server written in Python."""
        return self.command(sys.executable, "-I", "-S", "-c", source)

    def alive(self, daemon_pid: int = 0) -> list[int]:
        """Pids that carry the mark and are not zombies; with ``daemon_pid`` also its launcher and supervisors."""
        needle = f"MARK={self.value}".encode()
        ours = f"program.py\0{{}}\0{daemon_pid}\0".encode().split(b"{}")
        found = []
        for entry in filter(str.isdigit, (path.name for path in Path("/proc").iterdir())):
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes()
                if needle in Path(f"/proc/{entry}/environ").read_bytes() or (
                    ours[0] in words and words.endswith(ours[1])
                ):
                    found.append(int(entry))
            except OSError:
                continue
        return found

    def gone_within(self, seconds: float, daemon_pid: int = 0, *, but: int = 0) -> list[int]:
        """Wait until none is alive, ``but`` left aside; returns those that still are."""
        deadline = time.monotonic() + seconds
        while (left := [pid for pid in self.alive(daemon_pid) if pid != but]) and time.monotonic() < deadline:
            time.sleep(0.01)
        return left


async def line_of(server: ServerProcess, seconds: float = 10.0) -> bytes:
    """What the server writes up to the end of a line, or of the stream."""
    loop = asyncio.get_running_loop()
    data = b""
    async with asyncio.timeout(seconds):
        while not data.endswith(b"\n"):
            ready = asyncio.Event()
            loop.add_reader(server.stdout_fd, ready.set)
            await ready.wait()
            loop.remove_reader(server.stdout_fd)
            chunk = os.read(server.stdout_fd, 1 << 16)
            if not chunk:
                break
            data += chunk
    return data


async def text_of(server: ServerProcess) -> str:
    """All that the server writes until the end of the stream."""
    data = b""
    while chunk := await line_of(server):
        data += chunk
    return data.decode()


def parent(pid: int) -> int:
    """The parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def host(mark: str, count: int) -> None:
    """A stand-in for the daemon, run in a process of its own: starts servers until it is killed."""
    own = Mark()
    own.value = mark
    launcher = ProcessLauncher(grace_s=0.2)
    servers = [await launcher.start(own.python(HYDRA), print) for _ in range(count)]
    for server in servers:
        await line_of(server)
    print(launcher.pid, *(server.pid for server in servers), flush=True)
    while True:
        servers.append(await launcher.start(own.python(HYDRA), print))
        servers.pop(0).stop()


if __name__ == "__main__":
    asyncio.run(host(sys.argv[1], int(sys.argv[2])))
