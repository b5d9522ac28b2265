"""Opens links to HTTP back ends, and keeps what the links of one server share: its door, and what its tools said."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import msgspec

from attestd.daemon.backs import Backs
from attestd.daemon.config import ServerSettings
from attestd.daemon.http_doors import HttpDoor
from attestd.enforcement.farewells import FAREWELL_S, Farewells
from attestd.enforcement.http_client import HttpClient
from attestd.enforcement.http_link import HttpLink
from attestd.enforcement.http_wire import HttpError
from attestd.enforcement.link import LinkOwner, ServerError
from attestd.enforcement.sse_link import SseLink
from attestd.enforcement.streamable_link import StreamableLink
from attestd.evidence.acceptors import Acceptors
from attestd.grants.pins import Pin, PinStore
from attestd.wire.model import Limits
from attestd.wire.repeated import Annotations


class _Shared(msgspec.Struct):
    """Of one server."""

    settings: ServerSettings
    door: HttpDoor
    farewells: Farewells
    annotations: dict[str, Annotations]


class HttpBacks:
    """Belongs to the loop's thread."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        backs: Backs,
        acceptors: Acceptors | None,
        pins: PinStore,
        pinned: Callable[[Pin], None],
        state: Callable[[str, str], None],
        let_through: Callable[[socket.socket], None],
    ) -> None:
        """``pinned``, ``state`` and ``let_through``: see ``HttpDoor``."""
        self._loop = loop
        self._backs = backs
        self._acceptors = acceptors
        self._pins = pins
        self._pinned = pinned
        self._state = state
        self._let_through = let_through
        self._servers: dict[str, _Shared] = {}
        self._forgotten: list[Farewells] = []

    async def open(self, server: ServerSettings, owner: LinkOwner, limits: Limits) -> HttpLink:
        """A link whose server was found to be who it must be. Raises ServerError."""
        shared = self._shared(server)
        shared.door.prepare()
        client = HttpClient(self._loop, shared.door)
        kind = SseLink if server.transport == "sse" else StreamableLink
        link = kind(
            loop=self._loop,
            client=client,
            owner=owner,
            limits=limits,
            annotations=shared.annotations,
            farewell=shared.farewells.say,
        )
        try:
            await client.prepare()
            if isinstance(link, SseLink):
                await link.open()
        except HttpError as error:
            link.close()
            raise ServerError(error.cause, error.message, hint=error.hint) from error
        except BaseException:
            link.close()
            raise
        return link

    def forget(self, name: str) -> None:
        """The server is gone or changed."""
        shared = self._servers.pop(name, None)
        if shared is not None:
            shared.door.close()
            self._forgotten = [each for each in self._forgotten if each.speaking]
            self._forgotten.append(shared.farewells)

    async def close(self) -> None:
        """Wait until every server has been told that its sessions are over, or a moment has passed."""
        farewells = [*self._forgotten, *(shared.farewells for shared in self._servers.values())]
        speaking = [task for each in farewells for task in each.speaking]
        if speaking:
            await asyncio.wait(speaking, timeout=FAREWELL_S)
        for each in farewells:
            each.close()
        for name in tuple(self._servers):
            self.forget(name)

    def _shared(self, server: ServerSettings) -> _Shared:
        shared = self._servers.get(server.name)
        if shared is None or shared.settings != server:
            self.forget(server.name)
            door = HttpDoor(
                loop=self._loop,
                server=server,
                backs=self._backs,
                acceptors=self._acceptors,
                pins=self._pins,
                pinned=self._pinned,
                state=self._state,
                let_through=_unmarked if "@" in server.name else self._let_through,
            )
            shared = self._servers[server.name] = _Shared(
                settings=server, door=door, farewells=Farewells(self._loop, door), annotations={}
            )
        return shared


def _unmarked(sock: socket.socket) -> None:
    """What is sealed is not opened to a user's own server (``NAME@UID``) of that port."""
    del sock
