"""One started server as the daemon holds it: three descriptors and the line to its supervisor.

Rules
- The descriptors belong to this object. ``stop`` closes them, after taking their readers and writers off the loop.
- ``exit TEXT`` on the line is the server's own end; the closing of the line means that nothing of it is left.
- ``on_exit`` is told once, and only after the caller of ``start`` has had the object in hand.
- Standard error is read as fast as it comes, so that the server never blocks on it, and all but the tail is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Protocol

from attestd.launch.find import explain
from attestd.launch.protocol import LaunchError

TAIL_BYTES = 4096
READ_BYTES = 1 << 16
WORDS_BYTES = 1 << 13


class Line(Protocol):
    """The socket on which the daemon hears of one server: messages stay whole, and nothing blocks."""

    def fileno(self) -> int:
        """The descriptor; -1 after ``close``."""

    def recv(self, size: int, /) -> bytes:
        """The next message; empty at the end. Raises OSError, BlockingIOError first."""

    def send(self, message: bytes, /) -> int:
        """A short message. Raises OSError."""

    def close(self) -> None:
        """Idempotent."""


class ServerProcess:
    """Implements ``Backend``."""

    def __init__(
        self,
        *,
        file: str,
        line: Line,
        fds: tuple[int, int, int],
        on_exit: Callable[[str], None],
        on_gone: Callable[[ServerProcess], None],
    ) -> None:
        """``fds``: our ends of standard input, output and error, which do not block."""
        self._loop = asyncio.get_running_loop()
        self.pid = 0
        self.stdin_fd, self.stdout_fd, self._stderr_fd = fds
        self.gone = asyncio.Event()
        """Set when the server and every descendant have ended."""
        self.started: asyncio.Future[None] = self._loop.create_future()
        self._file = file
        self._line = line
        self._tail = b""
        self._on_exit: Callable[[str], None] | None = on_exit
        self._on_gone = on_gone
        self._ending = ""
        self._handed = False
        self._loop.add_reader(line.fileno(), self._heard)
        self._loop.add_reader(self._stderr_fd, self._complained)

    def finish(self) -> None:
        """Close stdin. Idempotent."""
        if self.stdin_fd >= 0:
            fd, self.stdin_fd = self.stdin_fd, -1
            self._loop.remove_writer(fd)
            os.close(fd)

    def stop(self) -> None:
        """Close both descriptors and have the server and every descendant ended. Idempotent."""
        self.finish()
        if self.stdout_fd >= 0:
            fd, self.stdout_fd = self.stdout_fd, -1
            self._loop.remove_reader(fd)
            os.close(fd)
            with contextlib.suppress(OSError):
                self._line.send(b"stop")

    def abandon(self) -> None:
        """End it without grace: close everything; the supervisor kills what remains."""
        self._on_exit = None
        if not self.started.cancel() and not self.started.cancelled():
            self.started.exception()  # seen, so that nobody is warned of it
        self.stop()
        self._close_line()
        self._close_stderr()

    def stderr_tail(self) -> str:
        """The last 4 KiB of standard error."""
        return self._tail.decode("utf-8", "replace")

    def handed_over(self) -> None:
        """The caller of ``start`` has the object: from now on ``on_exit`` may be told."""
        self._handed = True
        self._tell_exit()

    def _heard(self) -> None:
        """A word of the supervisor, or its end."""
        try:
            words = self._line.recv(WORDS_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except ConnectionError:
            words = b""
        kind, _, rest = words.partition(b"\0")
        if kind == b"started":
            self.pid = int(rest)
            self._start_ends(None)
        elif kind == b"failed":
            number, _, stage = rest.partition(b"\0")
            self._start_ends(explain(self._file, int(number), os.fsdecode(stage)))
        elif kind == b"refused":
            text, _, hint = rest.decode("utf-8", "replace").partition("\0")
            self._start_ends(LaunchError(f"cannot start {self._file}: {text}", hint=hint))
        elif kind == b"exit":
            self._ending = rest.decode()
            self._tell_exit()
        else:
            self._vanished()

    def _vanished(self) -> None:
        self._close_line()
        self._start_ends(LaunchError(f"cannot start {self._file}: the launcher ended before the server was started"))
        self._ending = self._ending or "ended because its supervisor is gone"
        self._tell_exit()

    def _start_ends(self, error: LaunchError | None) -> None:
        if self.started.done():
            return
        if error is None:
            self.started.set_result(None)
        else:
            self.started.set_exception(error)

    def _tell_exit(self) -> None:
        if self._handed and self._ending and self._on_exit is not None:
            tell, self._on_exit = self._on_exit, None
            tell(self._ending)

    def _complained(self) -> None:
        try:
            data = os.read(self._stderr_fd, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        if data:
            self._tail = (self._tail + data)[-TAIL_BYTES:]
        else:
            self._close_stderr()

    def _close_stderr(self) -> None:
        if self._stderr_fd >= 0:
            fd, self._stderr_fd = self._stderr_fd, -1
            self._loop.remove_reader(fd)
            os.close(fd)

    def _close_line(self) -> None:
        if self._line.fileno() >= 0:
            self._loop.remove_reader(self._line.fileno())
            self._line.close()
            self.gone.set()
            self._on_gone(self)
