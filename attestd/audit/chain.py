"""The frames of the audit log and the hash chain over them. Pure.

A frame is ``magic (1) | type (1) | length of the body (4, big-endian) | body | crc32 (4, little-endian)``. The body
is ``prev (32) | payload``, where ``prev`` is the SHA-256 of the whole frame before this one, as written; the first
frame of a log carries 32 zero bytes. The payload of a header or record is msgpack, of a checkpoint a C2SP signed note
in UTF-8.

1. The hash is taken over the bytes as written, so no canonical form is needed and every reader agrees.
2. The magic byte 0xC1 occurs neither in valid UTF-8 nor as a msgpack type, so no text in a record looks like a frame.
3. The CRC finds accidents (a torn write, a flipped bit) and says which frame; it is not a defence. The chain, the tree
   and the signatures are.
4. Payloads are append-only: a reader ignores fields that it does not know, a missing new field has its default.
5. Types are never reused. An unknown type is a damaged frame: nothing is skipped silently.
"""

from __future__ import annotations

import re
import struct
from hashlib import sha256
from zlib import crc32

import msgspec

from attestd.audit.model import Record, SegmentHeader
from attestd.audit.protocol import Entry

MAGIC = 0xC1
HEADER, RECORD, CHECKPOINT = 1, 2, 3
HASH_BYTES = 32
GENESIS = bytes(HASH_BYTES)
"""``prev`` of the first frame of a log."""
HEAD_BYTES = 6
OVERHEAD_BYTES = HEAD_BYTES + 4
MAX_BODY_BYTES = 16 * 1024 * 1024

_HEAD = struct.Struct(">BBI")
_CRC = struct.Struct("<I")
_RESIDUE = 0x2144DF1C  # crc32 over any data followed by its own little-endian crc32
_ENCODE = msgspec.msgpack.Encoder().encode
_ARRAY_HEAD = 0xDC  # msgpack: an array of 16 to 65535 items, whose number follows in two bytes
_ENTRY_HEAD_BYTES = 3
_RECORD_ITEMS = len(Entry.__struct_fields__) + 2
_RECORD_HEAD = struct.Struct(">BBI32sBH")  # the head of the frame, ``prev``, the head of the record's array
_RECORD_HEAD_BYTES = _RECORD_HEAD.size - HEAD_BYTES
_DECODE_RECORD = msgspec.msgpack.Decoder(Record).decode
_DECODE_HEADER = msgspec.msgpack.Decoder(SegmentHeader).decode
_CANDIDATE = re.compile(b"\xc1[\x01\x02\x03]", re.DOTALL)


class FrameError(Exception):
    """The bytes at ``offset`` are not a frame; ``what`` says why."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(f"cannot read the frame at offset {offset}: {what}")
        self.offset = offset
        self.what = what


class IncompleteFrameError(FrameError):
    """The bytes end before the frame does."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame with a valid CRC. ``offset`` is where it begins in its file, in bytes."""

    kind: int
    offset: int
    raw: bytes

    @property
    def prev(self) -> bytes:
        """Hash of the frame before, as this frame states it; 32 bytes."""
        return self.raw[HEAD_BYTES : HEAD_BYTES + HASH_BYTES]

    @property
    def payload(self) -> bytes:
        """What follows ``prev`` in the body."""
        return self.raw[HEAD_BYTES + HASH_BYTES : -4]

    @property
    def end(self) -> int:
        """Offset of the first byte after the frame."""
        return self.offset + len(self.raw)


def encode(kind: int, prev: bytes, payload: bytes) -> bytes:
    """One frame as written. Raises ValueError when ``prev`` is not 32 bytes or the body is over MAX_BODY_BYTES."""
    size = len(prev) + len(payload)
    if len(prev) != HASH_BYTES or size > MAX_BODY_BYTES:
        raise _too_large(len(prev), size)
    frame = _HEAD.pack(MAGIC, kind, size) + prev + payload
    return frame + _CRC.pack(crc32(frame))


def _too_large(prev: int, size: int) -> ValueError:
    return ValueError(f"cannot encode a frame: prev of {prev} bytes, body of {size} (at most {MAX_BODY_BYTES})")


def link(frame: bytes) -> bytes:
    """The hash that the next frame carries as ``prev``; 32 bytes."""
    return sha256(frame).digest()


def decode(data: bytes, position: int = 0, base: int = 0) -> Frame:
    """The frame at ``data[position:]``; ``base`` is the file offset of ``data[0]``.

    Raises IncompleteFrameError when the data ends too early, FrameError when these bytes are not a frame.
    """
    head = data[position : position + HEAD_BYTES]
    if len(head) < HEAD_BYTES:
        if head and head[0] != MAGIC:
            raise FrameError(base + position, f"magic is 0x{head[0]:02x}, expected 0x{MAGIC:02x}")
        raise IncompleteFrameError(base + position, f"{len(head)} bytes, expected at least {HEAD_BYTES}")
    magic, kind, size = _HEAD.unpack(head)
    if magic != MAGIC:
        raise FrameError(base + position, f"magic is 0x{magic:02x}, expected 0x{MAGIC:02x}")
    if not HEADER <= kind <= CHECKPOINT:
        raise FrameError(base + position, f"unknown frame type {kind}")
    if not HASH_BYTES <= size <= MAX_BODY_BYTES:
        raise FrameError(base + position, f"body of {size} bytes, expected {HASH_BYTES} to {MAX_BODY_BYTES}")
    raw = data[position : position + OVERHEAD_BYTES + size]
    if len(raw) < OVERHEAD_BYTES + size:
        raise IncompleteFrameError(base + position, f"{len(raw)} bytes, expected {OVERHEAD_BYTES + size}")
    if crc32(raw) != _RESIDUE:
        raise FrameError(base + position, "the checksum does not match")
    return Frame(kind, base + position, raw)


def encode_record(prev: bytes, record: Record) -> bytes:
    """The frame of a record as written. Raises ValueError when it is too large."""
    return encode(RECORD, prev, _ENCODE(record))


def encode_entry(prev: bytes, seq: int, time_ns: int, entry: Entry) -> bytes:
    """The frame of the record that ``entry`` becomes: its array is ``seq``, ``time_ns`` and the items of the entry.

    The same bytes as ``encode_record``, without building the record. Raises ValueError when it is too large.
    """
    items = _ENCODE((seq, time_ns))[1:] + _ENCODE(entry)[_ENTRY_HEAD_BYTES:]
    size = _RECORD_HEAD_BYTES + len(items)
    if len(prev) != HASH_BYTES or size > MAX_BODY_BYTES:
        raise _too_large(len(prev), size)
    frame = _RECORD_HEAD.pack(MAGIC, RECORD, size, prev, _ARRAY_HEAD, _RECORD_ITEMS) + items
    return frame + _CRC.pack(crc32(frame))


def encode_header(prev: bytes, header: SegmentHeader) -> bytes:
    """The frame of a segment header as written."""
    return encode(HEADER, prev, _ENCODE(header))


def decode_record(frame: Frame, seq: int) -> Record:
    """The record in ``frame``, which must be record ``seq``. Fields of newer versions are ignored.

    Raises FrameError that names offset and record.
    """
    if frame.kind != RECORD:
        raise FrameError(frame.offset, f"frame type {frame.kind}, expected record {seq}")
    try:
        record = _DECODE_RECORD(frame.payload)
    except msgspec.DecodeError as error:
        raise FrameError(frame.offset, f"record {seq} does not decode: {error}") from None
    if record.seq != seq:
        raise FrameError(frame.offset, f"record {record.seq} stands where record {seq} belongs")
    return record


def decode_header(frame: Frame) -> SegmentHeader:
    """The segment header in ``frame``. Raises FrameError."""
    if frame.kind != HEADER:
        raise FrameError(frame.offset, f"frame type {frame.kind}, expected a segment header")
    try:
        return _DECODE_HEADER(frame.payload)
    except msgspec.DecodeError as error:
        raise FrameError(frame.offset, f"the segment header does not decode: {error}") from None


def find_frame(data: bytes, position: int) -> int | None:
    """Where the next whole frame begins at or after ``position``, or None. Used to go on behind a damaged place."""
    for match in _CANDIDATE.finditer(data, position):
        try:
            decode(data, match.start())
        except FrameError:
            continue
        return match.start()
    return None
