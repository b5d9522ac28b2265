"""A launcher that starts nothing: each server is a socket pair whose far end is in the test."""

from __future__ import annotations

import socket
from collections.abc import Callable

from attestd.launch.protocol import Command, LaunchError
from tests.support.streams import Far


class FakeBackend:
    """One server; ``far`` is its end. Implements ``launch.protocol.Backend``."""

    def __init__(self, pid: int, on_exit: Callable[[str], None]) -> None:
        self._ours, theirs = socket.socketpair()
        self._ours.setblocking(False)
        self.far = Far(theirs)
        self.pid = pid
        self.stdin_fd = self._ours.fileno()
        self.stdout_fd = self.stdin_fd
        self.errors = ""
        self.finished = 0
        self.stopped = 0
        self._on_exit = on_exit

    def finish(self) -> None:
        """Close its input."""
        self.finished += 1
        self._ours.shutdown(socket.SHUT_WR)

    def stop(self) -> None:
        """End it."""
        self.stopped += 1
        self._ours.close()

    def stderr_tail(self) -> str:
        """What it complained about."""
        return self.errors

    def exit(self, text: str) -> None:
        """It ends by itself."""
        self._on_exit(text)
        self.far.close()


class FakeLauncher:
    """Implements ``launch.protocol.Launcher``; keeps commands and back ends, or fails."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.clients: list[int | None] = []
        self.backends: list[FakeBackend] = []
        self.failure: LaunchError | None = None
        self.closed = False

    async def start(self, command: Command, on_exit: Callable[[str], None], client: int | None = None) -> FakeBackend:
        """Another socket pair."""
        self.commands.append(command)
        self.clients.append(client)
        if self.failure is not None:
            raise self.failure
        self.backends.append(FakeBackend(4000 + len(self.backends), on_exit))
        return self.backends[-1]

    async def close(self) -> None:
        """End them all."""
        self.closed = True
        for backend in self.backends:
            backend.far.close()
            if not backend.stopped:
                backend.stop()
