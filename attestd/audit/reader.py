"""Reads a segment from its file: frames, and the places that are not frames. Streams, and never maps the file.

A mapped file that someone truncates kills the reader with a signal; reads do not. Behind a damaged place the reader
goes on at the next whole frame, so one flipped bit does not hide the rest; what that means is for the caller to judge.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import msgspec

from attestd.audit.chain import Frame, FrameError, IncompleteFrameError, decode, find_frame

_CHUNK_BYTES = 1024 * 1024


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that are not a frame."""

    offset: int
    size: int
    """Bytes up to the next whole frame, or to the end of the file."""
    what: str
    incomplete: bool
    """The file ends here, within a frame whose beginning is well formed."""


def walk(fd: int, start: int = 0) -> Iterator[Frame | Damage]:
    """Everything in the file from offset ``start``, in order. Raises OSError."""
    buffer, base, position = b"", start, 0
    while True:
        try:
            frame = decode(buffer, position, base)
        except FrameError as error:
            more = os.pread(fd, _CHUNK_BYTES, base + len(buffer)) if isinstance(error, IncompleteFrameError) else b""
            if more:
                buffer, base, position = buffer[position:] + more, base + position, 0
                continue
            if position == len(buffer):
                return
            reason = error
        else:
            yield frame
            position += len(frame.raw)
            continue
        rest = _rest(fd, base + len(buffer))
        if rest:
            buffer, base, position = buffer[position:] + rest, base + position, 0
        found = find_frame(buffer, position + 1)
        end = len(buffer) if found is None else found
        incomplete = found is None and isinstance(reason, IncompleteFrameError)
        yield Damage(offset=base + position, size=end - position, what=reason.what, incomplete=incomplete)
        position = end


def _rest(fd: int, offset: int) -> bytes:
    parts = []
    while part := os.pread(fd, _CHUNK_BYTES, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
