"""Bytes on their way to one descriptor, without blocking and without loss.

``write`` tries at once and queues what the kernel does not take; the loop sends the rest when it can. ``congested``
turns true above the high mark, and ``relieved`` is called once when the queue has fallen below the low mark again:
that is the whole of backpressure. A closed or broken descriptor calls ``broken`` once and swallows the rest.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from functools import partial

HIGH_BYTES = 1 << 20
LOW_BYTES = 1 << 18


class Outbox:
    """The write side of one non-blocking descriptor."""

    __slots__ = (
        "_broken",
        "_closing",
        "_fd",
        "_loop",
        "_queue",
        "_relieved",
        "_send",
        "_unwatch",
        "_waiting",
        "_watch",
        "congested",
        "queued",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        *,
        relieved: Callable[[], None],
        broken: Callable[[], None],
        write: Callable[[bytes | memoryview], int] | None = None,
    ) -> None:
        """``write`` sends to where ``fd`` does not lead itself: ``fd`` is then readable when there is room."""
        self._loop = loop
        self._fd = fd
        self._send = partial(os.write, fd) if write is None else write
        self._watch, self._unwatch = (
            (loop.add_writer, loop.remove_writer) if write is None else (loop.add_reader, loop.remove_reader)
        )
        self._relieved = relieved
        self._broken = broken
        self._queue: deque[memoryview] = deque()
        self._waiting = False
        self._closing: Callable[[], None] | None = None
        self.queued = 0
        """Bytes that wait."""
        self.congested = False
        """Whether the other side should stop producing: more than ``HIGH_BYTES`` wait."""

    def write(self, data: bytes | memoryview) -> None:
        """Send now or later, in order."""
        if self._fd < 0 or self._closing is not None:
            return
        sent = 0
        if not self._queue:
            try:
                sent = self._send(data)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                self._break()
                return
            if sent == len(data):
                return
        self._queue.append(memoryview(data)[sent:])
        self._wait_for(len(data) - sent)
        if not self._waiting:
            self._waiting = True
            self._watch(self._fd, self._flush)

    def finish(self, done: Callable[[], None]) -> None:
        """Call ``done`` when everything queued has been sent (or cannot be); nothing may be written after this."""
        if not self._queue or self._fd < 0:
            self.discard()
            done()
        else:
            self._closing = done

    def discard(self) -> None:
        """Forget what waits and let go of the descriptor, which belongs to the caller."""
        if self._fd >= 0 and self._waiting:
            self._unwatch(self._fd)
        self._fd = -1
        self._waiting = False
        self._queue.clear()
        self._wait_for(-self.queued)

    def _wait_for(self, more: int) -> None:
        self.queued += more
        self.congested = self.queued > HIGH_BYTES

    def _flush(self) -> None:
        was_high = self.queued > LOW_BYTES
        while self._queue:
            view = self._queue[0]
            try:
                sent = self._send(view)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                self._break()
                return
            self._wait_for(-sent)
            if sent < len(view):
                self._queue[0] = view[sent:]
                break
            self._queue.popleft()
        if not self._queue:
            self._waiting = False
            self._unwatch(self._fd)
            if self._closing is not None:
                done, self._closing = self._closing, None
                self.discard()
                done()
                return
        if was_high and self.queued <= LOW_BYTES:
            self._relieved()

    def _break(self) -> None:
        done, self._closing = self._closing, None
        self.discard()
        if done is not None:
            done()
        else:
            self._broken()
