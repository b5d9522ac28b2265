"""The ELF reader on the committed object and on damaged ones."""

from __future__ import annotations

import struct

import pytest

from attestd.kernel.linux.recorder import elf
from attestd.kernel.linux.recorder.failures import FormatError
from attestd.kernel.linux.recorder.load import committed_object


def test_sections_symbols_and_relocations():
    """The committed object's programs, maps and references are found."""
    parsed = elf.parse(committed_object())
    exec_section = parsed.section("tp_btf/sched_process_exec")
    assert len(exec_section.data) % 8 == 0
    assert {symbol.name for symbol in parsed.symbols} >= {"on_fork", "on_exec", "on_exit", "alive", "events"}
    assert {each.symbol.name for each in parsed.relocations[exec_section.index]} >= {"alive", "events", "scratch"}


def test_a_section_that_is_not_there():
    """Asking for a section that is missing names it."""
    with pytest.raises(FormatError, match="0 sections named 'nothing'"):
        elf.parse(committed_object()).section("nothing")


def patched(offset: int, data: bytes) -> bytes:
    whole = bytearray(committed_object())
    whole[offset : offset + len(data)] = data
    return bytes(whole)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "begins with"),
        (b"\x7fELF\x01\x01\x01" + bytes(60), "64-bit ELF"),
        (committed_object()[:100], "ends at byte"),
        (patched(18, struct.pack("<H", 62)), "machine 62, expected 1 for 247"),
        (patched(16, struct.pack("<H", 2)), "type 2"),
        (patched(58, struct.pack("<H", 63)), "sections of 63 bytes"),
        (patched(60, struct.pack("<H", 0)), "0 sections"),
        (patched(40, struct.pack("<Q", 1 << 62)), "ends at byte"),
        (patched(62, struct.pack("<H", 999)), "names in section 999"),
    ],
)
def test_damaged_headers(data: bytes, reason: str):
    """What is wrong is named."""
    with pytest.raises(FormatError, match=reason):
        elf.parse(data)


@pytest.mark.parametrize(("table", "offset"), [(b"", 0), (b"abc", 0), (b"abc\0", 4), (b"abc\0", -1)])
def test_a_text_outside_its_table(table: bytes, offset: int):
    """A name must begin inside the table and end in it."""
    with pytest.raises(FormatError, match="cannot read a name"):
        elf.text_at(table, offset)
