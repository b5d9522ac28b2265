"""A link with the era bridge in it: between a session (or a shared server) and the link to the back end.

Once it is known that nothing need be translated, messages pass as they are. What one message sets off is finished
before the next is looked at, though links and sessions may answer while they are told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from attestd.enforcement.bridge import Bridge
from attestd.enforcement.bridge_effects import BridgeEffect, Eras, Send, Setting, Show
from attestd.enforcement.link import Attached, Link
from attestd.errors import Cause
from attestd.wire.model import WireError
from attestd.wire.server import ServerMessage

ASK_S = 10.0
"""How long a server may take to say which era it speaks; some never answer a method that they do not know."""


class BridgedLink:
    """Both a ``Link`` for the session and the owner of the link below."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, owner: Attached, setting: Setting, eras: Eras, ask_s: float = ASK_S
    ) -> None:
        self._loop = loop
        self._owner = owner
        self._bridge = Bridge(setting, eras)
        self._link: Link | None = None
        self._direct: Link | None = None
        """The link below, as long as nothing need be translated and no turn is under way."""
        self._turns: deque[Callable[[], list[BridgeEffect]]] = deque()
        self._busy = False
        self._ask_s = ask_s
        self._timer: asyncio.TimerHandle | None = None

    def attach(self, link: Link) -> None:
        """The link below, whose owner this is."""
        self._link = link

    # -- as a link --------------------------------------------------------------------------------------------------

    @property
    def congested(self) -> bool:
        """Whether the client must wait: for the server, or for what it says about itself."""
        if self._direct is not None:
            return self._direct.congested
        return self._bridge.asking or (self._link is not None and self._link.congested)

    def send(self, body: dict[str, Any], line: bytes | None = None) -> None:
        """One message of the session."""
        if self._direct is not None:
            self._direct.send(body, line)
        else:
            self._turn(partial(self._bridge.client, body, line))

    def finish(self) -> None:
        """The client is done."""
        if self._link is not None:
            self._link.finish()

    def pause(self) -> None:
        """Stop reading from the server."""
        if self._link is not None:
            self._link.pause()

    def resume(self) -> None:
        """Read again."""
        if self._link is not None:
            self._link.resume()

    def close(self) -> None:
        """Let go of the back end."""
        self._stop_timer()
        link, self._link, self._direct = self._link, None, None
        if link is not None:
            link.close()

    # -- as the owner of a link -------------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Bytes that wait for the client."""
        return self._owner.backlog

    def server_message(self, message: ServerMessage) -> None:
        """From the link below."""
        if self._direct is not None:
            self._owner.server_message(message)
        else:
            self._turn(partial(self._bridge.server, message))

    def server_malformed(self, request_id: str | int, error: WireError) -> None:
        """From the link below."""
        self._turn(partial(self._bridge.malformed, request_id, error))

    def server_streams(self, request_id: str | int) -> None:
        """From the link below. Not told where something is translated: its error may need an HTTP status."""
        if self._direct is not None:
            self._owner.server_streams(request_id)

    def server_gone(self, cause: Cause, text: str) -> None:
        """From the link below."""
        self._stop_timer()
        self._link = self._direct = None
        self._owner.server_gone(cause, text)

    def server_relieved(self) -> None:
        """From the link below."""
        self._owner.server_relieved()

    # -- turns ------------------------------------------------------------------------------------------------------

    def _turn(self, turn: Callable[[], list[BridgeEffect]]) -> None:
        self._turns.append(turn)
        if self._busy:
            return
        self._busy = True
        self._direct = None
        asked = self._bridge.asking
        try:
            while self._turns:
                for effect in self._turns.popleft()():
                    self._carry_out(effect)
        finally:
            self._busy = False
            self._direct = self._link if self._bridge.native else None
        if self._bridge.asking:
            if self._timer is None and self._link is not None:
                self._timer = self._loop.call_later(self._ask_s, self._silent)
        else:
            self._stop_timer()
            if asked:
                self._owner.server_relieved()

    def _carry_out(self, effect: BridgeEffect) -> None:
        match effect:
            case Send(body=body, line=line):
                if self._link is not None:
                    self._link.send(body, line)
            case Show(message=message):
                self._owner.server_message(message)
            case _:
                self._owner.server_malformed(effect.request_id, effect.error)

    def _silent(self) -> None:
        self._timer = None
        self._turn(self._bridge.silent)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
