"""What an HTTP client can be told again: the events of one session's streams, numbered and kept for a while. Pure.

Every event has an id of ours: a word that only this session has, the stream, and a number that grows by one. After a
broken connection the client names the last one that it has, and gets what followed on that stream and on no other.
Memory is bounded; what was dropped is missed when it is asked for, never skipped in silence.
"""

from __future__ import annotations

import re
from collections import deque

import msgspec

from attestd.wire.http_response import Chunks

EVENTS = 1024
BYTES = 4 * 1024 * 1024
_ID = re.compile(r"([0-9a-f]{1,64})\.([0-9]{1,9})\.([0-9]{1,12})\Z")


class Kept(msgspec.Struct, frozen=True):
    """One event that may be asked for again."""

    stream: int
    number: int
    chunks: Chunks
    size: int


class LostError(Exception):
    """Events after this one are no longer kept."""


class EventLog:
    """The events of one session."""

    def __init__(self, word: str, *, events: int = EVENTS, size: int = BYTES) -> None:
        """``word``: hexadecimal, of this session only. ``events`` and ``size`` (bytes) bound what is kept."""
        self._word = word
        self._events = events
        self._size = size
        self._kept: deque[Kept] = deque()
        self._held = 0
        self._numbers: list[int] = []
        self._dropped: dict[int, int] = {}

    @property
    def held(self) -> int:
        """Bytes that are kept."""
        return self._held

    def open(self) -> int:
        """A new stream."""
        self._numbers.append(0)
        return len(self._numbers) - 1

    def last(self, stream: int) -> str:
        """The id of the stream's last event, or of its beginning."""
        return self._id(stream, self._numbers[stream])

    def append(self, stream: int, chunks: Chunks) -> str:
        """Keep one more event; its id."""
        self._numbers[stream] += 1
        number, size = self._numbers[stream], sum(map(len, chunks))
        if size > self._size:
            self._dropped[stream] = number
        else:
            self._kept.append(Kept(stream, number, chunks, size))
            self._held += size
        while self._held > self._size or len(self._kept) > self._events:
            oldest = self._kept.popleft()
            self._held -= oldest.size
            self._dropped[oldest.stream] = max(oldest.number, self._dropped.get(oldest.stream, 0))
        return self._id(stream, number)

    def after(self, event_id: str) -> tuple[int, list[tuple[str, Chunks]]] | None:
        """The stream of an event and what followed it there; None: no such event in this session.

        Raises:
            LostError: Something that followed is no longer kept.
        """
        found = _ID.match(event_id)
        if found is None or found[1] != self._word:
            return None
        stream, number = int(found[2]), int(found[3])
        if stream >= len(self._numbers) or number > self._numbers[stream]:
            return None
        if self._dropped.get(stream, 0) > number:
            raise LostError
        later = [kept for kept in self._kept if kept.stream == stream and kept.number > number]
        return stream, [(self._id(stream, kept.number), kept.chunks) for kept in later]

    def _id(self, stream: int, number: int) -> str:
        return f"{self._word}.{stream}.{number}"
