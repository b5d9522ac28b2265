"""Which era a back end speaks, found out by asking it, and the translation where the client speaks the other. Pure.

The first message of the client that tells its era decides what is tried first, because a server may be fixed to an era
by the first thing it hears:

1. ``initialize``: it is passed on. If the server answers it, nothing is translated. If it refuses and answers
   ``server/discover``, it is modern only, and the client gets its answer from that.
2. ``server/discover``: likewise. If the server answers with the modern revision, or with an error that only a modern
   server knows, nothing is translated. Anything else, also silence, is a legacy server. A client that speaks both eras
   now says ``initialize``, and is better served by that; so the refusal is passed on. Where the program is known not to
   (``Habits``), where the server is silent, or declared ``bridge = "always"``, attestd says ``initialize`` itself.
3. Another modern request: attestd asks ``server/discover`` first, for a legacy server might carry the request out.

What was found is remembered for the server as long as it is configured so, and asked again when it proves wrong. While
attestd asks, what the client sends waits. A message that tells no era is passed on.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from attestd.enforcement.bridge_effects import (
    Body,
    BridgeEffect,
    Eras,
    Id,
    Refused,
    Send,
    Setting,
    Show,
    mismatch,
    notice,
    request,
)
from attestd.enforcement.bridge_legacy import LegacyClient
from attestd.enforcement.bridge_modern import ModernClient
from attestd.enforcement.effects import UnansweredError
from attestd.errors import Cause
from attestd.wire.lookalike import META, META_REVISION
from attestd.wire.model import Json, Kind, WireError
from attestd.wire.server import ServerMessage, result_of
from attestd.wire.translate import envelope, initialize_params, is_whole, meta_of, probe, speaks_modern

DISCOVER: Final = "attestd-discover"
INITIALIZE: Final = "attestd-initialize"
MODERN_ERRORS: Final = range(-32022, -32019)
"""Codes that only a modern server knows."""


class Stage(StrEnum):
    """Where the connection stands."""

    OPEN = "open"
    """Nothing has told an era."""
    INITIALIZE = "initialize"
    """The client's initialize is with the server."""
    DISCOVER = "discover"
    """The client's server/discover is with the server."""
    ASKING_MODERN = "asking_modern"
    """Our server/discover is."""
    ASKING_LEGACY = "asking_legacy"
    """Our initialize is."""
    NATIVE = "native"
    """Nothing is translated."""
    BRIDGED = "bridged"


class Bridge:
    """One connection to one back end."""

    def __init__(self, setting: Setting, eras: Eras) -> None:
        self._setting = setting
        self._eras = eras
        self.stage = Stage.OPEN
        self._first: Body = {}
        """The client's message that told its era."""
        self._waiting: list[Body] = []
        self._refused: ServerMessage | None = None
        """The server's own answer to the client's first message, where that was no result."""
        self._translation: ModernClient | LegacyClient | None = None

    @property
    def native(self) -> bool:
        """Whether everything is passed on as it is."""
        return self.stage is Stage.NATIVE

    @property
    def asking(self) -> bool:
        """Whether an answer to a question of ours is due."""
        return self.stage in {Stage.ASKING_MODERN, Stage.ASKING_LEGACY, Stage.DISCOVER}

    # -- the client's side ------------------------------------------------------------------------------------------

    def client(self, body: Body, line: bytes | None = None) -> list[BridgeEffect]:
        """One permitted message of the client."""
        if self._translation is not None:
            return self._translation.client(body)
        if self.stage is Stage.OPEN:
            return self._opening(body, line)
        if self.stage is Stage.NATIVE:
            return [Send(body, line)]
        if self.stage is Stage.INITIALIZE and "id" not in body:
            return [Send(body, line)]  # a cancellation of initialize, for example
        self._waiting.append(body)
        return []

    def _opening(self, body: Body, line: bytes | None) -> list[BridgeEffect]:  # noqa: PLR0911 - the numbered cases
        method, params = body.get("method"), body.get("params")
        if method == "initialize":
            self._setting.habits.said(method)
            self._first = body
            if self._eras.legacy is False:
                return self._ask_modern()
            self.stage = Stage.INITIALIZE
            return [Send(body, line)]
        if method != "server/discover" and META_REVISION not in meta_of(params):
            return [Send(body, line)]
        self._first = body
        if method == "server/discover":
            if self._eras.modern is False and self._setting.answers_discover:
                self._waiting.append(body)
                return self._ask_legacy()
            self.stage = Stage.DISCOVER
            return [Send(body, line)]
        if self._eras.modern:
            self.stage = Stage.NATIVE
            return [Send(body, line)]
        self._waiting.append(body)
        return self._ask_legacy() if self._eras.modern is False else self._ask_modern()

    def _ask_modern(self) -> list[BridgeEffect]:
        self.stage = Stage.ASKING_MODERN
        if self._first.get("method") == "initialize":
            meta = envelope(self._first.get("params") or {}, None)
        else:
            meta = probe(meta_of(self._first.get("params")), self._setting.own)
        return [request(DISCOVER, "server/discover", {META: meta})]

    def _ask_legacy(self) -> list[BridgeEffect]:
        self.stage = Stage.ASKING_LEGACY
        params = initialize_params(meta_of(self._first.get("params")), self._setting.own)
        return [request(INITIALIZE, "initialize", params)]

    # -- the server's side ------------------------------------------------------------------------------------------

    def server(self, message: ServerMessage) -> list[BridgeEffect]:
        """One message of the server."""
        if self._translation is not None:
            return self._translation.server(message)
        if message.kind not in {Kind.RESULT, Kind.ERROR} or not self._expects(message.id):
            return [Show(message)]
        return self._found(message, message.error)

    def malformed(self, request_id: Id, error: WireError) -> list[BridgeEffect]:
        """The server's answer to this request is not MCP."""
        if self._translation is not None:
            known, effects = self._translation.malformed(request_id, error)
            return effects if known is None else [*effects, Refused(known, error)]
        if request_id == self._first.get("id") and self.stage is Stage.INITIALIZE:
            self.stage = Stage.OPEN
        elif self._expects(request_id):
            if isinstance(error, UnansweredError) and error.cause is not Cause.SERVER_MALFORMED:
                return self._unreachable(error)
            return self._found(None, {"code": 0, "message": error.message})
        return [Refused(request_id, error)]

    def silent(self) -> list[BridgeEffect]:
        """The server did not answer our question in time."""
        return self._found(None, {"code": 0, "message": "the server did not answer"}) if self.asking else []

    def _expects(self, message_id: Json) -> bool:
        match self.stage:
            case Stage.INITIALIZE | Stage.DISCOVER:
                return bool(message_id == self._first.get("id"))
            case Stage.ASKING_MODERN:
                return bool(message_id == DISCOVER)
            case Stage.ASKING_LEGACY:
                return bool(message_id == INITIALIZE)
            case _:
                return False

    def _found(self, message: ServerMessage | None, error: Json) -> list[BridgeEffect]:
        result = None
        if message is not None and message.kind is Kind.RESULT:
            try:
                result = result_of(message, self._setting.limits)
            except WireError as broken:
                error = {"code": 0, "message": broken.message}
        match self.stage:
            case Stage.INITIALIZE:
                return self._initialized_itself(message, result)
            case Stage.DISCOVER:
                return self._discovered_itself(message, result, error)
            case Stage.ASKING_MODERN:
                return self._answered_modern(result, error)
            case _:
                return self._answered_legacy(result, error)

    def _initialized_itself(self, message: ServerMessage | None, result: Body | None) -> list[BridgeEffect]:
        if message is None:
            return []
        if result is not None:
            self._eras.legacy = True
            return self._pass([Show(message)])
        if self._eras.modern is False:
            self.stage = Stage.OPEN
            return [Show(message), *self._replay()]
        self._refused = message
        return self._ask_modern()

    def _discovered_itself(self, message: ServerMessage | None, result: Body | None, error: Json) -> list[BridgeEffect]:
        if message is not None and (speaks_modern(result) or (result is None and error["code"] in MODERN_ERRORS)):
            self._eras.modern = True
            return self._pass([Show(message)])
        if message is not None and not is_whole(meta_of(self._first.get("params"))):
            self.stage = Stage.OPEN  # what the client asked was wrong in itself, so the answer tells nothing
            return [Show(message), *self._replay()]
        self._eras.modern = False
        if not self._setting.answers_discover and message is not None:
            self._setting.habits.said("server/discover", refused=True)
            self.stage = Stage.OPEN
            return [Show(message), *self._replay()]
        self._refused = message
        self._waiting.insert(0, self._first)
        return self._ask_legacy()

    def _answered_modern(self, result: Body | None, error: Json) -> list[BridgeEffect]:
        legacy_client = self._first.get("method") == "initialize"
        if result is not None and speaks_modern(result):
            self._eras.modern = True
            if not legacy_client:
                return self._pass([])
            self._eras.legacy = False
            self._translation = LegacyClient(self._setting, result)
            self._waiting.insert(0, self._first)
            return self._bridged([])
        if not legacy_client and (result is not None or error["code"] not in MODERN_ERRORS):
            self._eras.modern = False
            return self._ask_legacy()
        if not legacy_client:
            return self._pass([])
        return self._neither("server/discover", error)

    def _answered_legacy(self, result: Body | None, error: Json) -> list[BridgeEffect]:
        if result is None:
            return self._neither("initialize", error)
        self._eras.legacy = True
        self._translation = ModernClient(self._setting, result)
        return self._bridged([notice("notifications/initialized")])

    def _unreachable(self, error: WireError) -> list[BridgeEffect]:
        """The question was not answered because nobody was there: that says nothing of the eras."""
        waiting, self._waiting, self.stage = self._waiting, [], Stage.OPEN
        if self._first not in waiting:
            waiting.insert(0, self._first)
        return [Refused(body["id"], error) for body in waiting if "id" in body]

    def _neither(self, method: str, error: Json) -> list[BridgeEffect]:
        """The server speaks neither era with us: what was remembered is wrong, and the client is told."""
        self._eras.forget()
        self.stage = Stage.OPEN
        told = [] if self._refused is None else [Show(self._refused)]
        waiting, self._waiting, self._refused = self._waiting, [], None
        if not told and self._first.get("method") == "initialize":
            waiting.insert(0, self._first)
        said = "" if error is None else f": {str(error.get('message'))[:200]}"
        text = f"the server speaks no revision of the client's era, and refused {method} of the other{said}"
        told_ids = {each.message.id for each in told}
        refused = [mismatch(each["id"], text) for each in waiting if "id" in each and each["id"] not in told_ids]
        return [*told, *refused]

    def _pass(self, effects: list[BridgeEffect]) -> list[BridgeEffect]:
        self.stage = Stage.NATIVE
        return [*effects, *self._replay()]

    def _bridged(self, effects: list[BridgeEffect]) -> list[BridgeEffect]:
        self.stage = Stage.BRIDGED
        return [*effects, *self._replay()]

    def _replay(self) -> list[BridgeEffect]:
        waiting, self._waiting = self._waiting, []
        return [effect for body in waiting for effect in self.client(body)]
