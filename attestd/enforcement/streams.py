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


class Stream(msgspec.Struct):
    """What is known of one stream, as long as an event of it is kept or one may follow."""

    last: int = 0
    """Number of its last event; 0 is its beginning."""
    dropped: int = 0
    """Number of the last event that is kept no longer."""
    kept: int = 0
    """How many events are."""
    ended: bool = False


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
        self._opened = 0
        self._streams: dict[int, Stream] = {}

    @property
    def held(self) -> int:
        """Bytes that are kept."""
        return self._held

    def open(self) -> int:
        """A new stream."""
        self._streams[self._opened] = Stream()
        self._opened += 1
        return self._opened - 1

    def end(self, stream: int) -> None:
        """Nothing more follows on it: it is forgotten with its last event."""
        self._streams[stream].ended = True
        self._forget(stream)

    def last(self, stream: int) -> str:
        """The id of the stream's last event, or of its beginning."""
        return self._id(stream, self._streams[stream].last)

    def append(self, stream: int, chunks: Chunks) -> str:
        """Keep one more event; its id."""
        state, size = self._streams[stream], sum(map(len, chunks))
        state.last = number = state.last + 1
        if size > self._size:
            state.dropped = number
        else:
            self._kept.append(Kept(stream, number, chunks, size))
            self._held += size
            state.kept += 1
        while self._held > self._size or len(self._kept) > self._events:
            self._drop(self._kept.popleft())
        return self._id(stream, number)

    def _drop(self, oldest: Kept) -> None:
        state = self._streams[oldest.stream]
        self._held -= oldest.size
        state.dropped = max(oldest.number, state.dropped)
        state.kept -= 1
        self._forget(oldest.stream)

    def _forget(self, stream: int) -> None:
        state = self._streams[stream]
        if state.ended and not state.kept:
            del self._streams[stream]

    def after(self, event_id: str) -> tuple[int, list[tuple[str, Chunks]]] | None:
        """The stream of an event and what followed it there; None: no such event in this session.

        Raises:
            LostError: Something that followed is no longer kept.
        """
        found = _ID.match(event_id)
        if found is None or found[1] != self._word:
            return None
        stream, number = int(found[2]), int(found[3])
        state = self._streams.get(stream)
        if stream >= self._opened or (state is not None and number > state.last):
            return None
        if state is None or state.dropped > number:
            raise LostError
        later = [kept for kept in self._kept if kept.stream == stream and kept.number > number]
        return stream, [(self._id(stream, kept.number), kept.chunks) for kept in later]

    def _id(self, stream: int, number: int) -> str:
        return f"{self._word}.{stream}.{number}"
