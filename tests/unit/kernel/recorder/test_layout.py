"""The bytes of the maps: what Python reads is what the object's own types say."""

from __future__ import annotations

import os
import struct

import pytest

from attestd.evidence.recorder import ImageFacts, ProcessKey
from attestd.kernel.linux.recorder import layout
from attestd.kernel.linux.recorder.btf import Kind
from attestd.kernel.linux.recorder.load import committed_object
from attestd.kernel.linux.recorder.object import parse


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("key", layout.KEY),
        ("process", layout.PROCESS),
        ("connection", layout.CONNECTION),
        ("state", layout.STATE),
    ],
)
def test_sizes_and_places(name: str, format_: struct.Struct):
    """Each member of the C structure begins where the format's field begins."""
    btf = parse(committed_object()).btf
    (found,) = btf.named(name, frozenset({Kind.STRUCT}))
    assert found.size_or_type == format_.size
    fields = format_.format.lstrip("<")
    places, at, number = [], 0, ""
    for each in fields:
        if each.isdigit():
            number += each
            continue
        count, size = int(number or 1), struct.calcsize(f"<{each}")
        places += [at] if each == "s" else [at + i * size for i in range(count)]
        at += count * size
        number = ""
    assert [member.bit_offset // 8 for member in btf.members(found)] == places


def test_the_head_of_the_words():
    """The words begin behind their head, and fill what the map holds."""
    btf = parse(committed_object()).btf
    (found,) = btf.named("words", frozenset({Kind.STRUCT}))
    places = {member.name: member.bit_offset // 8 for member in btf.members(found)}
    assert places["data"] == layout.WORDS.size
    assert found.size_or_type == layout.WORDS_BYTES


def test_a_record():
    """Every field arrives, and the flags are told apart."""
    device = 8 << 20 | 0x12345
    flags = layout.IMAGE_KNOWN | layout.IMAGE_CLAIMED
    data = layout.PROCESS.pack(
        15_000_000, 9, 3, 20, 0, 77, 42, 100, 5, device, 6, 1234, 1, 1000, flags, b"name".ljust(16, b"\0")
    )
    record = layout.process(data)
    assert record.key == ProcessKey(1234, 15_000_000)
    assert record.parent == ProcessKey(1, 9)
    assert record.image == ImageFacts(dev=os.makedev(8, 0x12345), ino=42, generation=6, size=100, ctime_ns=5)
    assert (record.exec_counter, record.exec_ns, record.exited_ns, record.forked_ns) == (3, 20, None, 15_000_000)
    assert (record.uid, record.cgroup_id, record.comm) == (1000, 77, "name")
    assert (record.pre_attach, record.gap, record.image_claimed) == (False, False, True)
    assert layout.map_key(record.key) == struct.pack("<QII", 1, 1234, 0)


def test_a_record_without_parent_and_image():
    """The first process has no parent; a kernel thread has no image."""
    record = layout.process(layout.PROCESS.pack(*[0] * 11, 1, 0, 0, layout.PRE_ATTACH, b""))
    assert record.parent is None
    assert record.image is None
    assert record.pre_attach


def test_a_record_born_in_a_gap():
    """Its parent is not known: what the kernel says later may be whoever adopted it."""
    record = layout.process(layout.PROCESS.pack(*[0] * 11, 5, 1, 0, layout.GAP, b""))
    assert record.gap
    assert record.parent is None


def test_a_connection():
    """Every field arrives."""
    found = layout.connection(7, layout.CONNECTION.pack(1, 2, 3, 4, 10, 1))
    assert (found.cookie, found.key, found.exec_counter, found.time_ns) == (7, ProcessKey(4, 1), 2, 3)
    assert (found.family, found.contested) == (10, True)


@pytest.mark.parametrize(("major", "minor"), [(0, 5), (8, 1), (253, 0), (259, 0xFFFFF), (4095, 300)])
def test_device_numbers(major: int, minor: int):
    """The kernel's number becomes the one that fstat shows."""
    assert layout.device(major << 20 | minor) == os.makedev(major, minor)
