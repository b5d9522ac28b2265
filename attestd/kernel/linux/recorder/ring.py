"""Reads the ring of exec events (kernel: Documentation/bpf/ringbuf.rst).

The reader has its own position. The shared one, which frees room for the kernel, follows some way behind: what a
reader took is still there for the next reader if this one is restarted. The kernel wakes us only when a quarter of
the ring is waiting; a lookup drains first, so nothing is missed in between. One reader at a time; who that is, the
caller sees to. Every length in the ring was written by the kernel, but is checked against the ring all the same.
"""

from __future__ import annotations

import mmap
import select
import sys
from collections.abc import Iterator

from attestd.kernel.linux.recorder.failures import RecorderError

if sys.platform != "linux":
    raise ImportError("cannot use the kernel recorder on this platform: it needs Linux")

_BUSY, _DISCARDED = 1 << 31, 1 << 30
_HEADER = 8
_KEPT_SHARE = 8


class Ring:
    """The consumer's end. Not for two threads at once."""

    def __init__(self, fd: int, size: int) -> None:
        page = mmap.PAGESIZE
        self._size = size
        self._consumer = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer = mmap.mmap(fd, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumed = memoryview(self._consumer).cast("Q")
        self._produced = memoryview(self._producer)[:page].cast("Q")
        self._data = memoryview(self._producer)[page:]
        self._at: int = self._consumed[0]
        self._kept: list[int] = []
        self.waker = select.epoll()
        self.waker.register(fd, select.EPOLLIN | select.EPOLLET)

    def drain(self) -> Iterator[bytes]:
        """Every event that is complete and was not taken yet. Raises RecorderError if the ring does not make sense."""
        at, mask, data = self._at, self._size - 1, self._data
        end: int = self._produced[0]
        while at < end:
            where = at & mask
            word = int.from_bytes(data[where : where + 4], "little")
            if word & _BUSY:
                break
            length = word & ~_DISCARDED
            step = (length + _HEADER + 7) & ~7
            if at + step > end:
                raise RecorderError(f"cannot read the ring: an event of {length} bytes at {at} ends after {end}")
            if not word & _DISCARDED:
                yield bytes(data[where + _HEADER : where + _HEADER + length])
            at += step
            self._at = at
            self._kept.append(at)
            if at >= end:
                end = self._produced[0]
        self._release()

    def _release(self) -> None:
        """Give room back to the kernel, always at the border of an event."""
        border = self._at - self._size // _KEPT_SHARE
        freed = 0
        while freed < len(self._kept) and self._kept[freed] <= border:
            freed += 1
        if freed:
            self._consumed[0] = self._kept[freed - 1]
            del self._kept[:freed]

    def close(self) -> None:
        """Unmap. Idempotent."""
        for view in (self._consumed, self._produced, self._data):
            view.release()
        self._consumer.close()
        self._producer.close()
        self.waker.close()
