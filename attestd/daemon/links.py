"""Ways to back ends: directly, over a bridge between the eras, or through what several callers share."""

from __future__ import annotations

import os
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

from attestd.daemon.bridges import OpenBelow, bridged, shared_eras
from attestd.daemon.config import ServerSettings
from attestd.daemon.sessions import Channel
from attestd.enforcement.bridge_effects import Habits
from attestd.enforcement.link import Attached, Link, LinkOwner, ServerError, StreamLink
from attestd.errors import AttestdError, Cause

if TYPE_CHECKING:
    from attestd.daemon.app import Daemon, Front

PROGRAMS = 1024
"""Whose habits are remembered; the one that was not seen for the longest time is forgotten."""


SHARED = -1
"""In the place of a uid: what is shared serves nobody in particular."""


class Links:
    """Of one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._habits: OrderedDict[str, Habits] = OrderedDict()

    def habits(self, program: str) -> Habits:
        """Of a program, by its digest."""
        habits = self._habits.setdefault(program, Habits())
        self._habits.move_to_end(program)
        if len(self._habits) > PROGRAMS:
            self._habits.popitem(last=False)
        return habits

    async def open(self, front: Front, connection: Channel) -> Link:
        """The way of one session to the back end of its server. Raises ServerError."""
        info = self._daemon.sessions.get(connection)
        if info is None:
            raise ServerError(Cause.SHUTTING_DOWN, "the session has ended")
        caller = info.caller
        client = os.dup(caller.pidfd) if caller.pidfd >= 0 else None  # the session may end while a server starts
        try:
            opened: OpenBelow = partial(self._open_stream, front.settings, client)
            if front.shared is not None:
                opened = front.shared.attach
            if front.settings.bridge == "never":
                return await opened(connection)
            limits, eras, shared = self._daemon.settings.limits.wire, front.eras[caller.result.uid], False
            if front.shared is not None:
                eras, shared = shared_eras(), True
            always = front.settings.bridge == "always"
            bridge = partial(bridged, self._daemon.loop, connection, eras, limits, caller.accepts, opened)
            return await bridge(shared=shared, always=always, habits=self.habits(caller.result.program))
        except AttestdError as error:
            front.trouble, front.trouble_uid = error.message, caller.result.uid
            self._daemon.trouble(error.message, caller.result.uid)
            raise
        finally:
            if client is not None:
                os.close(client)

    async def below_shared(self, front: Front, owner: Attached) -> Link:
        """The one back end of a shared server; it may speak either era. It gets no questions to anybody."""
        opened = partial(self._open_stream, front.settings, None)
        if front.settings.bridge == "never":
            return await opened(owner)
        return await bridged(
            self._daemon.loop, owner, front.eras[SHARED], self._daemon.settings.limits.wire, lambda _: False, opened
        )

    async def _open_stream(self, server: ServerSettings, client: int | None, owner: LinkOwner) -> Link:
        if server.transport in ("http", "sse"):
            return await self._daemon.http_backs.open(server, owner, self._daemon.settings.limits.wire)
        back = await self._daemon.backs.open(server, client)
        return StreamLink(self._daemon.loop, back, owner, self._daemon.settings.limits.wire)
