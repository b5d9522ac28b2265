"""Frames and the hash chain."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from attestd.audit import chain
from attestd.audit.model import Record, SegmentHeader
from attestd.audit.protocol import Entry

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/audit/frames.json").read_text())
RECORD = Record(
    seq=7,
    time_ns=1_800_000_000_000_000_007,
    kind="decision",
    id="d1",
    session="s1",
    server="time",
    method="tools/call",
    name="get_current_time",
    caller="ab" * 32,
    verdict="deny",
    cause="no_grant",
    policies=("baseline",),
    generation=3,
    mode="enforce",
    args_sha256="cd" * 32,
    latency_ns=1234,
    uid=1000,
    pid=4242,
    detail={"clock": 5},
)
HEADER = SegmentHeader(
    version=1,
    origin="attestd.test/audit",
    number=1,
    first_seq=2,
    time_ns=9,
    epoch=1,
    key="k",
    root=b"r" * 32,
    frontier=(b"f" * 32,),
)


def test_a_record_is_written_byte_for_byte_as_pinned():
    """The frame of a known record equals the vector, so no later version may write it otherwise."""
    assert chain.encode_record(bytes(range(32)), RECORD).hex() == VECTORS["record"]


def test_a_header_is_written_byte_for_byte_as_pinned():
    """The frame of a known segment header equals the vector."""
    assert chain.encode_header(bytes(32), HEADER).hex() == VECTORS["header"]


def test_the_pinned_frames_are_read():
    """What an older version wrote decodes to the same values."""
    frame = chain.decode(bytes.fromhex(VECTORS["record"]))
    assert chain.decode_record(frame, 7) == RECORD
    assert chain.decode_header(chain.decode(bytes.fromhex(VECTORS["header"]))) == HEADER


def test_the_link_is_the_hash_of_the_whole_frame_as_written():
    """The chain needs no canonical form: SHA-256 of the bytes, nothing else."""
    raw = bytes.fromhex(VECTORS["record"])
    assert chain.link(raw) == sha256(raw).digest() == bytes.fromhex(VECTORS["record_link"])


def test_fields_of_a_newer_version_are_ignored():
    """A record with more fields at its end is read as far as we know it."""
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(RECORD))
    payload = msgspec.msgpack.encode([*fields, "new", 1])
    frame = chain.decode(chain.encode(chain.RECORD, bytes(32), payload))
    assert chain.decode_record(frame, 7) == RECORD


def test_a_record_without_the_newest_field_has_its_default():
    """A record that an older version wrote without ``body`` is read with an empty one."""
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(RECORD))
    frame = chain.decode(chain.encode(chain.RECORD, bytes(32), msgspec.msgpack.encode(fields[:-1])))
    assert chain.decode_record(frame, 7).body == b""


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda raw: b"\x00" + raw[1:], "magic is 0x00, expected 0xc1"),
        (lambda raw: raw[:1] + b"\x09" + raw[2:], "unknown frame type 9"),
        (lambda raw: raw[:2] + b"\xff\xff\xff\xff" + raw[6:], "body of 4294967295 bytes"),
        (lambda raw: raw[:2] + b"\x00\x00\x00\x01" + raw[6:], "body of 1 bytes"),
        (lambda raw: raw[:50] + bytes([raw[50] ^ 1]) + raw[51:], "the checksum does not match"),
    ],
)
def test_bytes_that_are_no_frame_are_named_with_their_offset(change: Callable[..., Any], what: str):
    """Each kind of damage has its own words, and the error says where in the file."""
    raw = change(chain.encode_record(bytes(32), RECORD))
    with pytest.raises(chain.FrameError) as caught:
        chain.decode(b"xx" + raw, 2, 1000)
    assert caught.value.offset == 1002
    assert what in caught.value.what


def test_every_shorter_prefix_is_incomplete():
    """A frame that was cut anywhere is told from a damaged one."""
    raw = chain.encode_record(bytes(32), RECORD)
    for size in range(len(raw)):
        with pytest.raises(chain.IncompleteFrameError):
            chain.decode(raw[:size])


def test_a_record_out_of_its_place_is_named():
    """A frame that decodes but has another sequence number says both numbers."""
    frame = chain.decode(chain.encode_record(bytes(32), RECORD))
    with pytest.raises(chain.FrameError, match="record 7 stands where record 8 belongs"):
        chain.decode_record(frame, 8)


def test_a_payload_that_is_no_record_names_offset_and_record():
    """A frame with a right checksum and a wrong payload is an error, not a crash."""
    frame = chain.decode(chain.encode(chain.RECORD, bytes(32), b"\x91\x01"), 0, 77)
    with pytest.raises(chain.FrameError, match="offset 77: record 3 does not decode"):
        chain.decode_record(frame, 3)


def test_a_frame_of_another_type_is_not_decoded():
    """Header and record do not stand for each other."""
    record = chain.decode(chain.encode_record(bytes(32), RECORD))
    header = chain.decode(chain.encode_header(bytes(32), HEADER))
    with pytest.raises(chain.FrameError, match="expected a segment header"):
        chain.decode_header(record)
    with pytest.raises(chain.FrameError, match="expected record 0"):
        chain.decode_record(header, 0)


def test_a_header_that_does_not_decode_is_an_error():
    """A header frame with a foreign payload is refused."""
    frame = chain.decode(chain.encode(chain.HEADER, bytes(32), b"\x90"))
    with pytest.raises(chain.FrameError, match="header does not decode"):
        chain.decode_header(frame)


def test_too_large_a_body_is_not_encoded():
    """A frame that no reader would accept is never written."""
    with pytest.raises(ValueError, match="cannot encode a frame"):
        chain.encode(chain.RECORD, bytes(32), bytes(chain.MAX_BODY_BYTES))


def test_the_next_whole_frame_is_found_behind_garbage():
    """Reading goes on at a real frame, not at bytes that begin like one."""
    raw = chain.encode_record(bytes(32), RECORD)
    assert chain.find_frame(b"\xc1\x02\x00\x00\x00\x20junk" + raw, 0) == 10
    assert chain.find_frame(b"\xc1\x02junk", 0) is None


def test_an_entry_is_written_as_the_record_that_it_becomes():
    """The quick way through the entry gives byte for byte the pinned frame, so the two can never drift apart."""
    assert Record.__struct_fields__ == ("seq", "time_ns", *Entry.__struct_fields__)
    entry = Entry(**{name: getattr(RECORD, name) for name in Entry.__struct_fields__})
    frame = chain.encode_entry(bytes(range(32)), RECORD.seq, RECORD.time_ns, entry)
    assert frame.hex() == VECTORS["record"]
    large = msgspec.structs.replace(entry, body=b"x" * 70_000)
    record = msgspec.structs.replace(RECORD, body=b"x" * 70_000)
    assert chain.encode_entry(bytes(32), 7, RECORD.time_ns, large) == chain.encode_record(bytes(32), record)
