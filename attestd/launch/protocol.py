"""Starting and supervising stdio servers, as the daemon sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from attestd.errors import AttestdError


class LaunchError(AttestdError):
    """A server cannot be started; the message names the file and the reason."""

    code = "launch"


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """What a server has to do without; see ``sandbox``."""

    network: bool = True
    read_only: bool = False
    writable: tuple[str, ...] = ()
    """Absolute paths that may be written although files are read-only."""
    limits: tuple[tuple[str, int], ...] = ()
    """By the names of ``sandbox.RLIMITS``."""

    def words(self) -> tuple[str, ...]:
        """As ``sandbox.Sandbox`` reads them."""
        return (
            *(() if self.network else ("no_network",)),
            *(("read_only",) if self.read_only else ()),
            *(f"writable={path}" for path in self.writable),
            *(f"{name}={number}" for name, number in self.limits),
        )


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry says must run. Never built from a request."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    """The whole environment; nothing is inherited."""
    cwd: str
    name: str = ""
    """Of the server; all that the launcher of system mode is told."""
    sandbox: Sandbox = Sandbox()


class Backend(Protocol):
    """One started server. Its descriptors stay its own: whoever reads or writes them never closes them."""

    pid: int
    stdin_fd: int
    """Non-blocking write end; -1 after ``finish`` or ``stop``."""
    stdout_fd: int
    """Non-blocking read end; -1 after ``stop``. It ends when the server and every descendant have closed it."""

    def finish(self) -> None:
        """Close stdin and let the server end by itself; what it still writes can be read. Idempotent."""

    def stop(self) -> None:
        """Close stdin, then after the grace period SIGTERM, then SIGKILL, for the server and every descendant.

        Both descriptors are closed at once. Idempotent; to be called also when the server has ended by itself.
        """

    def stderr_tail(self) -> str:
        """The last 4 KiB that the server wrote to standard error, decoded with replacement."""


class Launcher(Protocol):
    """The separate process that starts servers. Its death ends them all; the daemon's death ends it."""

    async def start(self, command: Command, on_exit: Callable[[str], None], client: int | None = None) -> Backend:
        """Start one server; returns when it has executed its program.

        ``client``: pidfd of the attested process that it is started for, valid while this runs; None: for every caller.
        ``on_exit`` gets a text such as ``exited with status 1``, once, on the loop's thread and after this call has
        returned. Raises LaunchError.
        """

    async def close(self) -> None:
        """End every server and the launcher; no descendant survives."""
