"""The words of a session: its states, what it asks the connection to do, and what it remembers of a request. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import msgspec

from attestd.errors import AuditUnavailableError, Cause
from attestd.mediation import Clock, Mediator, Outcome
from attestd.wire.model import CallRequest, Message, Target, WireError


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


class End(msgspec.Struct, frozen=True):
    """Close both sides after what was queued; ``cause`` is empty for an orderly end."""

    cause: str
    text: str


Effect = ToClient | ToServer | End

ABSENT = object()
"""What is not in a dictionary whose values may be None."""
HELD_NS = 5_000_000_000
"""How long an unproven request waits for the answer to the challenge."""
DRAIN_NS = 60_000_000_000
"""How long a client that sends no more is still given answers."""


class Outstanding(msgspec.Struct, frozen=True):
    """A forwarded request that has no answer yet."""

    request: CallRequest
    decision: str
    started_ns: int
    cancelled: bool = False
    """The client wants no answer any more. Its id stays taken: a late answer must not pass for another request's."""


CANCELLED_ALLOWANCE = 16
"""How many times the limit of open requests may wait cancelled: many servers never answer those."""


def cancel(outstanding: dict[str | int, Outstanding], request_id: str | int) -> None:
    """The client has cancelled this open request."""
    outstanding[request_id] = msgspec.structs.replace(outstanding[request_id], cancelled=True)


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
        return mediator.refuse(request, error.cause, error.message, clock, may_have_run=error.sent)
    return mediator.refuse(request, Cause.SERVER_MALFORMED, error.message, clock)


def unshown(error: WireError | AuditUnavailableError) -> tuple[Cause, str]:
    """Why an answer of the server is not shown."""
    if isinstance(error, WireError):
        return Cause.SERVER_MALFORMED, error.message
    return Cause.AUDIT_UNAVAILABLE, "the server has done it, but its answer cannot be recorded"


def without_echo(message: Message) -> dict[str, Any]:
    """The body without our own challenge, which the server never issued."""
    params = {k: v for k, v in message.params.items() if k not in ("requestState", "inputResponses")}
    return {**message.body, "params": params}


def whole(action: str) -> Target:
    """The server as a whole."""
    return Target(action=action, kind="server", name="")


def no(message_id: str | int, code: int, text: str) -> ToServer:
    """The answer to a request of the server that no client gets to see."""
    return ToServer({"jsonrpc": "2.0", "id": message_id, "error": {"code": code, "message": text}})


def raiser(error: WireError) -> Callable[[], CallRequest]:
    """A parse that fails."""

    def parse() -> CallRequest:
        raise error

    return parse
