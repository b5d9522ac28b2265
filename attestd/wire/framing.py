"""Newline-delimited framing: chunks of a byte stream in, whole lines out. Sans-I/O.

1. A line ends at LF. One CR right before the LF belongs to the line end, because peers write CRLF; every other CR
   stays in the line and the parser refuses it. Lines that are then empty are skipped.
2. Memory is bounded by the limit: a longer line is dropped while it arrives, reported once at its end as TOO_LARGE,
   and the next line is read as if nothing had been.
3. The cost is linear in the bytes, whatever the chunks: an unfinished line is kept in one growing buffer that is
   scanned never twice.
4. A chunk that is exactly one line, as most are, takes a short way: nothing is unfinished, its only LF is its last
   byte, no CR precedes it, it is neither empty nor above the limit. Then rules 1 and 2 have nothing left to do.
5. Every line knows where in the stream it stood, so that the session can tell which bytes are older than the
   attestation.
"""

from __future__ import annotations

from typing import Final

import msgspec

from attestd.errors import Cause
from attestd.wire.hint import WINDOW, id_hint
from attestd.wire.model import Message, WireError

_NEWLINE: Final = b"\n"
_CR: Final = b"\r"
_CR_BYTE: Final = 13


class Line(msgspec.Struct, frozen=True):
    """One line."""

    data: bytes
    """Without its line end; never empty."""
    start: int
    """Offset in the stream of its first byte."""
    end: int
    """Offset after its LF."""
    message: Message | None = None
    """What it says, where somebody had to know that before the session: it is parsed once."""


class LineFramer:
    """Cuts one direction of one stream into lines."""

    def __init__(self, limit: int) -> None:
        """Args: limit: the longest line in bytes, its line end not counted."""
        self._limit = limit
        self._buffer = bytearray()
        self._start = 0
        self._received = 0
        self._dropped = 0
        self._head = b""
        self._tail = b""

    @property
    def pending(self) -> int:
        """Bytes of the unfinished line that are held in memory."""
        return len(self._buffer)

    @property
    def received(self) -> int:
        """Bytes fed so far: the stream offset of the next byte."""
        return self._received

    @property
    def overlong(self) -> bool:
        """Whether the unfinished line is above the limit already and is being dropped."""
        return self._dropped > 0

    def feed(self, chunk: bytes) -> list[Line | WireError]:
        """Take the next bytes of the stream; return what they complete, in order."""
        base = self._received
        self._received = base + len(chunk)
        newline = chunk.find(_NEWLINE)
        # One line as it stands, which is the rule with calls and answers: no need to look further.
        whole = newline + 1 == len(chunk) and 0 < newline <= self._limit and chunk[newline - 1] != _CR_BYTE
        if whole and not self._buffer and not self._dropped:
            line = Line(chunk[:newline], self._start, self._received)
            self._start = self._received
            return [line]
        return self._cut(chunk, base, newline)

    def _cut(self, chunk: bytes, base: int, newline: int) -> list[Line | WireError]:
        items: list[Line | WireError] = []
        position = 0
        while newline >= 0:
            if self._buffer or self._dropped or newline - position > self._limit:
                self._append(chunk[position:newline])
                item = self._complete(base + newline + 1)
            else:
                item = self._line(chunk[position:newline], base + newline + 1)
            if item is not None:
                items.append(item)
            position = newline + 1
            self._start = base + position
            newline = chunk.find(_NEWLINE, position)
        if position < len(chunk):
            self._append(chunk[position:])
        return items

    def finish(self) -> WireError | None:
        """The stream has ended. Returns the error if it ended inside a line."""
        if not self._buffer and not self._dropped:
            return None
        if self._dropped:
            return self._too_large()
        head, tail = bytes(self._buffer[:WINDOW]), bytes(self._buffer[-WINDOW:])
        message = f"cannot read the message: the stream ended inside a line, after {len(self._buffer)} bytes"
        self._buffer = bytearray()
        return WireError(Cause.MALFORMED, message, request_id=id_hint(head, tail), rpc_code=-32700)

    def _append(self, piece: bytes) -> None:
        if self._dropped:
            self._dropped += len(piece)
            self._tail = (self._tail + piece[-WINDOW:])[-WINDOW:]
            return
        self._buffer += piece
        # One byte more may still be the CR of a CRLF.
        if len(self._buffer) > self._limit + 1:
            self._dropped = len(self._buffer)
            self._head = bytes(self._buffer[:WINDOW])
            self._tail = bytes(self._buffer[-WINDOW:])
            self._buffer = bytearray()

    def _complete(self, end: int) -> Line | WireError | None:
        if self._dropped:
            return self._too_large()
        data = bytes(self._buffer)
        self._buffer = bytearray()
        return self._line(data, end)

    def _line(self, data: bytes, end: int) -> Line | WireError | None:
        data = data.removesuffix(_CR)
        if not data:
            return None
        if len(data) > self._limit:
            return self._refused(len(data), data[:WINDOW], data[-WINDOW:])
        return Line(data, self._start, end)

    def _too_large(self) -> WireError:
        error = self._refused(self._dropped, self._head, self._tail.removesuffix(_CR))
        self._dropped = 0
        self._head = self._tail = b""
        return error

    def _refused(self, size: int, head: bytes, tail: bytes) -> WireError:
        message = f"cannot accept the message: got {size} bytes, expected at most {self._limit}"
        return WireError(Cause.TOO_LARGE, message, request_id=id_hint(head, tail))
