"""What a back end was told and would have to be told again, if it forgets us. Pure.

Legacy era only: the client's ``initialize`` with the revision that was agreed, the session id that the server gave,
the log level, and the resources that are subscribed to. A modern server remembers nothing, so there is nothing to say
again.
"""

from __future__ import annotations

import re
from typing import Any, Final

from attestd.wire.model import Kind
from attestd.wire.server import ServerMessage

SESSION_ID: Final = re.compile(r"[!-~]{1,1024}\Z")
"""Visible ASCII, as specified; longer ones would not fit beside the rest of a head."""
OWN_ID: Final = "attestd-again-"
"""Begins the ids of requests that the link makes itself."""
SUBSCRIPTIONS: Final = 4096
"""Subscriptions that are remembered; more are not made again."""
_REMEMBERED: Final = frozenset({"initialize", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"})
Body = dict[str, Any]


class Handshake:
    """Of one link."""

    def __init__(self) -> None:
        self.session_id: str | None = None
        self.revision: str | None = None
        """What was agreed on; None before an answer to initialize."""
        self._initialize: Body | None = None
        self._initialized = False
        self._level: Body | None = None
        self._subscribed: dict[str, Body] = {}
        self._count = 0

    @property
    def repeatable(self) -> bool:
        """Whether the server can be told again."""
        return self._initialize is not None and self.revision is not None

    def answered(self, body: Body, message: ServerMessage) -> None:
        """A request of the client was answered with a result: remember what it changed."""
        if message.kind is not Kind.RESULT or body.get("method") not in _REMEMBERED:
            return
        params = body.get("params")
        uri = str(params.get("uri")) if isinstance(params, dict) else ""
        match body.get("method"):
            case "initialize":
                self._initialize = body
                self.revision = message.head.protocol_version if message.head is not None else None
                self._level, self._subscribed = None, {}
            case "logging/setLevel":
                self._level = body
            case "resources/subscribe" if len(self._subscribed) < SUBSCRIPTIONS:
                self._subscribed[uri] = body
            case "resources/unsubscribe":
                self._subscribed.pop(uri, None)
            case _:
                pass

    def told(self, body: Body) -> None:
        """A notification of the client was accepted."""
        if body.get("method") == "notifications/initialized":
            self._initialized = True

    def again(self) -> Body:
        """The remembered initialize, with an id of our own. Ask ``repeatable`` first."""
        return self._own(self._initialize or {})

    def afterwards(self) -> list[Body]:
        """What follows a repeated initialize, in order: the notification, then what was set."""
        bodies: list[Body] = []
        if self._initialized:
            bodies.append({"jsonrpc": "2.0", "method": "notifications/initialized"})
        if self._level is not None:
            bodies.append(self._own(self._level))
        return [*bodies, *(self._own(each) for each in self._subscribed.values())]

    def _own(self, body: Body) -> Body:
        self._count += 1
        return {**body, "id": f"{OWN_ID}{self._count}"}
