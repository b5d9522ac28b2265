"""The words of the era bridge: what it asks for, what it remembers of a server, and messages of its own. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from attestd.enforcement.effects import UnansweredError
from attestd.errors import Cause
from attestd.wire.model import Json, Limits, WireError
from attestd.wire.serialise import to_line
from attestd.wire.server import ServerMessage, parse_server_line

Body = dict[str, Any]
Id = str | int


class Send(msgspec.Struct, frozen=True):
    """To the server."""

    body: Body
    line: bytes | None = None


class Show(msgspec.Struct, frozen=True):
    """To the session, as if the server had sent it."""

    message: ServerMessage


class Refused(msgspec.Struct, frozen=True):
    """The session refuses this request of the client, for the cause that the error names."""

    request_id: Id
    error: WireError


BridgeEffect = Send | Show | Refused


class Eras(msgspec.Struct):
    """What is known of a server: whether it speaks an era, or None before it was asked. One per server."""

    modern: bool | None = None
    legacy: bool | None = None

    def forget(self) -> None:
        """It has changed."""
        self.modern = self.legacy = None


class Habits(msgspec.Struct):
    """What one program has done about the eras, at any server: whether it falls back to the older one by itself."""

    turned_away: bool = False
    """Its server/discover was refused."""
    falls_back: bool = False
    """It has said initialize."""

    def said(self, method: str, *, refused: bool = False) -> None:
        """It has said this, and was refused or not."""
        if method == "initialize":
            self.falls_back = True
        elif method == "server/discover" and refused:
            self.turned_away = True

    @property
    def modern_only(self) -> bool:
        """It was refused the modern era, and did not ask for another."""
        return self.turned_away and not self.falls_back


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What a bridge needs from outside."""

    limits: Limits
    shared: bool
    """The back end has other callers: nothing may be set on it."""
    always: bool
    """Answer ``server/discover`` for a legacy server to every client."""
    habits: Habits
    """Of the client: one that falls back by itself gets the server's own refusal, and loses nothing by translation."""
    own: Body
    """clientInfo of attestd, where a client names none."""
    new_state: Callable[[], str]
    """A request state that nobody can guess."""
    allows: Callable[[str], bool]
    """Whether the caller's grants accept this request of the server. The session decides again, and records."""

    @property
    def answers_discover(self) -> bool:
        """Whether ``server/discover`` is answered in the place of a legacy server."""
        return self.always or self.habits.modern_only


def mismatch(request_id: Id, text: str) -> Refused:
    """What one era has and the other has not."""
    return Refused(request_id, UnansweredError(Cause.ERA, text, request_id=request_id, sent=False))


class Speaker:
    """Makes messages of the bridge's own."""

    def __init__(self, setting: Setting, prefix: str) -> None:
        self._limits = setting.limits
        self._prefix = prefix
        self._count = 0

    def new_id(self) -> str:
        """An id that only we use towards this server, or this client."""
        self._count += 1
        return f"{self._prefix}-{self._count}"

    def message(self, body: Body) -> ServerMessage:
        """A message for the session, as if the server had sent it."""
        return parse_server_line(to_line(body)[:-1], self._limits)

    def result(self, message_id: Json, result: Body) -> Show:
        """An answer of ours."""
        return Show(self.message({"jsonrpc": "2.0", "id": message_id, "result": result}))

    def error(self, message_id: Json, error: Json) -> Show:
        """An error that a server, or a client, has told."""
        return Show(self.message({"jsonrpc": "2.0", "id": message_id, "error": error}))

    def told(self, method: str, params: Body) -> Show:
        """A notification."""
        return Show(self.message({"jsonrpc": "2.0", "method": method, "params": params}))


def request(message_id: Json, method: str, params: Body) -> Send:
    """A request to the server."""
    return Send({"jsonrpc": "2.0", "id": message_id, "method": method, "params": params})


def notice(method: str, params: Body | None = None) -> Send:
    """A notification to the server."""
    return Send({"jsonrpc": "2.0", "method": method, **({} if params is None else {"params": params})})


def reply(message_id: Json, result: Json) -> Send:
    """The answer to a request of the server."""
    return Send({"jsonrpc": "2.0", "id": message_id, "result": result})


def reply_error(message_id: Json, code: int, text: str) -> Send:
    """The refusal of a request of the server."""
    return Send({"jsonrpc": "2.0", "id": message_id, "error": {"code": code, "message": text}})
