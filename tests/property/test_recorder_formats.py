"""Damaged objects and type information: the parsers name what is wrong, and raise nothing else."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestd.kernel.linux.recorder import elf
from attestd.kernel.linux.recorder.btf import Btf
from attestd.kernel.linux.recorder.core import Fitter, relocations
from attestd.kernel.linux.recorder.failures import FormatError
from attestd.kernel.linux.recorder.load import committed_object
from attestd.kernel.linux.recorder.object import parse
from attestd.kernel.linux.recorder.words import decode

pytestmark = pytest.mark.linux("the recorder")

GENUINE = committed_object()
SECTIONS = elf.parse(GENUINE)
TYPES = SECTIONS.section(".BTF").data
RELOCATIONS = SECTIONS.section(".BTF.ext").data
SECTION_TABLE = struct.unpack_from("<Q", GENUINE, 40)[0]
KERNEL = Btf(TYPES)  # the object's own types stand for a kernel that has all it asks for

bytes_ = st.binary(min_size=1, max_size=8)


def places(size: int) -> st.SearchStrategy[int]:
    """Anywhere, and often in the header and the tables, where the damage is worst."""
    return st.one_of(st.integers(0, size - 1), st.integers(0, min(size - 1, 128)))


def damaged(data: bytes, cuts: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    """``data`` with a few bytes overwritten, and perhaps cut off."""

    def apply(changes: list[tuple[int, bytes]], end: int | None) -> bytes:
        block = bytearray(data)
        for at, new in changes:
            block[at : at + len(new)] = new
        return bytes(block if end is None else block[:end])

    return st.builds(apply, st.lists(st.tuples(cuts, bytes_), min_size=1, max_size=6), st.none() | cuts)


def use(data: bytes) -> None:
    """Parse an object, and fit every program to the genuine types."""
    parsed = parse(data)
    fitter = Fitter(parsed.btf, KERNEL)
    for program in parsed.programs:
        code = bytearray(program.code)
        for relocation in program.relocations:
            with contextlib.suppress(FormatError):
                fitter.fit(code, relocation)


def test_the_genuine_object_is_accepted():
    """The invariant is not kept by refusing everything."""
    use(GENUINE)


@settings(max_examples=300, deadline=None)
@given(damaged(GENUINE, st.one_of(places(len(GENUINE)), st.integers(SECTION_TABLE, len(GENUINE) - 1))))
def test_damaged_objects(data: bytes):
    """Whatever bytes are changed: it parses, or FormatError says what is wrong."""
    with contextlib.suppress(FormatError):
        use(data)


@settings(max_examples=300, deadline=None)
@given(damaged(TYPES, places(len(TYPES))))
def test_damaged_types(data: bytes):
    """Every type can be asked for everything, or FormatError says what is wrong."""
    with contextlib.suppress(FormatError):
        btf = Btf(data)
        for type_id in range(len(btf)):
            with contextlib.suppress(FormatError):
                found = btf.type(type_id)
                btf.name(found)
                btf.size(type_id)
            with contextlib.suppress(FormatError):
                list(btf.members(btf.type(type_id)))
            with contextlib.suppress(FormatError):
                list(btf.enumerators(btf.type(type_id)))


@settings(max_examples=300, deadline=None)
@given(damaged(RELOCATIONS, places(len(RELOCATIONS))))
def test_damaged_relocations(data: bytes):
    """Relocations parse and are fitted, or FormatError says what is wrong."""
    fitter = Fitter(KERNEL, KERNEL)
    with contextlib.suppress(FormatError):
        for each in relocations(data, KERNEL):
            with contextlib.suppress(FormatError):
                fitter.fit(bytearray(4096), each)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes(data: bytes):
    """Arbitrary bytes are never an object, and an event only if its lengths fit."""
    with contextlib.suppress(FormatError):
        parse(data)
    decode(data)
