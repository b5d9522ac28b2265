"""Reading segments: frames, and what is not a frame."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attestd.audit import chain
from attestd.audit.reader import Damage, walk

RAW = [chain.encode(chain.RECORD, bytes(32), bytes([number]) * 50) for number in range(5)]


@pytest.fixture
def read(tmp_path: Path):
    """Reads the given bytes as a segment."""

    def run(data: bytes, start: int = 0) -> Any:
        path = tmp_path / "segment"
        path.write_bytes(data)
        fd = os.open(path, os.O_RDONLY)
        try:
            return list(walk(fd, start))
        finally:
            os.close(fd)

    return run


@pytest.mark.parametrize("chunk", [1, 7, 91, 92, 93, 1 << 20])
def test_frames_are_read_whatever_the_chunks(
    read: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch, chunk: int
):
    """Where the reads end does not matter."""
    monkeypatch.setattr("attestd.audit.reader._CHUNK_BYTES", chunk)
    assert [item.raw for item in read(b"".join(RAW))] == RAW
    assert [item.offset for item in read(b"".join(RAW), len(RAW[0]))] == [
        len(RAW[0]) * number for number in range(1, 5)
    ]


def test_an_empty_file_holds_nothing(read: Callable[..., list[Any]]):
    """No byte, no frame, no damage."""
    assert read(b"") == []


@pytest.mark.parametrize("chunk", [5, 1 << 20])
def test_damage_lasts_until_the_next_whole_frame(
    read: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch, chunk: int
):
    """A damaged place has offset and size, and what follows is read."""
    monkeypatch.setattr("attestd.audit.reader._CHUNK_BYTES", chunk)
    broken = bytearray(RAW[1])
    broken[50] ^= 1
    found = read(RAW[0] + bytes(broken) + b"\x00" * 10 + RAW[2])
    size = len(RAW[0])
    what = "the checksum does not match"
    assert found[1] == Damage(offset=size, size=size + 10, what=what, incomplete=False)
    assert [item.raw for item in (found[0], found[2])] == [RAW[0], RAW[2]]


@pytest.mark.parametrize("length", [1, 5, 6, 40, 91])
def test_a_frame_cut_by_the_end_of_the_file_is_incomplete(read: Callable[..., list[Any]], length: int):
    """Its beginning is well formed; that is told apart from damage."""
    found = read(RAW[0] + RAW[1][:length])
    assert isinstance(found[1], Damage)
    assert (found[1].size, found[1].incomplete) == (length, True)


def test_zeros_are_damage_not_an_incomplete_frame(read: Callable[..., list[Any]]):
    """No frame begins with a zero."""
    assert read(RAW[0] + bytes(3))[1].incomplete is False


def test_a_length_that_reaches_beyond_the_end_does_not_hide_what_follows(read: Callable[..., list[Any]]):
    """A flipped length swallows nothing: the frames behind it are found."""
    broken = RAW[1][:3] + b"\x10" + RAW[1][4:]
    found = read(RAW[0] + broken + RAW[2])
    assert isinstance(found[1], Damage)
    assert found[2].raw == RAW[2]
    assert found[1].incomplete is False
