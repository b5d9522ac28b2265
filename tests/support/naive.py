"""What attestd replaces: a relay on a Unix socket that trusts whoever connects, or whoever a weak judge believes.

The attack tests use it to show that each attack works without the control. It serves one connection at a time, when the
test says so, by starting the same echo server directly on the socket.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_UCRED = struct.Struct("3i")
WAIT_S = 20.0

Judge = Callable[[int, int], bool]
"""Whether to trust the connector, by its pid and uid as SO_PEERCRED has them."""


def anyone(_pid: int, _uid: int) -> bool:
    """The socket's mode is the only lock."""
    return True


def named(word: str) -> Judge:
    """Believes the command line."""
    return lambda pid, _uid: word in cmdline(pid)


def titled(word: str) -> Judge:
    """Believes the process name."""
    return lambda pid, _uid: Path(f"/proc/{pid}/comm").read_text().strip() == word[:15]


def at_path(digest: str) -> Judge:
    """Hashes the file at the path that the executable's link shows."""
    return lambda pid, _uid: sha256(str(Path(f"/proc/{pid}/exe").readlink()).removesuffix(" (deleted)")) == digest


def with_image(digest: str) -> Judge:
    """Hashes the executable's link."""
    return lambda pid, _uid: sha256(f"/proc/{pid}/exe") == digest


def owned(wanted: int) -> Judge:
    """Believes the uid of the connection."""
    return lambda _pid, uid: uid == wanted


def cmdline(pid: int) -> str:
    """The words of a process, NUL-separated; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def sha256(path: Path | str) -> str:
    """Of a file's content."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class Naive:
    """One relay. ``path`` is where it listens."""

    def __init__(self, root: Path, server: Path) -> None:
        self.path = root / "naive.sock"
        self._calls = root / "naive.calls"
        self._server = server
        self._started: list[subprocess.Popen[bytes]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self.path.chmod(0o666)
        self._listener.listen(8)
        self._listener.settimeout(WAIT_S)

    def serve(self, judge: Judge = anyone) -> bool:
        """Accept the next connection and serve it if the judge trusts its connector; whether it did.

        Who has left without a word, such as a client that an earlier attack ended as it came, is nobody's next.
        """
        connection, _ = self._listener.accept()
        while _left(connection):
            connection.close()
            connection, _ = self._listener.accept()
        with connection:
            pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
            if not judge(pid, uid):
                return False
            command = [sys.executable, str(self._server), str(self._calls)]
            self._started.append(subprocess.Popen(command, stdin=connection, stdout=connection))
            return True

    def executed(self, mark: str) -> bool:
        """Wait for the marked call to reach the server."""
        deadline = time.monotonic() + WAIT_S
        while mark not in marks(self.calls()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def calls(self) -> list[dict[str, Any]]:
        """What was executed."""
        return [json.loads(line) for line in self._calls.read_text().splitlines()] if self._calls.exists() else []

    def end(self) -> None:
        """End the servers of the connections so far."""
        for process in self._started:
            process.kill()
            process.wait()
        self._started.clear()

    def close(self) -> None:
        """End everything."""
        self.end()
        self._listener.close()


def _left(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


def marks(calls: Sequence[dict[str, Any]]) -> list[str]:
    """The marks of executed calls."""
    return [(call.get("arguments") or {}).get("mark", "") for call in calls]
