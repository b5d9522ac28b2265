"""Looks into the log: the last records, or those that match. Streams; reads files only, so it works beside a daemon.

This is reading, not verifying: a damaged place is skipped and marked (``Row.gap``), and nothing is proven. ``caller``
records are joined to the records that name them; they are rows of their own only when their kind is asked for.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec

from attestd.audit import chain, files
from attestd.audit.chain import Frame, FrameError
from attestd.audit.model import Record
from attestd.audit.reader import Damage, walk


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """What a ``caller`` record's body says for people; empty where it does not."""

    title: str = ""
    display: str = ""
    program: str = ""
    level: int = 0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One record with its caller."""

    record: Record
    caller: Caller
    segment: int
    gap: bool = False
    """Bytes before this record could not be read."""


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What to look for; an empty field matches everything, and all fields must match."""

    kinds: tuple[str, ...] = ()
    server: str = ""
    verdict: str = ""
    cause: str = ""
    caller: str = ""
    """Beginning of the caller's or its program's digest, or a part of its title or display, in any case."""
    since_ns: int | None = None
    until_ns: int | None = None
    """Inclusive, as ``since_ns``."""
    id: str = ""
    """Beginning of a decision id, grant id or digest."""
    session: str = ""
    uid: int | None = None
    """The one that a record carries; None: whatever it carries, nobody's (-1) too."""


class _Body(msgspec.Struct):
    result: Caller = Caller()


_NOBODY = Caller()
_DECODE_RECORD = msgspec.msgpack.Decoder(Record).decode
_DECODE_BODY = msgspec.json.Decoder(_Body).decode


def tail(directory: Path, count: int, filters: Filters | None = None) -> list[Row]:
    """The last ``count`` records that match, oldest first. Raises ConfigurationError, OSError."""
    found: deque[Row] = deque()
    if count < 1:
        return []
    with _Log(directory) as log:
        for row in log.backwards(filters or Filters(), count):
            found.appendleft(row)
            if len(found) >= count:
                break
    return list(found)


def query(directory: Path, filters: Filters, *, newest_first: bool = False) -> Iterator[Row]:
    """The records that match, one by one. Raises ConfigurationError, OSError."""
    with _Log(directory) as log:
        yield from log.backwards(filters) if newest_first else log.forwards(filters)


class _Log:
    def __init__(self, directory: Path) -> None:
        self._directory = files.open_directory(directory, create=False)
        self._numbers = files.segment_numbers(self._directory)
        self._callers: dict[str, Caller] = {}
        self._indexed: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._directory)

    def forwards(self, filters: Filters) -> Iterator[Row]:
        for index, number in enumerate(self._numbers):
            if not self._ends_before(index, filters.since_ns):
                yield from self._rows(number, filters)

    def backwards(self, filters: Filters, at_most: int | None = None) -> Iterator[Row]:
        """Newest first; no more than ``at_most`` of each segment."""
        for index in range(len(self._numbers) - 1, -1, -1):
            if self._ends_before(index, filters.since_ns):
                return
            number = self._numbers[index]
            matches = self._matches(number, filters)
            places = deque(((frame.offset, len(frame.raw), row.gap) for frame, row in matches), at_most)
            fd = self._open(number)
            try:
                for offset, size, gap in reversed(places):
                    frame = chain.decode(os.pread(fd, size, offset), 0, offset)
                    yield self._row(_DECODE_RECORD(frame.payload), number, gap=gap)
            finally:
                os.close(fd)

    def _rows(self, number: int, filters: Filters) -> Iterator[Row]:
        for _, row in self._matches(number, filters):
            yield row

    def _matches(self, number: int, filters: Filters) -> Iterator[tuple[Frame, Row]]:
        gap = False
        for item in self._frames(number):
            if isinstance(item, Damage):
                gap = True
                continue
            try:
                record = _DECODE_RECORD(item.payload)
            except msgspec.DecodeError:
                gap = True
                continue
            if record.kind == "caller":
                self._learn(record)
            if filters.until_ns is not None and record.time_ns > filters.until_ns:
                return
            row = self._row(record, number, gap=gap) if _plain_match(record, filters) else None
            if row is not None and _caller_match(row, filters.caller):
                yield item, row
                gap = False
        self._indexed.add(number)

    def _frames(self, number: int) -> Iterator[Frame | Damage]:
        fd = self._open(number)
        try:
            for item in walk(fd):
                if isinstance(item, Damage) or item.kind == chain.RECORD:
                    yield item
        finally:
            os.close(fd)

    def _row(self, record: Record, number: int, *, gap: bool) -> Row:
        caller = self._caller(record.caller, number) if record.caller else _NOBODY
        return Row(record=record, caller=caller, segment=number, gap=gap)

    def _caller(self, digest: str, number: int) -> Caller:
        """The caller of this digest: from this segment, else from the segments before it, the nearest first."""
        earlier = (other for other in reversed(self._numbers) if other <= number)
        while digest not in self._callers:
            other = next((other for other in earlier if other not in self._indexed), None)
            if other is None:
                self._callers[digest] = _NOBODY
                break
            self._index(other)
        return self._callers[digest]

    def _index(self, number: int) -> None:
        self._indexed.add(number)
        for item in self._frames(number):
            if isinstance(item, Frame):
                try:
                    record = _DECODE_RECORD(item.payload)
                except msgspec.DecodeError:
                    continue
                if record.kind == "caller":
                    self._learn(record)

    def _learn(self, record: Record) -> None:
        try:
            self._callers[record.id] = _DECODE_BODY(record.body).result
        except msgspec.DecodeError:
            self._callers[record.id] = _NOBODY

    def _ends_before(self, index: int, since_ns: int | None) -> bool:
        """Whether every record of the segment is older: then the next segment begins before ``since_ns`` too."""
        if since_ns is None or index + 1 >= len(self._numbers):
            return False
        fd = self._open(self._numbers[index + 1])
        try:
            first = next(walk(fd), None)
        finally:
            os.close(fd)
        if not isinstance(first, Frame):
            return False
        try:
            return chain.decode_header(first).time_ns < since_ns
        except FrameError:
            return False

    def _open(self, number: int) -> int:
        return os.open(files.segment_name(number), os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._directory)


def _plain_match(record: Record, filters: Filters) -> bool:
    kinds = filters.kinds
    return (
        (record.kind in kinds if kinds else record.kind != "caller")
        and (not filters.server or record.server == filters.server)
        and (not filters.verdict or record.verdict == filters.verdict)
        and (not filters.cause or record.cause == filters.cause)
        and (not filters.session or record.session == filters.session)
        and filters.uid in {None, record.uid}
        and record.id.startswith(filters.id)
        and (filters.since_ns is None or record.time_ns >= filters.since_ns)
    )


def _caller_match(row: Row, wanted: str) -> bool:
    if not wanted:
        return True
    caller, low = row.caller, wanted.casefold()
    digests = (row.record.caller, caller.program)
    texts = (caller.title, caller.display)
    return any(digest.startswith(low) for digest in digests) or any(low in text.casefold() for text in texts)
