"""The ring's consumer, on a file that stands for the kernel's pages."""

from __future__ import annotations

import mmap
import os
import select
import struct
from collections.abc import Iterator

import pytest

from attestd.kernel.linux.recorder.failures import RecorderError
from attestd.kernel.linux.recorder.ring import Ring

SIZE = 4 * mmap.PAGESIZE
BUSY, DISCARDED = 1 << 31, 1 << 30


class NoWaker:
    """A file cannot be waited for; the kernel's ring can."""

    def register(self, fd: int, events: int) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class Pages:
    """The memory of a ring: consumer page, producer page, data twice."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * mmap.PAGESIZE + 2 * SIZE)
        self.at = 0

    def write(self, data: bytes, flags: int = 0) -> int:
        """Append one event; where it begins."""
        began, block = self.at, struct.pack("<II", len(data) | flags, 0) + data
        for base in (0, SIZE):  # the second mapping shows the same bytes
            for i, byte in enumerate(block):
                os.pwrite(self.fd, bytes([byte]), 2 * mmap.PAGESIZE + base + (self.at + i) % SIZE)
        self.at += (len(block) + 7) & ~7
        os.pwrite(self.fd, struct.pack("<Q", self.at), mmap.PAGESIZE)
        return began

    def consumed(self) -> int:
        """The position that the kernel sees."""
        return int.from_bytes(os.pread(self.fd, 8, 0), "little")


@pytest.fixture(name="pages")
def _pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    monkeypatch.setattr(select, "epoll", NoWaker)
    pages = Pages()
    yield pages
    os.close(pages.fd)


@pytest.fixture(name="ring")
def _ring(pages: Pages) -> Iterator[Ring]:
    ring = Ring(pages.fd, SIZE)
    yield ring
    ring.close()


def test_events_in_order(pages: Pages, ring: Ring):
    """What was written is read once, in order; a discarded event is passed over."""
    pages.write(b"one")
    pages.write(b"gone", DISCARDED)
    pages.write(b"twelve bytes")
    assert list(ring.drain()) == [b"one", b"twelve bytes"]
    assert list(ring.drain()) == []
    pages.write(b"more")
    assert list(ring.drain()) == [b"more"]


def test_an_event_that_is_being_written(pages: Pages, ring: Ring):
    """It and what follows wait until it is complete."""
    pages.write(b"one")
    began = pages.write(b"busy", BUSY)
    pages.write(b"three")
    assert list(ring.drain()) == [b"one"]
    os.pwrite(pages.fd, struct.pack("<I", 4), 2 * mmap.PAGESIZE + began)
    assert list(ring.drain()) == [b"busy", b"three"]


def test_the_next_reader_finds_what_was_kept(pages: Pages, ring: Ring):
    """The kernel's position stays behind by an eighth of the ring, at the border of an event."""
    for number in range(20):
        pages.write(bytes([number]) * 200)
    assert len(list(ring.drain())) == 20
    assert pages.at - SIZE // 8 - 208 < pages.consumed() <= pages.at - SIZE // 8
    again = Ring(pages.fd, SIZE)
    assert [each[0] for each in again.drain()] == list(range(pages.consumed() // 208, 20))
    again.close()


def test_events_across_the_end(pages: Pages, ring: Ring):
    """An event that begins at the end of the ring continues at its beginning."""
    for number in range(100):
        pages.write(bytes([number]) * 1000)
        assert list(ring.drain()) == [bytes([number]) * 1000]


def test_a_ring_that_makes_no_sense(pages: Pages, ring: Ring):
    """A length beyond what was produced is refused, not followed."""
    pages.write(b"x")
    os.pwrite(pages.fd, struct.pack("<I", 5000), 2 * mmap.PAGESIZE)
    with pytest.raises(RecorderError, match="5000 bytes at 0 ends after 16"):
        list(ring.drain())
