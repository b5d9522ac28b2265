"""One attestation's watch, held by the connection that it was made for and by every session that began there.

An HTTP connection comes and goes while its sessions go on, and they need the watch for as long as they live. The exit
of the process is told to every holder, because the loop takes only one reader for a descriptor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from attestd.evidence.protocol import Watch


class SharedWatch:
    """Closes the watch with its last holder."""

    def __init__(self, loop: asyncio.AbstractEventLoop, watch: Watch) -> None:
        self._loop = loop
        self._watch = watch
        watch.leave_connection()
        self._holds: dict[Hold, Callable[[], None]] = {}
        self.verify = watch.verify
        """See ``Watch``."""
        self._fds = watch.exit_fds()
        for fd in self._fds:
            loop.add_reader(fd, self._exited, fd)

    def hold(self, exited: Callable[[], None]) -> Hold:
        """One more holder; ``exited`` is called when the peer or the accountable client exits."""
        hold = Hold(self)
        self._holds[hold] = exited
        return hold

    def exit_fds(self) -> tuple[int, ...]:
        """None: whoever wants to know holds it."""
        return ()

    def pin_accountable(self, index: int) -> None:
        """The attestation has done it."""

    def set_aside(self) -> None:
        """No relay of HTTP steps aside."""

    def leave_connection(self) -> None:
        """It has been left."""

    def close(self) -> None:
        """Nothing: it goes with its last holder."""

    def release(self, hold: Hold) -> None:
        """One holder less."""
        if self._holds.pop(hold, None) is not None and not self._holds:
            for fd in self._fds:
                self._loop.remove_reader(fd)
            self._watch.close()

    def _exited(self, fd: int) -> None:
        self._loop.remove_reader(fd)
        for exited in list(self._holds.values()):
            exited()


class Hold:
    """One holder."""

    def __init__(self, shared: SharedWatch) -> None:
        self._shared = shared

    def close(self) -> None:
        """Let go. Idempotent."""
        self._shared.release(self)
