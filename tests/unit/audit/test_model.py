"""The append-only record."""

from __future__ import annotations

from attestd.audit.model import Record, SegmentHeader

RECORD_FIELDS = [
    "seq",
    "time_ns",
    "kind",
    "id",
    "session",
    "server",
    "method",
    "name",
    "caller",
    "verdict",
    "cause",
    "policies",
    "generation",
    "mode",
    "args_sha256",
    "latency_ns",
    "uid",
    "pid",
    "detail",
    "body",
]
HEADER_FIELDS = ["version", "origin", "number", "first_seq", "time_ns", "epoch", "key", "root", "frontier"]


def test_fields_are_only_ever_added_at_the_end():
    """The order of the fields is the wire format; what version 1 wrote stays where it was."""
    assert list(Record.__struct_fields__[: len(RECORD_FIELDS)]) == RECORD_FIELDS
    assert list(SegmentHeader.__struct_fields__[: len(HEADER_FIELDS)]) == HEADER_FIELDS


def test_every_newer_field_has_a_default():
    """A record of an older version can always be read."""
    assert len(Record.__struct_defaults__) >= len(Record.__struct_fields__) - len(RECORD_FIELDS) + 1
