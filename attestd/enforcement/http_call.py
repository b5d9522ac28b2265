"""What one POST of a session brought, and where messages go that belong to none."""

from __future__ import annotations

from attestd.enforcement.http_connection import HttpExchange
from attestd.enforcement.proof import Marks
from attestd.wire.framing import Line
from attestd.wire.model import CallRequest, WireError
from attestd.wire.server import ServerMessage
from attestd.wire.translate import META_LEVEL

_OWN_STREAM = frozenset(
    {
        "notifications/tools/list_changed",
        "notifications/resources/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/updated",
        "notifications/tasks/status",
    }
)
"""Told about the session, not about a request."""


class Call:
    """One exchange that brought messages, and the answers that it waits for."""

    __slots__ = ("asked", "awaits", "batch", "exchange", "line", "marks", "since", "stream")

    def __init__(self, exchange: HttpExchange | None, line: Line | WireError, marks: Marks, now: float) -> None:
        self.exchange = exchange
        """None: the client has gone, and may come back for the rest."""
        self.line = line
        self.marks = marks
        self.awaits: set[str | int] = set()
        self.batch = isinstance(line, Line) and line.data[:1] == b"["
        self.stream: int | None = None
        """In the log, once it is a stream."""
        self.since = now
        self.asked: str | int | None = None
        """The id of its request, for as long as it waits to be mediated."""


def wants_events(request: CallRequest) -> bool:
    """Whether the client asked to be told of something before the answer."""
    meta = request.message.params.get("_meta")
    levelled = isinstance(meta, dict) and META_LEVEL in meta
    return request.progress_token is not None or request.method == "subscriptions/listen" or levelled


def is_own(message: ServerMessage) -> bool:
    """Whether it is for the client's own stream."""
    return message.method in _OWN_STREAM
