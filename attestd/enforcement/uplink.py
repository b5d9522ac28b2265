"""The way of one session to its back end: opened on first need, and what waits until then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from attestd.enforcement.effects import ToServer, cancelled
from attestd.enforcement.link import Attached, Link, ServerError
from attestd.errors import Cause


class UplinkOwner(Attached, Protocol):
    """The session that the link is for."""

    def server_failed(self, cause: Cause, text: str) -> None:
        """The link could not be opened; the next request tries again."""


OpenUplink = Callable[[Any], Awaitable[Link]]
"""Opens the link of an ``UplinkOwner``. Raises ServerError."""


class Uplink:
    """At most one link."""

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: UplinkOwner, open_link: OpenUplink) -> None:
        self._loop = loop
        self._owner = owner
        self._open_link = open_link
        self._link: Link | None = None
        self._opening: asyncio.Task[None] | None = None
        self._waiting: list[ToServer] = []
        self._closed = False

    @property
    def congested(self) -> bool:
        """Whether the client must wait."""
        return self._opening is not None if self._link is None else self._link.congested

    def send(self, effect: ToServer) -> None:
        """One message to the server."""
        if self._link is not None:
            self._link.send(effect.body, effect.line)
            return
        self._waiting.append(effect)
        if self._opening is None and not self._closed:
            self._opening = self._loop.create_task(self._open())
            self._opening.add_done_callback(self._opened)

    def withdraw(self, request_id: str | int) -> bool:
        """Take a request back, which True says, or else tell the server that nobody waits for its answer."""
        kept = [each for each in self._waiting if each.body.get("id") != request_id]
        if len(kept) < len(self._waiting):
            self._waiting = kept
            return True
        self.send(ToServer(cancelled(request_id, "the caller's grant has ended")))
        return False

    def pause(self) -> None:
        """The client does not read."""
        if self._link is not None:
            self._link.pause()

    def resume(self) -> None:
        """The client reads again."""
        if self._link is not None:
            self._link.resume()

    def lost(self) -> None:
        """The link has ended by itself."""
        self._link = None

    def close(self) -> None:
        """Let go of the back end."""
        self._closed = True
        self._waiting.clear()
        link, self._link = self._link, None
        if link is not None:
            link.finish()
            link.close()

    async def _open(self) -> None:
        try:
            link = await self._open_link(self._owner)
        except ServerError as error:
            self._opening = None
            self._waiting.clear()
            self._owner.server_failed(error.cause, error.message)
            return
        self._opening = None
        if self._closed:
            link.close()
            return
        self._link = link
        waiting, self._waiting = self._waiting, []
        for effect in waiting:
            link.send(effect.body, effect.line)
        self._owner.server_relieved()

    def _opened(self, task: asyncio.Task[None]) -> None:
        """An error that ``_open`` does not expect is our bug: the client is told, and so is the loop."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._opening = None
            self._owner.server_gone(Cause.INTERNAL, f"{type(error).__name__}: {error}"[:256])
            self._loop.call_exception_handler({"message": "cannot open a back end", "exception": error})
