"""HTTP/1.1 responses and server-sent events as bytes. Sans-I/O.

Every header is written here, from values that are ours; nothing of a server's or client's header is copied. A message
never contains a raw line end (``wire.serialise``, ``wire.server``), so one event is one ``data`` line, and it is
framed around the chunks of the message without copying them.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

RETRY_MS: Final = 1000
"""How long a client whose stream was cut should wait before it resumes, milliseconds."""
JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"
INTERIM: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
PING: Final = b": ping\n\n"

_OF_JSON: Final = {"Content-Type": JSON, "Cache-Control": "no-store"}
_FIRST: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}

Chunks = Sequence[bytes | memoryview]


def head(status: int, headers: dict[str, str], *, length: int | None, close: bool = False) -> bytes:
    """Status line and headers. ``length`` None: the body comes in chunks."""
    lines = [_FIRST[status]]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if length is None:
        lines.append("Transfer-Encoding: chunked")
    elif status != HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Length: {length}")
    if close:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def json_head(status: int, chunks: Chunks, headers: dict[str, str], *, close: bool = False) -> bytes:
    """The head of an answer that is one JSON text."""
    length = sum(map(len, chunks))
    if headers or close:
        return head(status, {**_OF_JSON, **headers}, length=length, close=close)
    return _PLAIN[status] % length  # as for most answers


def events_head(headers: dict[str, str]) -> bytes:
    """The head of a stream of events."""
    own = {"Content-Type": EVENTS, "Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
    return head(200, {**own, **headers}, length=None)


def event(chunks: Chunks, *, event_id: str = "", name: str = "message") -> list[bytes | memoryview]:
    """One event that holds one message (a line with or without its LF)."""
    start = f"event: {name}\n".encode("ascii")
    if event_id:
        start += f"id: {event_id}\n".encode("ascii")
    last = bytes(chunks[-1]).rstrip(b"\n") if chunks else b""
    return [start + b"data: ", *chunks[:-1], last + b"\n\n"]


def priming(event_id: str) -> bytes:
    """An event that says nothing but from where, and when, the stream can be resumed (2025-11-25)."""
    return f"id: {event_id}\nretry: {RETRY_MS}\ndata: \n\n".encode("ascii")


def chunked(parts: Chunks) -> list[bytes | memoryview]:
    """One chunk of the chunked coding around these parts."""
    size = sum(map(len, parts))
    if size < 4096:
        return [b"%x\r\n%b\r\n" % (size, b"".join(parts))]
    return [b"%x\r\n" % size, *parts, b"\r\n"]


_PLAIN: Final = {
    status: head(status, _OF_JSON, length=0).replace(b"Length: 0", b"Length: %d")
    for status in _FIRST
    if status != HTTPStatus.NO_CONTENT
}
"""Heads of JSON answers without a header of their own."""
