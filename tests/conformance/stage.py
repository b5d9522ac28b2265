"""Processes of the harness: servers that listen, and an attestd in front of them.

Direct and mediated runs use servers of their own, started alike, so that neither meets what the other left behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from tests.conformance.installed import Installed

START_S = 20.0
PLAIN = Path(__file__).parent / "programs" / "plain"
"""Put on PYTHONPATH, it lets a server parse HTTP as it does where attestd is not installed."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A server as a client would configure it: a command, or a URL once ``command`` listens on ``{port}``."""

    name: str
    command: tuple[str, ...]
    """Words; ``{port}`` is replaced."""
    path: str = ""
    """Of the URL; empty for stdio."""
    sse: bool = False
    env: tuple[tuple[str, str], ...] = ()

    @property
    def listens(self) -> bool:
        """Whether it is reached by URL."""
        return bool(self.path)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def listening(server: Server, cwd: Path, port: int | None = None) -> Iterator[str]:
    """Start a server that listens, on ``port`` if it is told that elsewhere; its URL."""
    port = port or free_port()
    words = [word.replace("{port}", str(port)) for word in server.command]
    environment = {**os.environ, **dict(server.env), "PORT": str(port)}
    log = cwd / f"{server.name}-{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            words, env=environment, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    try:
        _await_port(port, process, log)
        yield f"http://127.0.0.1:{port}{server.path}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{log.stem} does not listen: {log.read_text(errors='replace')[-800:]}")
        time.sleep(0.05)


def everything(installed: Installed) -> Server:
    """The SDK's conformance server, over Streamable HTTP."""
    return Server(
        name="everything",
        command=(sys.executable, "-m", "mcp_everything_server", "--port", "{port}", "--log-level", "ERROR"),
        path="/mcp",
        env=(("PYTHONPATH", f"{installed.everything}{os.pathsep}{PLAIN}"), ("PYTHONWARNINGS", "ignore")),
    )


def everything_stdio(installed: Installed) -> Server:
    """The same server over stdio."""
    run = "from mcp_everything_server.server import mcp; mcp.run(transport='stdio')"
    return Server(
        name="everything-stdio",
        command=(sys.executable, "-c", run),
        env=(("PYTHONPATH", str(installed.everything)), ("PYTHONWARNINGS", "ignore")),
    )


def environment(path: Sequence[Path]) -> dict[str, str]:
    """What clients get: this process's environment with these directories first on PATH."""
    return {
        **os.environ,
        "PATH": os.pathsep.join([*map(str, path), os.environ.get("PATH", "")]),
        "PYTHONWARNINGS": "ignore",
        "FASTMCP_CHECK_FOR_UPDATES": "off",
        "NODE_NO_WARNINGS": "1",
    }
