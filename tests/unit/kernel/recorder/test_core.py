"""CO-RE: instructions fitted to kernels that are made here."""

from __future__ import annotations

import struct

import pytest

from attestd.kernel.linux.recorder.btf import Btf, Kind
from attestd.kernel.linux.recorder.core import CoreRelocation, Fitter, relocations
from attestd.kernel.linux.recorder.failures import FormatError
from attestd.kernel.linux.recorder.load import committed_object
from attestd.kernel.linux.recorder.object import parse
from tests.support.btf import ARRAY, INT, Builder

OFFSET, SIZE, EXISTS, TYPE_EXISTS, TYPE_SIZE, ENUM_EXISTS, ENUM_VALUE = 0, 1, 2, 8, 9, 10, 11
LOAD = struct.pack("<BBhi", 0x79, 0x21, 0, 0)
POISON = struct.pack("<BBhi", 0x85, 0, 0, 195896080)


def local() -> Btf:
    """Struct task___ours { int pid; long start; int words[4]; }; enum kinds { STORAGE = 1 }."""
    made = Builder()
    four, eight = made.add("int", INT, 4, struct.pack("<I", 32)), made.add("long", INT, 8, struct.pack("<I", 64))
    words = made.add("", ARRAY, 0, struct.pack("<III", four, four, 4))
    made.composite("task___ours", Kind.STRUCT, 32, [("pid", four, 0), ("start", eight, 64), ("words", words, 128)])
    made.enum("kinds", [("STORAGE", 1)])
    return Btf(made.bytes())


TASK, KINDS = 4, 5


def kernel(*, wide_pid: bool = False, nested: bool = True, twice: bool = False) -> Btf:
    """Struct task { long pad; struct { int pid; long start; }; int words[4]; } and enum kinds { STORAGE = 29 }."""
    made = Builder()
    four, eight = made.add("int", INT, 4, struct.pack("<I", 32)), made.add("long", INT, 8, struct.pack("<I", 64))
    words = made.add("", ARRAY, 0, struct.pack("<III", four, four, 2))
    pid = eight if wide_pid else four
    inner = made.composite("", Kind.STRUCT, 16, [("pid", pid, 0), ("start", eight, 64)])
    members = [("pad", eight, 0), ("" if nested else "named", inner, 64), ("words", words, 192)]
    made.composite("task", Kind.STRUCT, 40, members)
    if twice:
        made.composite("task", Kind.STRUCT, 8, [("pid", four, 32)])
    made.enum("kinds", [("OTHER", 1), ("STORAGE", 29)])
    return Btf(made.bytes())


def asked(kind: int, access: str, type_id: int = TASK) -> CoreRelocation:
    return CoreRelocation(section="test", offset=0, type_id=type_id, access=access, kind=kind)


@pytest.mark.parametrize(
    ("kind", "access", "type_id", "expected"),
    [
        (OFFSET, "0:0", TASK, 8),
        (OFFSET, "0:1", TASK, 16),
        (OFFSET, "0:2:1", TASK, 28),
        (OFFSET, "0:2:3", TASK, None),
        (SIZE, "0:1", TASK, 8),
        (EXISTS, "0:1", TASK, 1),
        (TYPE_EXISTS, "0", TASK, 1),
        (TYPE_SIZE, "0", TASK, 40),
        (ENUM_EXISTS, "0", KINDS, 1),
        (ENUM_VALUE, "0", KINDS, 29),
    ],
)
def test_answers(kind: int, access: str, type_id: int, expected: int | None):
    """Fields are found by name through anonymous members; flavours stand for the plain name."""
    assert Fitter(local(), kernel()).value(asked(kind, access, type_id)) == expected


def test_what_the_kernel_lacks():
    """A question becomes 0, an offset becomes none; what is declared absent counts as lacking."""
    other = kernel(nested=False)
    assert Fitter(local(), other).value(asked(EXISTS, "0:0")) == 0
    assert Fitter(local(), other).value(asked(OFFSET, "0:0")) is None
    without = Fitter(local(), kernel(), frozenset({"pid", "STORAGE"}))
    assert without.value(asked(EXISTS, "0:0")) == 0
    assert without.value(asked(ENUM_EXISTS, "0", KINDS)) == 0
    assert without.value(asked(ENUM_VALUE, "0", KINDS)) is None


def test_a_field_of_another_width():
    """A value that this kernel keeps in more bytes is not read half."""
    with pytest.raises(FormatError, match=r"task___ours.pid: it has 8 bytes in this kernel, expected 4"):
        Fitter(local(), kernel(wide_pid=True)).value(asked(OFFSET, "0:0"))


def test_two_types_that_disagree():
    """Two structures of one name with different answers are refused."""
    with pytest.raises(FormatError, match="ambiguous"):
        Fitter(local(), kernel(twice=True)).value(asked(OFFSET, "0:0"))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (LOAD, struct.pack("<BBhi", 0x79, 0x21, 16, 0)),
        (struct.pack("<BBhi", 0x07, 1, 0, 3), struct.pack("<BBhi", 0x07, 1, 0, 16)),
        (struct.pack("<BBhi", 0x18, 1, 0, 3) + bytes(8), struct.pack("<BBhi", 0x18, 1, 0, 16) + bytes(8)),
    ],
    ids=["load", "add", "constant"],
)
def test_instructions(code: bytes, expected: bytes):
    """An offset goes where the instruction keeps it."""
    block = bytearray(code)
    Fitter(local(), kernel()).fit(block, asked(OFFSET, "0:1"))
    assert bytes(block) == expected


def test_an_instruction_that_cannot_be_fitted_is_poisoned():
    """It becomes a call that no kernel has, so the verifier rejects the program if it can be reached."""
    block = bytearray(LOAD)
    Fitter(local(), kernel(nested=False)).fit(block, asked(OFFSET, "0:1"))
    assert bytes(block) == POISON


@pytest.mark.parametrize(
    ("relocation", "code", "reason"),
    [
        (asked(OFFSET, "0:9"), LOAD, "member 9 of 3"),
        (asked(OFFSET, "1:0"), LOAD, "beyond the type"),
        (asked(OFFSET, "0:x"), LOAD, "not a list of numbers"),
        (asked(OFFSET, ""), LOAD, "not a list of numbers"),
        (asked(99, "0:0"), LOAD, "kind 99"),
        (asked(ENUM_VALUE, "7", KINDS), LOAD, "enumerator 7 of 1"),
        (asked(OFFSET, "0:0", 99), LOAD, "there is no type 99"),
        (asked(OFFSET, "0:0"), b"", "is no instruction"),
        (asked(OFFSET, "0:0"), struct.pack("<BBhi", 0x05, 0, 0, 0), "does not fit instruction"),
    ],
)
def test_damaged_relocations(relocation: CoreRelocation, code: bytes, reason: str):
    """What is wrong is named."""
    with pytest.raises(FormatError, match=reason):
        Fitter(local(), kernel()).fit(bytearray(code), relocation)


def test_the_relocations_of_the_object():
    """The committed object has them for each of its programs, and no kind that is not known."""
    parsed = parse(committed_object())
    for program in parsed.programs:
        assert program.relocations
        assert {each.kind for each in program.relocations} <= {OFFSET, EXISTS, ENUM_EXISTS}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes"),
        (bytes(40), "magic 0x0"),
        (struct.pack("<HBBI6I", 0xEB9F, 1, 0, 32, 0, 0, 0, 0, 0, 8), "end at byte 40"),
        (struct.pack("<HBBI6I", 0xEB9F, 1, 0, 32, 0, 0, 0, 0, 0, 4) + struct.pack("<I", 8), "records of 16 bytes"),
        (struct.pack("<HBBI6I", 0xEB9F, 1, 0, 32, 0, 0, 0, 0, 0, 8) + struct.pack("<II", 16, 0), "begin at byte 4"),
        (struct.pack("<HBBI6I", 0xEB9F, 1, 0, 32, 0, 0, 0, 0, 0, 12) + struct.pack("<III", 16, 0, 9), "9 relocations"),
    ],
)
def test_damaged_sections(data: bytes, reason: str):
    """What is wrong is named."""
    with pytest.raises(FormatError, match=reason):
        relocations(data, local())
