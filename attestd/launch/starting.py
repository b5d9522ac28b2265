"""What every launcher of the daemon has in common: orders with a server's pipes, and what was started with them.

Rules
- Whatever fails or is cancelled between the first pipe and ``started``, every descriptor is closed: the server ends.
- Only our ends of the pipes are non-blocking. They are large while all of them together stay below ``LARGE_BYTES``: the
  kernel's per-user allowance is shared with everything else that the user runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

from attestd.launch.protocol import Command, LaunchError
from attestd.launch.server import ServerProcess

PIPE_BYTES = 1 << 20
LARGE_BYTES = 16 << 20
ORDER_BYTES = 128 << 10
START_TIMEOUT_S = 10.0
STARTS_AT_ONCE = 8


class Pipes(NamedTuple):
    """Standard input, output and error of a server to be started: its ends, and ours, which do not block."""

    theirs: tuple[int, int, int]
    ours: tuple[int, int, int]


class Starter(ABC):
    """Starts servers in some way; belongs to one running loop."""

    def __init__(self, *, grace_s: float = 2.0) -> None:
        self._grace_s = grace_s
        self._servers: set[ServerProcess] = set()
        self._gate = asyncio.Semaphore(STARTS_AT_ONCE)
        self._closed = False

    async def start(self, command: Command, on_exit: Callable[[str], None], client: int | None = None) -> ServerProcess:
        """Start one server; returns when it has executed its program. Raises LaunchError with file and reason."""
        file, order = self._ordered(command)
        async with self._gate:
            if self._closed:
                raise LaunchError(f"cannot start {file}: the launcher is closed")
            server = await self._order(file, order, on_exit, client)
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    await server.started
            except TimeoutError:
                server.abandon()
                raise LaunchError(f"cannot start {file}: not executed within {START_TIMEOUT_S:g} s") from None
            except BaseException:
                server.abandon()
                raise
        asyncio.get_running_loop().call_soon(server.handed_over)
        return server

    async def close(self) -> None:
        """Stop every server with its grace, then end the launcher. Returns when no descendant is left."""
        self._closed = True
        servers = tuple(self._servers)
        for server in servers:
            server.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * self._grace_s + 2):
                for server in servers:
                    await server.gone.wait()
        for server in tuple(self._servers):
            server.abandon()
        await self._ended()

    @abstractmethod
    def _ordered(self, command: Command) -> tuple[str, bytes]:
        """What the server is called in errors, and the order. Raises LaunchError."""

    @abstractmethod
    async def _order(
        self, file: str, order: bytes, on_exit: Callable[[str], None], client: int | None
    ) -> ServerProcess:
        """Make the pipes and have the server started; it is one of ``_servers`` now. Raises LaunchError."""

    @abstractmethod
    async def _ended(self) -> None:
        """Every server was told to end: wait until what started them has ended."""

    def _pipes(self, ours: ExitStack, theirs: ExitStack) -> Pipes:
        """New pipes, whose ends are closed by the two stacks. Raises OSError."""
        stdin, stdin_fd = _pipe(theirs, ours, large=self._room())
        stdout_fd, stdout = _pipe(ours, theirs, large=self._room())
        stderr_fd, stderr = _pipe(ours, theirs, large=False)
        for fd in (stdin_fd, stdout_fd, stderr_fd):
            os.set_blocking(fd, False)
        return Pipes((stdin, stdout, stderr), (stdin_fd, stdout_fd, stderr_fd))

    def _room(self) -> bool:
        return 2 * PIPE_BYTES * len(self._servers) < LARGE_BYTES


def encode(command: Command, file: str, grace_s: float) -> bytes:
    """The order as the launcher reads it. Raises LaunchError for what no process can be given."""
    sandbox = command.sandbox.words()
    words = [str(round(grace_s * 1000)), file, command.cwd, str(len(command.argv)), *command.argv]
    words += [str(len(sandbox)), *sandbox]
    for name, value in command.env:
        if not name or "=" in name:
            raise LaunchError(f"cannot start {file}: cannot set an environment variable named {name!r}")
        words.append(f"{name}={value}")
    if any("\0" in word for word in words):
        raise LaunchError(f"cannot start {file}: an argument or environment variable contains a NUL character")
    order = os.fsencode("\0".join(words))
    if len(order) > ORDER_BYTES:
        raise LaunchError(
            f"cannot start {file}: its arguments and environment are {len(order)} bytes, at most {ORDER_BYTES}"
        )
    return order


def _pipe(reader: ExitStack, writer: ExitStack, *, large: bool) -> tuple[int, int]:
    """A pipe whose ends are closed by the two stacks."""
    read_fd, write_fd = os.pipe()
    reader.callback(os.close, read_fd)
    writer.callback(os.close, write_fd)
    if large and sys.platform == "linux":  # elsewhere the kernel enlarges a pipe itself
        with contextlib.suppress(OSError):
            fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return read_fd, write_fd
