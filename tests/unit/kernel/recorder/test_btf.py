"""The BTF reader on types that are made here, and on the kernel's own where there is one."""

from __future__ import annotations

import os
import struct

import pytest

from attestd.kernel.linux.recorder.btf import COMPOSITE, Btf, Kind
from attestd.kernel.linux.recorder.failures import FormatError
from attestd.kernel.linux.recorder.load import KERNEL_BTF, committed_object
from attestd.kernel.linux.recorder.object import parse
from tests.support.btf import ARRAY, INT, Builder

FIELDS = frozenset({Kind.STRUCT})


def sample() -> Btf:
    """Struct outer { int a; union { int b; long c; }; int d[3]; } with a typedef to it."""
    made = Builder()
    four, eight = made.add("int", INT, 4, struct.pack("<I", 32)), made.add("long", INT, 8, struct.pack("<I", 64))
    inner = made.composite("", Kind.UNION, 8, [("b", four, 0), ("c", eight, 0)])
    three = made.add("", ARRAY, 0, struct.pack("<III", four, four, 3))
    outer = made.composite("outer", Kind.STRUCT, 32, [("a", four, 0), ("", inner, 64), ("d", three, 128)])
    made.add("alias", Kind.TYPEDEF, outer)
    return Btf(made.bytes())


def test_types_by_name():
    """A type is found by its whole name and its kind."""
    btf = sample()
    (outer,) = btf.named("outer", FIELDS)
    assert [(each.name, each.bit_offset) for each in btf.members(outer)] == [("a", 0), ("", 64), ("d", 128)]
    assert btf.named("oute", FIELDS) == ()
    assert btf.named("outer", frozenset({Kind.UNION})) == ()
    (alias,) = btf.named("alias", frozenset({Kind.TYPEDEF}))
    assert btf.skip_modifiers(alias.type_id) == outer


def test_sizes():
    """Sizes of plain values, arrays and structs, through typedefs."""
    btf = sample()
    assert [btf.size(each) for each in (1, 2, 3, 4, 5, 6)] == [4, 8, 8, 12, 32, 32]
    with pytest.raises(FormatError, match="no size"):
        btf.size(0)


def test_enumerators():
    """Values of enums: signed, unsigned and of 64 bits."""
    made = Builder()
    made.enum("small", [("minus", -1), ("one", 1)], signed=True)
    made.enum("big", [("most", 0xFFFFFFFF)])
    made.enum64("huge", [("top", 1 << 40)])
    btf = Btf(made.bytes())
    assert [list(btf.enumerators(btf.type(each))) for each in (1, 2, 3)] == [
        [("minus", -1), ("one", 1)],
        [("most", 0xFFFFFFFF)],
        [("top", 1 << 40)],
    ]
    with pytest.raises(FormatError, match="no enumerators"):
        list(btf.enumerators(btf.type(0)))


def test_a_cycle_of_typedefs_ends():
    """A typedef of itself is refused, not followed for ever."""
    made = Builder()
    made.add("loop", Kind.TYPEDEF, 1)
    with pytest.raises(FormatError, match="more than 32"):
        Btf(made.bytes()).skip_modifiers(1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes"),
        (bytes(24), "magic 0x0"),
        (struct.pack("<HBBIIIII", 0xEB9F, 2, 0, 24, 0, 0, 0, 0), "version 2"),
        (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 100, 0, 0), "types end at byte 124"),
        (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 3, 0, 0) + bytes(3), "not a multiple of 4"),
        (struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 16, 0, 0) + bytes(16), "ends at word"),
    ],
)
def test_damaged_data(data: bytes, reason: str):
    """What is wrong is named."""
    with pytest.raises(FormatError, match=reason):
        Btf(data)


def test_a_type_that_is_not_there():
    """An id beyond the last is refused."""
    with pytest.raises(FormatError, match="there is no type 99"):
        sample().type(99)


def test_the_object_of_this_installation():
    """The committed object describes the records that it writes."""
    btf = parse(committed_object()).btf
    (process,) = btf.named("process", FIELDS)
    assert process.size_or_type == 112


@pytest.mark.skipif(not os.path.exists(KERNEL_BTF), reason="this kernel has no BTF")
def test_the_running_kernel():
    """The kernel's own types: a process has a pid, at a place inside its structure."""
    with open(KERNEL_BTF, "rb") as file:
        btf = Btf(file.read())
    (task,) = btf.named("task_struct", COMPOSITE)
    fields = {each.name: each.bit_offset for each in btf.members(task)}
    assert 0 < fields["tgid"] < task.size_or_type * 8
