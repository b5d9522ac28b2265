"""A modern client before a legacy server.

Requests lose the modern envelope and get ids of ours, because one call of the server may be answered in several
results: where the legacy server asks its client something, the call so far is answered ``input_required`` with the
question in it, and the retry brings the answer. What the server asks outside any call waits for the next call that can
carry a question (roots/list after the handshake, for example). A state of ours names the waiting call; it is good for
the very same request only, because the session decided about that one.

``subscriptions/listen`` becomes resources/subscribe for each URI, and a filter for what the server tells unasked.
A log level becomes logging/setLevel, and log messages are shown while a request is open that wants them. Not shown, as
the modern era has no place for them: list changes without a listener, log messages without such a request, completion
of an elicitation. Refused with a cause: tasks, which are another thing in each era.
"""

from __future__ import annotations

from collections import OrderedDict
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
    reply,
    reply_error,
    request,
)
from attestd.enforcement.bridge_listen import Listens
from attestd.wire.lookalike import META
from attestd.wire.methods import CHALLENGED, QUESTIONS
from attestd.wire.model import REFUSED, Json, Kind, WireError
from attestd.wire.server import ServerMessage
from attestd.wire.translate import (
    LEVELS,
    META_CAPABILITIES,
    META_LEVEL,
    complete,
    discovered,
    meta_of,
    modern_error,
    without_envelope,
)

PAUSED_MAX: Final = 32
"""Calls that wait for a retry; clients need not retry, so the oldest gives way."""
WAITING_MAX: Final = 32
"""Questions of the server that wait for a call."""
ANSWER_BYTES: Final = 1 << 20
"""A larger result is not kept for a call that waits for its retry."""
URL_REQUIRED: Final = -32042
_OFFERS: Final = {"roots/list": "roots", "sampling/createMessage": "sampling", "elicitation/create": "elicitation"}


class Question(msgspec.Struct, frozen=True):
    """What the server wants to know of the client."""

    server_id: Id | None
    """Of its request; None for a URL that must be visited before the call is made again."""
    method: str
    params: Body


class Call(msgspec.Struct, kw_only=True):
    """One request of the client, through all its rounds."""

    server_id: str
    client_id: Id | None
    """Of the round that waits for an answer; None while the client has the questions."""
    method: str
    params: Body
    """As the server gets them."""
    token: Json = None
    level: int | None = None
    sent: bool = True
    asked: dict[str, Question] = {}
    state: str = ""
    answer: ServerMessage | None = None
    """What the server said meanwhile."""


class ModernClient:
    """The translation for one connection."""

    def __init__(self, setting: Setting, initialized: Body) -> None:
        self._setting = setting
        self._initialized = initialized
        self._capabilities: Body = initialized.get("capabilities") or {}
        self._speaker = Speaker(setting, "attestd")
        self._calls: dict[Id, Call] = {}
        self._paused: OrderedDict[str, Call] = OrderedDict()
        self._waiting: list[Question] = []
        self._offered: Body = {}
        self._level: int | None = None
        self._listens = Listens(self._speaker, self._capabilities)

    # -- the client's side ------------------------------------------------------------------------------------------

    def client(self, body: Body) -> list[BridgeEffect]:  # noqa: PLR0911 - a table of methods
        """One permitted message of the client."""
        method, message_id = body.get("method"), body.get("id")
        params: Body = body.get("params") or {}
        if method is None:
            return []  # a modern client answers no requests
        if message_id is None:
            return self._cancelled(params) if method == "notifications/cancelled" else []
        offered = meta_of(params).get(META_CAPABILITIES)
        self._offered = offered if isinstance(offered, dict) else {}
        if method == "server/discover":
            return [self._speaker.result(message_id, discovered(self._initialized))]
        if method == "subscriptions/listen":
            return self._listens.open(message_id, params.get("notifications") or {})
        if method.startswith("tasks/") or "task" in params:
            return [mismatch(message_id, "tasks of 2026-07-28 are an extension that the server, an older one, has not")]
        if "requestState" in params or "inputResponses" in params:
            return self._retry(message_id, method, params)
        return self._begin(message_id, method, params)

    def _begin(self, message_id: Id, method: str, params: Body) -> list[BridgeEffect]:
        meta = meta_of(params)
        level = meta.get(META_LEVEL)
        if level is not None and level not in LEVELS:
            return [self._speaker.error(message_id, {"code": -32602, "message": "cannot accept this logLevel"})]
        call = Call(
            server_id=self._speaker.new_id(),
            client_id=message_id,
            method=method,
            params=without_envelope(params),
            token=meta.get("progressToken"),
            level=None if level is None else LEVELS.index(level),
        )
        if call.token is not None:
            call.params[META]["progressToken"] = call.server_id
        effects: list[BridgeEffect] = self._set_level(call.level)
        if self._waiting and method in CHALLENGED:
            call.sent = False
            return effects + self._ask(call)
        return [*effects, *self._send(call)]

    def _send(self, call: Call) -> list[BridgeEffect]:
        call.sent = True
        self._calls[call.server_id] = call
        return [request(call.server_id, call.method, call.params)]

    def _retry(self, message_id: Id, method: str, params: Body) -> list[BridgeEffect]:
        state, answers = params.get("requestState"), params.get("inputResponses") or {}
        call = self._paused.get(state) if isinstance(state, str) else None
        if call is None or not isinstance(answers, dict):
            text = "cannot accept the retry: nothing was asked, or it waited too long; call again without requestState"
            return [self._speaker.error(message_id, {"code": -32602, "message": text})]
        if method != call.method or _same(without_envelope(params)) != _same(call.params):
            text = "cannot accept the retry: it is not the request that the state was given for"
            return [self._speaker.error(message_id, {"code": -32602, "message": text})]
        del self._paused[call.state]
        call.client_id = message_id
        call.token = meta_of(params).get("progressToken", call.token)
        effects, refused, again = self._take_answers(call, answers)
        if refused is not None:
            return [*effects, refused]
        if call.answer is not None:
            return [*effects, *self._answered(call, call.answer)]
        if call.asked or self._waiting:
            return effects + self._ask(call)
        if again or not call.sent:
            call.server_id = self._speaker.new_id()
            if "progressToken" in meta_of(call.params):
                call.params[META]["progressToken"] = call.server_id
            effects += self._send(call)
        return effects

    def _take_answers(self, call: Call, answers: Body) -> tuple[list[BridgeEffect], Show | None, bool]:
        """Pass the answers on: to the server, the error that ends the call, whether it must be sent again."""
        effects: list[BridgeEffect] = []
        again = False
        for key, question in list(call.asked.items()):
            given = answers.get(key)
            if not isinstance(given, dict):
                continue
            del call.asked[key]
            if question.server_id is not None:
                effects.append(reply(question.server_id, given))
            elif given.get("action") == "accept":
                again = True
            else:
                error = {"code": -32603, "message": "cannot go on: the user did not open the URL that the server needs"}
                return effects, self._speaker.error(call.client_id, error), False
        return effects, None, again

    def _ask(self, call: Call) -> list[BridgeEffect]:
        """Answer the call so far with what the server wants to know."""
        for question in self._waiting:
            call.asked[self._speaker.new_id()] = question
        self._waiting.clear()
        message_id, call.client_id = call.client_id, None
        questions = {key: {"method": each.method, "params": each.params} for key, each in call.asked.items()}
        call.state = self._setting.new_state()
        result = {"resultType": "input_required", "inputRequests": questions, "requestState": call.state}
        shown = self._speaker.result(message_id, result)
        if not all(self._setting.allows(each.method) for each in call.asked.values()):
            # The session refuses the call for this, and the server must not wait for an answer that cannot come.
            return [shown, *self._abandon(call, "attestd refused it: no grant of the caller accepts it")]
        self._paused[call.state] = call
        if len(self._paused) > PAUSED_MAX:
            _, oldest = self._paused.popitem(last=False)
            return [shown, *self._abandon(oldest, "the client did not answer")]
        return [shown]

    def _abandon(self, call: Call, reason: str) -> list[BridgeEffect]:
        effects: list[BridgeEffect] = [
            reply_error(each.server_id, REFUSED, reason) for each in call.asked.values() if each.server_id is not None
        ]
        if self._calls.pop(call.server_id, None) is not None:
            effects.append(notice("notifications/cancelled", {"requestId": call.server_id, "reason": reason}))
        return effects

    def _cancelled(self, params: Body) -> list[BridgeEffect]:
        wanted = params.get("requestId")
        for call in self._calls.values():
            if call.client_id == wanted and wanted is not None:
                return [notice("notifications/cancelled", {**params, "requestId": call.server_id})]
        return self._listens.close(wanted)

    def _set_level(self, level: int | None) -> list[BridgeEffect]:
        """The most talkative level that any request has asked for; each is shown only what it asked for."""
        if level is None or self._setting.shared or "logging" not in self._capabilities:
            return []
        if self._level is not None and self._level <= level:
            return []
        self._level = level
        return [request(self._speaker.new_id(), "logging/setLevel", {"level": LEVELS[level]})]

    # -- the server's side ------------------------------------------------------------------------------------------

    def server(self, message: ServerMessage) -> list[BridgeEffect]:
        """One message of the server."""
        match message.kind:
            case Kind.REQUEST:
                return self._question(message)
            case Kind.NOTIFICATION:
                return self._told(message.method or "", message.params or {})
            case _:
                call = self._calls.pop(message.id, None) if message.id is not None else None
                if call is None:
                    return self._listens.answered(message)
                return self._answered(call, message)

    def malformed(self, request_id: Id, error: WireError) -> tuple[Id | None, list[BridgeEffect]]:
        """The id that the client knows of a request whose answer is not MCP; what else follows from that."""
        call = self._calls.pop(request_id, None)
        if call is None:
            return None, self._listens.failed(request_id)
        if call.client_id is None:
            del self._paused[call.state]
            return None, self._abandon(call, error.message)
        return call.client_id, []

    def _answered(self, call: Call, message: ServerMessage) -> list[BridgeEffect]:
        if call.client_id is None:
            call.answer = message if len(message.result or b"") <= ANSWER_BYTES else self._too_late(message)
            return []
        if message.kind is Kind.RESULT:
            return [Show(msgspec.structs.replace(complete(message, call.method), id=call.client_id))]
        if message.error["code"] == URL_REQUIRED and self._must_visit(call, message.error.get("data")):
            return self._ask(call)
        return [Show(msgspec.structs.replace(message, id=call.client_id, error=modern_error(message.error)))]

    def _too_late(self, message: ServerMessage) -> ServerMessage:
        """Instead of a large result that came before its call was made again."""
        text = f"cannot keep a result of more than {ANSWER_BYTES} bytes until the call is made again"
        return self._speaker.error(message.id, {"code": -32603, "message": text}).message

    def _must_visit(self, call: Call, data: Json) -> bool:
        """Whether the URLs of an error of 2025-11-25 can be asked for in a result; then they are noted."""
        listed = data.get("elicitations") if isinstance(data, dict) else None
        modes = self._offered.get("elicitation")
        if not isinstance(listed, list) or not isinstance(modes, dict) or "url" not in modes:
            return False
        if call.method not in CHALLENGED or not all(isinstance(each, dict) for each in listed):
            return False
        for each in listed:
            call.asked[self._speaker.new_id()] = Question(None, "elicitation/create", {**each, "mode": "url"})
        return bool(listed)

    def _question(self, message: ServerMessage) -> list[BridgeEffect]:
        if message.id is None or message.method is None:
            return []
        if message.method == "ping":
            return [reply(message.id, {})]
        offer = _OFFERS.get(message.method) if message.method in QUESTIONS else None
        if offer is None or offer not in self._offered or len(self._waiting) >= WAITING_MAX:
            return [reply_error(message.id, -32601, f"the client does not offer {message.method[:64]}")]
        self._waiting.append(Question(message.id, message.method, message.params or {}))
        for call in reversed(list(self._calls.values())):
            if call.client_id is not None and call.method in CHALLENGED:
                return self._ask(call)
        return []

    def _told(self, method: str, params: Body) -> list[BridgeEffect]:
        match method:
            case "notifications/progress":
                token = params.get("progressToken")
                call = self._calls.get(token) if isinstance(token, str) else None
                if call is None or call.client_id is None or call.token is None:
                    return []
                return [self._speaker.told(method, {**params, "progressToken": call.token})]
            case "notifications/message":
                level = params.get("level")
                found = LEVELS.index(level) if level in LEVELS else -1
                wanted = any(
                    call.level is not None and call.level <= found and call.client_id is not None
                    for call in self._calls.values()
                )
                return [self._speaker.told(method, params)] if wanted else []
            case "notifications/cancelled":
                self._withdrawn(params.get("requestId"))
                return []
            case _:
                return self._listens.told(method, params)

    def _withdrawn(self, server_id: Json) -> None:
        """The server does not want to know any more."""
        self._waiting = [each for each in self._waiting if each.server_id != server_id]
        for call in self._paused.values():
            call.asked = {k: q for k, q in call.asked.items() if q.server_id != server_id or q.server_id is None}


def _same(params: Body) -> Body:
    """What of params makes a request the same as in the round before."""
    return {key: value for key, value in params.items() if key not in {META, "inputResponses", "requestState"}}
