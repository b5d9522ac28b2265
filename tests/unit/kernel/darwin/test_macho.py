"""Code directory hashes of files, signed, unsigned, universal, broken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.kernel.darwin.macho import cdhashes
from tests.support import mach

CODE = b"\x90" * 64


def of(path: Path, content: bytes) -> frozenset[str]:
    """The hashes of a file with this content."""
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    try:
        return cdhashes(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("hash_type", sorted(mach.HASHES))
def test_each_kind_of_hash(tmp_path: Path, hash_type: int):
    """A code directory is hashed with its own algorithm and cut to 20 bytes."""
    blob = mach.directory("prog", CODE, hash_type)
    assert of(tmp_path / "x", mach.slice_of(CODE, blob)) == {mach.cdhash(blob).hex()}


def test_every_directory_of_every_slice(tmp_path: Path):
    """A universal file has those of all its slices, alternates too."""
    blobs = [mach.directory(name, CODE, kind) for name, kind in (("arm", 2), ("arm", 1), ("intel", 2))]
    content = mach.universal(mach.slice_of(CODE, *blobs[:2]), mach.slice_of(CODE, blobs[2]))
    assert of(tmp_path / "x", content) == {mach.cdhash(blob).hex() for blob in blobs}


def test_a_changed_directory_has_another_hash(tmp_path: Path):
    """One byte of the directory makes it another program."""
    blob = mach.directory("prog", CODE)
    content = bytearray(mach.slice_of(CODE, blob))
    content[-1] ^= 1
    assert mach.cdhash(blob).hex() not in of(tmp_path / "x", bytes(content))


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe" + b"\xff" * 64])
def test_what_is_unsigned_has_none(tmp_path: Path, content: bytes):
    """Scripts, heads without a body and nonsense have no hash, and raise nothing."""
    assert of(tmp_path / "x", content) == frozenset()


@given(st.integers(0, 400), st.integers(0, 255))
def test_no_damage_raises(tmp_path_factory: pytest.TempPathFactory, at: int, byte: int):
    """Whatever byte is changed, the answer is a set of hashes."""
    content = bytearray(mach.universal(mach.slice_of(CODE, mach.directory("prog", CODE))))
    content[at % len(content)] = byte
    assert all(len(found) == 40 for found in of(tmp_path_factory.getbasetemp() / "damaged", bytes(content)))


@given(st.integers(0, 400))
def test_no_cut_raises(tmp_path_factory: pytest.TempPathFactory, length: int):
    """However much is missing, the answer is a set of hashes."""
    content = mach.slice_of(CODE, mach.directory("prog", CODE))[:length]
    assert len(of(tmp_path_factory.getbasetemp() / "cut", content)) <= 1
