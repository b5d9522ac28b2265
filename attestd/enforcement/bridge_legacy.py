"""A legacy client before a modern server.

``initialize`` is answered from what the server said to ``server/discover``; each request then gets the envelope that
the modern era wants. A question inside a result becomes a request to the client, and when all are answered the call is
made again with the answers. resources/subscribe becomes one ``subscriptions/listen`` for each URI, and the list changes
that the server announced become another. ping and logging/setLevel are answered here; the level goes with each request.

Refused with a cause: tasks (an extension in the modern era), and calls whose questions the client does not offer to
answer. Not passed on, because the modern era asks anew each time: that the client's roots have changed.
"""

from __future__ import annotations

from typing import Final

import msgspec

from attestd.enforcement.bridge_effects import (
    Body,
    BridgeEffect,
    Id,
    Setting,
    Show,
    Speaker,
    mismatch,
    notice,
    reply_error,
    request,
)
from attestd.wire.lookalike import META, META_SUBSCRIPTION
from attestd.wire.methods import CHALLENGED, QUESTIONS
from attestd.wire.model import Json, Kind, Limits, WireError
from attestd.wire.server import ServerMessage, result_of
from attestd.wire.translate import LEVELS, envelope, initialized, meta_of

ROUNDS: Final = 16
"""How often a server may ask before it is believed to ask for ever."""
_OFFERS: Final = {"roots/list": "roots", "sampling/createMessage": "sampling", "elicitation/create": "elicitation"}
_CHANGES: Final = {"tools": "toolsListChanged", "prompts": "promptsListChanged", "resources": "resourcesListChanged"}
_LISTENED: Final = frozenset(
    {
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
        "notifications/resources/updated",
    }
)
_ANSWERED_ONCE: Final = frozenset({"notifications/progress", "notifications/message"})


class Call(msgspec.Struct, kw_only=True):
    """One request of the client, through all its rounds."""

    client_id: Id
    method: str
    params: Body
    """As the client sent them, with what the rounds so far have added."""
    rounds: int = 0
    asked: dict[Id, str] = {}
    """Our request to the client, and the server's key of the question."""
    answers: Body = {}
    cancelled: bool = False


class Listen(msgspec.Struct, kw_only=True):
    """One stream of the server: a URI that the client subscribed to, or the list changes."""

    uri: str | None
    client_id: Id | None
    """Of resources/subscribe, until it was answered."""


class LegacyClient:
    """The translation for one connection."""

    def __init__(self, setting: Setting, discovery: Body) -> None:
        self._limits: Limits = setting.limits
        self._speaker = Speaker(setting, "attestd")
        self._discovery = discovery
        offered = discovery.get("capabilities")
        self._capabilities: Body = offered if isinstance(offered, dict) else {}
        self._initialize: Body = {}
        self._level: str | None = None
        self._calls: dict[Id, Call] = {}
        self._asking: dict[Id, Call] = {}
        self._listens: dict[Id, Listen] = {}

    # -- the client's side ------------------------------------------------------------------------------------------

    def client(self, body: Body) -> list[BridgeEffect]:  # noqa: PLR0911 - a table of methods
        """One permitted message of the client."""
        method, message_id = body.get("method"), body.get("id")
        params: Body = body.get("params") or {}
        if method is None:
            return self._told_us(message_id, body)
        if message_id is None:
            return self._notified(method, params)
        match method:
            case "initialize":
                self._initialize = params
                return [self._speaker.result(message_id, initialized(self._discovery, params.get("protocolVersion")))]
            case "ping":
                return [self._speaker.result(message_id, {})]
            case "logging/setLevel":
                return [self._set_level(message_id, params.get("level"))]
            case "resources/subscribe":
                return self._subscribe(message_id, str(params.get("uri", "")))
            case "resources/unsubscribe":
                return [*self._unsubscribe(str(params.get("uri", ""))), self._speaker.result(message_id, {})]
            case _ if method.startswith("tasks/") or "task" in params:
                text = "tasks of this revision are an extension in 2026-07-28, which is all that the server speaks"
                return [mismatch(message_id, text)]
            case _:
                return self._send(Call(client_id=message_id, method=method, params=params))

    def _send(self, call: Call) -> list[BridgeEffect]:
        own = self._speaker.new_id()
        self._calls[own] = call
        return [request(own, call.method, self._enveloped(call.params))]

    def _enveloped(self, params: Body) -> Body:
        return {**params, META: {**meta_of(params), **envelope(self._initialize, self._level)}}

    def _notified(self, method: str, params: Body) -> list[BridgeEffect]:
        match method:
            case "notifications/initialized":
                return self._listen_changes()
            case "notifications/cancelled":
                return self._cancelled(params)
            case _:
                return []

    def _listen_changes(self) -> list[BridgeEffect]:
        wanted: Body = {
            key: True
            for kind, key in _CHANGES.items()
            if isinstance(self._capabilities.get(kind), dict) and self._capabilities[kind].get("listChanged") is True
        }
        if not wanted or any(each.uri is None for each in self._listens.values()):
            return []
        return self._listen(Listen(uri=None, client_id=None), wanted)

    def _listen(self, listen: Listen, wanted: Body) -> list[BridgeEffect]:
        own = self._speaker.new_id()
        self._listens[own] = listen
        return [request(own, "subscriptions/listen", self._enveloped({"notifications": wanted}))]

    def _subscribe(self, message_id: Id, uri: str) -> list[BridgeEffect]:
        if any(each.uri == uri and each.client_id is None for each in self._listens.values()):
            return [self._speaker.result(message_id, {})]
        return self._listen(Listen(uri=uri, client_id=message_id), {"resourceSubscriptions": [uri]})

    def _unsubscribe(self, uri: str) -> list[BridgeEffect]:
        ended = [own for own, each in self._listens.items() if each.uri == uri]
        for own in ended:
            del self._listens[own]
        return [notice("notifications/cancelled", {"requestId": own}) for own in ended]

    def _set_level(self, message_id: Id, level: Json) -> Show:
        if "logging" not in self._capabilities:
            return self._speaker.error(message_id, {"code": -32601, "message": "the server does not log"})
        if level not in LEVELS:
            return self._speaker.error(message_id, {"code": -32602, "message": "cannot accept this level"})
        self._level = level
        return self._speaker.result(message_id, {})

    def _cancelled(self, params: Body) -> list[BridgeEffect]:
        wanted = params.get("requestId")
        for own, call in self._calls.items():
            if call.client_id == wanted:
                call.cancelled = True
                return [notice("notifications/cancelled", {**params, "requestId": own})]
        for call in self._asking.values():
            if call.client_id == wanted:
                return self._withdraw(call, "the request was cancelled")
        return []

    def _withdraw(self, call: Call, reason: str) -> list[BridgeEffect]:
        """The client need not answer what is still open of this call."""
        still = [own for own in call.asked if self._asking.pop(own, None) is not None]
        return [self._speaker.told("notifications/cancelled", {"requestId": own, "reason": reason}) for own in still]

    def _told_us(self, message_id: Json, body: Body) -> list[BridgeEffect]:
        """An answer of the client to a question of the server."""
        call = self._asking.pop(message_id, None) if isinstance(message_id, str | int) else None
        if call is None:
            return []
        key = call.asked.pop(message_id)
        if "error" in body:
            # An answer inside a request cannot be an error: the call ends with it.
            return [
                *self._withdraw(call, "another question failed"),
                self._speaker.error(call.client_id, body["error"]),
            ]
        call.answers[key] = body.get("result")
        return [] if call.asked else self._again(call)

    def _again(self, call: Call) -> list[BridgeEffect]:
        call.params = {**call.params, **({"inputResponses": call.answers} if call.answers else {})}
        call.answers = {}
        return self._send(call)

    # -- the server's side ------------------------------------------------------------------------------------------

    def server(self, message: ServerMessage) -> list[BridgeEffect]:  # noqa: PLR0911 - a table of kinds
        """One message of the server."""
        if message.kind is Kind.REQUEST:
            return [reply_error(message.id, -32601, "a server of 2026-07-28 sends no requests")]
        if message.kind is Kind.NOTIFICATION:
            return self._told(message)
        if message.id in self._listens:
            return self._ended(message)
        call = self._calls.pop(message.id, None) if message.id is not None else None
        if call is None:
            return []
        if message.kind is Kind.ERROR or message.head is None or message.head.result_type in {None, "complete"}:
            return [Show(msgspec.structs.replace(message, id=call.client_id))]
        if message.head.result_type != "input_required":
            text = f"the server answered with a {message.head.result_type[:32]!a}, which the client's era has not"
            return [mismatch(call.client_id, text)]
        return self._asked(call, message)

    def malformed(self, request_id: Id, error: WireError) -> tuple[Id | None, list[BridgeEffect]]:
        """The id that the client knows of a request whose answer is not MCP; what else follows from that."""
        del error
        call = self._calls.pop(request_id, None)
        if call is not None:
            return call.client_id, []
        listen = self._listens.pop(request_id, None)
        return (None if listen is None else listen.client_id), []

    def _asked(self, call: Call, message: ServerMessage) -> list[BridgeEffect]:
        result = result_of(message, self._limits)
        questions, state = result.get("inputRequests") or {}, result.get("requestState")
        call.rounds += 1
        if call.cancelled:
            return []
        if call.method not in CHALLENGED or call.rounds > ROUNDS or not (questions or isinstance(state, str)):
            return [mismatch(call.client_id, f"the server asked {call.rounds} times, or asked nothing")]
        call.params = {key: value for key, value in call.params.items() if key not in _ROUND}
        if isinstance(state, str):
            call.params["requestState"] = state
        offered = self._initialize.get("capabilities") or {}
        missing = [each["method"] for each in questions.values() if _OFFERS.get(each["method"]) not in offered]
        if missing or not all(each["method"] in QUESTIONS for each in questions.values()):
            return [mismatch(call.client_id, f"the server asks for {missing}, which the client does not offer")]
        if not questions:
            return self._again(call)
        shown: list[BridgeEffect] = []
        for key, each in questions.items():
            own = f"{self._speaker.new_id()}-question"
            call.asked[own] = key
            self._asking[own] = call
            body = {"jsonrpc": "2.0", "id": own, "method": each["method"], "params": each.get("params") or {}}
            shown.append(Show(self._speaker.message(body)))
        return shown

    def _told(self, message: ServerMessage) -> list[BridgeEffect]:
        params: Body = message.params or {}
        if message.method in _ANSWERED_ONCE:
            return [Show(message)]
        own = meta_of(params).get(META_SUBSCRIPTION)
        if message.method == "notifications/cancelled":
            own = params.get("requestId")
        listen = self._listens.get(own) if isinstance(own, str | int) else None
        if listen is None or own is None:
            return []
        match message.method:
            case "notifications/cancelled":
                del self._listens[own]
                return []
            case "notifications/subscriptions/acknowledged":
                return self._acknowledged(own, listen, params)
            case method if method in _LISTENED:
                return [self._speaker.told(method, _untagged(params))]
            case _:
                return []

    def _acknowledged(self, own: Id, listen: Listen, params: Body) -> list[BridgeEffect]:
        if listen.uri is None or listen.client_id is None:
            return []
        message_id, listen.client_id = listen.client_id, None
        filters = params.get("notifications")
        honoured = filters.get("resourceSubscriptions") if isinstance(filters, dict) else None
        if isinstance(honoured, list) and listen.uri in honoured:
            return [self._speaker.result(message_id, {})]
        del self._listens[own]
        error = {"code": -32602, "message": "the server does not let this resource be subscribed to"}
        return [notice("notifications/cancelled", {"requestId": own}), self._speaker.error(message_id, error)]

    def _ended(self, message: ServerMessage) -> list[BridgeEffect]:
        """A stream ended, or could not begin."""
        listen = self._listens.pop(message.id) if message.id is not None else None
        if listen is None or listen.client_id is None:
            return []
        error = message.error if message.kind is Kind.ERROR else {"code": -32603, "message": "the stream ended at once"}
        return [self._speaker.error(listen.client_id, error)]


_ROUND: Final = frozenset({"inputResponses", "requestState"})


def _untagged(params: Body) -> Body:
    meta = {key: value for key, value in meta_of(params).items() if key != META_SUBSCRIPTION}
    rest = {key: value for key, value in params.items() if key != META}
    return {**rest, META: meta} if meta else rest
