"""Server-sent events, parsed as they arrive: chunks of a body in, whole events out. Sans-I/O.

1. Lines end at LF, CR or CRLF, wherever the chunks are cut. A byte order mark at the very start is skipped, comments
   and unknown fields are ignored, as the HTML standard says.
2. ``data`` stays bytes: whoever reads the message decides on its encoding, once. Its lines are joined with LF.
3. Memory is bounded: one event, its unfinished line included, holds at most the limit, else TOO_LARGE is raised and the
   stream is of no use any more.
4. The id of an event holds for the events after it. One that cannot stand in a header is no id: nothing can be
   resumed from there.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from attestd.errors import Cause
from attestd.wire.model import WireError

_END: Final = re.compile(rb"[\r\n]")
_BOM: Final = b"\xef\xbb\xbf"
_ID_BYTES: Final = 1024
_PLAIN: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?\Z")
_FIELDS: Final = frozenset({b"data", b"event", b"id", b"retry"})
_SLACK: Final = 64
"""Bytes of one line besides its value."""
RETRY_LIMIT_MS: Final = 300_000


class SseEvent(msgspec.Struct, frozen=True):
    """One event."""

    event: str
    """``message`` unless the server named another."""
    data: bytes


class SseParser:
    """Cuts one stream into events."""

    def __init__(self, limit: int) -> None:
        """Args: limit: the largest event in bytes."""
        self._limit = limit
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._event = ""
        self._id: str | None = None
        self._skip_lf = False
        self._first = True
        self.last_id: str | None = None
        """Where the stream can be resumed."""
        self.retry_ms: int | None = None
        """How long the server wants to be left alone before that."""

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Take the next bytes; return the events that they complete.

        Raises:
            WireError: TOO_LARGE.
        """
        events: list[SseEvent] = []
        position = 0
        if self._skip_lf and chunk:
            position = chunk[:1] == b"\n"
            self._skip_lf = False
        while (end := _END.search(chunk, position)) is not None:
            stop = end.start()
            if self._line:
                self._keep(chunk[position:stop])
                line = bytes(self._line)
                self._line = bytearray()
            else:
                line = chunk[position:stop]
            position = stop + 1
            if chunk[stop] == 0x0D:
                if position == len(chunk):
                    self._skip_lf = True
                elif chunk[position] == 0x0A:
                    position += 1
            event = self._take(line)
            if event is not None:
                events.append(event)
        if position < len(chunk):
            self._keep(chunk[position:])
        return events

    def restart(self) -> None:
        """The stream was cut and begins anew after ``last_id``: what was half there comes again."""
        self._line = bytearray()
        self._data, self._size, self._event = [], 0, ""
        self._id = self.last_id
        self._skip_lf, self._first = False, True

    def _keep(self, piece: bytes) -> None:
        self._line += piece
        self._bound(len(self._line))

    def _bound(self, more: int) -> None:
        if self._size + more > self._limit + _SLACK:
            message = f"cannot accept the event: got more than {self._limit} bytes, expected at most {self._limit}"
            raise WireError(Cause.TOO_LARGE, message)

    def _take(self, line: bytes) -> SseEvent | None:
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        if name not in _FIELDS:
            return None
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self._bound(len(value) + 1)
                self._data.append(value)
                self._size += len(value) + 1
            case b"event":
                self._event = value[:_ID_BYTES].decode("utf-8", "replace")
            case b"id":
                text = value.decode("utf-8", "replace") if len(value) <= _ID_BYTES else ""
                self._id = text if _PLAIN.match(text) else None
            case _:
                if value.isdigit() and len(value) < 10:
                    self.retry_ms = min(int(value), RETRY_LIMIT_MS)
        return None

    def _dispatch(self) -> SseEvent | None:
        data, event = self._data, self._event
        self._data, self._size, self._event = [], 0, ""
        self.last_id = self._id  # of whole events only: the next stream begins after it
        return SseEvent(event or "message", b"\n".join(data)) if data else None
