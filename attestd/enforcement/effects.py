"""The words of a session: its states, what it asks the connection to do, and what it remembers of a request. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from attestd.errors import AuditUnavailableError, Cause
from attestd.mediation import Clock, Malformed, Mediator, Outcome, Refuse
from attestd.wire.lookalike import META_SUBSCRIPTION
from attestd.wire.model import REFUSED, CallRequest, ListKind, Message, Target, WireError
from attestd.wire.parse import INVALID_REQUEST, PARSE_ERROR
from attestd.wire.refusal import error_line, refuse


class State(StrEnum):
    """Where a session stands."""

    OPEN = "open"
    DRAINING = "draining"
    """The client sends no more; what is outstanding is still answered."""
    ENDED = "ended"


TRANSITIONS: dict[tuple[State, str], State] = {
    (State.OPEN, "client_closed"): State.DRAINING,
    (State.OPEN, "end"): State.ENDED,
    (State.DRAINING, "client_closed"): State.DRAINING,
    (State.DRAINING, "end"): State.ENDED,
    (State.ENDED, "client_closed"): State.ENDED,
    (State.ENDED, "end"): State.ENDED,
}


class ToClient(msgspec.Struct, frozen=True):
    """Write these bytes to the client, in this order. Together they are one message, as a line."""

    chunks: tuple[bytes | memoryview, ...]
    reply: bool = False
    """It answers a message of the client: ``answers``, or one that told no id."""
    answers: str | int | None = None
    code: int = 0
    """Of the JSON-RPC error that it is; 0 for anything else."""


def reply(chunks: tuple[bytes | memoryview, ...], answers: str | int | None, code: int = 0) -> ToClient:
    """The answer to a message of the client."""
    return ToClient(chunks, reply=True, answers=answers, code=code)


class ToServer(msgspec.Struct, frozen=True):
    """Send this message to the back end (starting it if it does not run)."""

    body: dict[str, Any]
    line: bytes | None = None
    """The serialised body, where it is at hand."""


class Withdraw(msgspec.Struct, frozen=True):
    """The back end shall not go on with this request: it is taken back if it was not sent, and else cancelled."""

    request_id: str | int


class End(msgspec.Struct, frozen=True):
    """Close both sides after what was queued; ``cause`` is empty for an orderly end."""

    cause: str
    text: str


Effect = ToClient | ToServer | Withdraw | End

ANSWERED_WITH_NULL = frozenset({PARSE_ERROR, INVALID_REQUEST})
"""Errors of JSON-RPC that are answered although the message told no id: it may have been a request."""
HELD_NS = 5_000_000_000
"""How long an unproven request waits for the answer to the challenge."""
DRAIN_NS = 60_000_000_000
"""How long a client that sends no more is still given answers."""


class Outstanding(msgspec.Struct, frozen=True):
    """A forwarded request that has no answer yet."""

    request: CallRequest
    decision: str
    started_ns: int
    calls: int = 0
    """Calls in the session before this one: what it was decided on."""
    spent: bool = False
    """It used its grant up."""
    cancelled: bool = False
    """The client wants no answer any more. Its id stays taken: a late answer must not pass for another request's."""
    withdrawn: Cause | None = None
    """Why it is refused although it was permitted: the client has that answer, and a late one of the server is not
    shown."""


CANCELLED_ALLOWANCE = 16
"""How many times the limit of open requests may wait cancelled: many servers never answer those."""


def cancel(outstanding: dict[str | int, Outstanding], request_id: str | int) -> None:
    """The client has cancelled this open request."""
    outstanding[request_id] = msgspec.structs.replace(outstanding[request_id], cancelled=True)


def withdraw(entry: Outstanding, cause: Cause) -> Outstanding:
    """The same, refused in flight."""
    return msgspec.structs.replace(entry, cancelled=True, withdrawn=cause)


def abandon(outstanding: dict[str | int, Outstanding], request_id: str | int) -> list[Effect]:
    """The client has closed the stream on which it awaited the answer: in 2026-07-28 that is a cancellation."""
    entry = outstanding.get(request_id)
    if entry is None or entry.cancelled:
        return []
    cancel(outstanding, request_id)
    params = {"requestId": request_id, "reason": "the client closed the stream"}
    return [ToServer({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})]


def awaited(outstanding: Mapping[str | int, Outstanding]) -> int:
    """How many requests the client still waits for."""
    return sum(not entry.cancelled for entry in outstanding.values())


def crowded(outstanding: Mapping[str | int, Outstanding], limit: int) -> bool:
    """Whether one more request would be above the limit."""
    if len(outstanding) < limit:
        return False
    return awaited(outstanding) >= limit or len(outstanding) >= limit * CANCELLED_ALLOWANCE


def listens(outstanding: Mapping[str | int, Outstanding], meta: Mapping[str, Any]) -> bool:
    """Whether the subscription that a notification's ``_meta`` names is open and wanted."""
    wanted = meta.get(META_SUBSCRIPTION)
    entry = outstanding.get(wanted) if isinstance(wanted, str | int) else None
    return entry is not None and not entry.cancelled


class Held(msgspec.Struct, frozen=True):
    """A permitted request without proof."""

    request: CallRequest
    size: int
    deadline_ns: int


class UnansweredError(WireError):
    """A request to which no answer of the server will come; ``cause`` says why."""

    def __init__(self, cause: Cause, message: str, *, request_id: str | int, sent: bool) -> None:
        super().__init__(cause, message, request_id=request_id)
        self.sent = sent
        """Whether the server may have done it."""


def unanswered(mediator: Mediator, request: CallRequest, error: WireError, clock: Clock) -> Outcome:
    """The refusal of a forwarded request whose answer does not come, or is not MCP."""
    if isinstance(error, UnansweredError):
        return mediator.refuse(request, error.cause, error.message, clock, reached=error.sent)
    return mediator.refuse(request, Cause.SERVER_MALFORMED, error.message, clock, reached=True)


def unshown(error: WireError | AuditUnavailableError) -> tuple[Cause, str]:
    """Why an answer of the server is not shown."""
    if isinstance(error, WireError):
        return Cause.SERVER_MALFORMED, error.message
    return Cause.AUDIT_UNAVAILABLE, "the server has done it, and its answer cannot be recorded; do not send it again"


def without_echo(message: Message) -> dict[str, Any]:
    """The body without our own challenge, which the server never issued."""
    params = {k: v for k, v in message.params.items() if k not in ("requestState", "inputResponses")}
    return {**message.body, "params": params}


def at_cursor(message: Message, cursor: str) -> dict[str, Any]:
    """The body with the server's own cursor, without our challenge."""
    return {**message.body, "params": {**message.params, "cursor": cursor}}


def last_page(kind: ListKind) -> dict[str, Any]:
    """A page after the last one."""
    return {"resultType": "complete", kind.value: []}


def whole(action: str) -> Target:
    """The server as a whole."""
    return Target(action=action, kind="server", name="")


def cancelled(request_id: str | int, reason: str) -> dict[str, Any]:
    """The notification that nobody waits for this request any more; the same in either direction and era."""
    params = {"requestId": request_id, "reason": reason}
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}


def no(message_id: str | int, code: int, text: str) -> ToServer:
    """The answer to a request of the server that no client gets to see."""
    return ToServer({"jsonrpc": "2.0", "id": message_id, "error": {"code": code, "message": text}})


def told(outcome: Outcome) -> ToClient | None:
    """What a refusal is for the client; None for what nobody waits for."""
    match outcome:
        case Refuse(refusal=refusal, request_id=request_id, answer=answer):
            if not answer or request_id is None:
                return None
            return reply((refuse(request_id, refusal),), request_id, REFUSED)
        case Malformed(error=error) if error.request_id is None and error.rpc_code not in ANSWERED_WITH_NULL:
            return None
        case Malformed(error=error, decision=decision):
            data = {"cause": error.cause.value, "decision": decision, **(error.data or {})}
            text = error_line(error.request_id, error.rpc_code, error.message, data)
            return reply((text,), error.request_id, error.rpc_code)
        case _:
            msg = f"not a refusal: {outcome!r}"
            raise TypeError(msg)


def raiser(error: WireError) -> Callable[[], CallRequest]:
    """A parse that fails."""

    def parse() -> CallRequest:
        raise error

    return parse
