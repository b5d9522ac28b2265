"""The fallback recorder: the proc connector's events in a table, kept current by one thread.

Rules: every answer is given after the queue was read until it was empty, so whatever happened before the question is in
it. In between a thread reads in batches, pausing 5 ms after the first event, which costs a fifth of reading each one.
After a loss the same thread looks through /proc once, in slices, reading the queue between them. What a question
asks for is looked up in /proc at once if the table does not have it.

What it cannot give: words of an exec (``exec_event``) and connections are never known; an image is known only if the
process lived long enough to be looked at, and is marked as not proven; cgroups are not known (0). A machine that makes
more processes than this thread can read loses events, counted, and their lineage.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from attestd.evidence.recorder import Connection, ExecEvent, Losses, ProcessKey, ProcessRecord
from attestd.kernel.linux.connector import glance
from attestd.kernel.linux.connector.feed import RECEIVE_BYTES, Feed
from attestd.kernel.linux.connector.table import LIMIT, Entry, Table

if sys.platform != "linux":
    raise ImportError(f"cannot use Linux interfaces on {sys.platform}")

PAUSE_S = 0.005
_SLICE = 64
"""Processes looked at before the queue is read again."""
_IN_TIME = 16
"""Executed programs looked at after one batch; a storm's are mostly gone by then anyway."""
_BATCHES = 256
_STATE = "process events by netlink: lineage; no proof of images, command lines or connections"


class ConnectorRecorder:
    """Implements ``attestd.evidence.recorder.Recorder`` with state ``fallback``. Safe for several threads."""

    def __init__(self, receive_bytes: int = RECEIVE_BYTES, limit: int = LIMIT) -> None:
        """Subscribe, look at every process once, and start the reading thread.

        Raises:
            ConnectorUnavailableError: no such events for us; says why.
        """
        self._lock = threading.Lock()
        self._failure = ""
        self._feed = Feed(receive_bytes)
        self._table = Table(glance.look, time.clock_gettime_ns(time.CLOCK_BOOTTIME), limit)
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._stopping = False
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="attestd-connector", daemon=True)
        self._thread.start()
        self._started.wait()

    def state(self) -> tuple[str, str]:
        """``fallback``, or ``absent`` with the reason once reading failed or ``close`` was called."""
        return ("absent", self._failure) if self._failure else ("fallback", _STATE)

    def process(self, key: ProcessKey) -> ProcessRecord | None:
        """The record of one process; None: not known. ``key.start_ns`` may be cut to the clock tick."""
        with self._lock:
            entry = self._find(key)
            return None if entry is None else self._table.record(entry)

    def exec_counter(self, key: ProcessKey) -> int | None:
        """See ``Recorder``. A counter that a loss made inexact is not known."""
        found = self.process(key)
        if found is None or found.exited_ns is not None or not found.counter_exact:
            return None
        return found.exec_counter

    def lineage(self, key: ProcessKey, limit: int = 32) -> tuple[ProcessRecord, ...]:
        """The process and its ancestors; see ``Recorder``."""
        with self._lock:
            entry = self._find(key)
            if entry is None:
                return ()
            return tuple(self._table.record(each) for each in self._table.ancestors(entry, limit))

    def exec_event(self, key: ProcessKey, exec_counter: int) -> ExecEvent | None:
        """Never known here."""
        del key, exec_counter
        return None

    def connection(self, cookie: int) -> Connection | None:
        """Never known here."""
        del cookie
        return None

    def losses(self) -> Losses:
        """Lost events since the start, of unknown kinds, and how often that happened.

        After a loss this thread visits every CPU for an instant, which makes the number exact.
        """
        with self._lock:
            self._guarded(self._count_losses)
            return Losses(
                exec_events=0, fork_events=0, dirty_epochs=self._table.epoch, unknown_events=self._table.losses
            )

    def close(self) -> None:
        """End the subscription and the thread. Idempotent."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
            self._failure = self._failure or "the recorder was closed"
            os.write(self._waker, b"x")
        self._thread.join()
        self._feed.close()
        os.close(self._wake)
        os.close(self._waker)

    def _find(self, key: ProcessKey) -> Entry | None:
        """The entry of ``key``, from the table or, if no event told of it, from /proc."""
        self._read_all()
        if self._failure:
            return None
        entry = self._table.find(key)
        if entry is None:
            seen = glance.look(key.pid)
            if seen is not None and seen.start_ns == key.start_ns:
                entry = self._table.observe(seen)
        return entry

    def _read_all(self) -> None:
        """Read until the queue is empty, or so much that a storm would hold up the question for ever."""
        self._guarded(self._drain)
        if self._table.dirty and not self._failure:
            with contextlib.suppress(BlockingIOError):
                os.write(self._waker, b"x")

    def _read(self) -> bool:
        """One batch; False when the queue was empty."""
        table = self._table
        table.offset_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        more = self._feed.read(table)
        executed, table.executed = table.executed, []
        for entry in executed[-_IN_TIME:]:
            if entry.exited_ns is None:
                self._look_in_time(entry)
        return more

    def _look_in_time(self, entry: Entry) -> None:
        """The name and claimed image of a program that has just been executed, if it is still there."""
        image = glance.image(entry.pid)
        seen = glance.look(entry.pid, with_uid=False)
        if seen is not None and seen.alive and entry.same_start(seen.start_ns):
            self._table.observe(seen)
            entry.image = image

    def _run(self) -> None:
        """The reading thread."""
        try:
            self._first_look()
            self._started.set()
            poller = select.poll()
            poller.register(self._feed.fileno(), select.POLLIN)
            poller.register(self._wake, select.POLLIN)
            pause = select.poll()
            pause.register(self._wake, select.POLLIN)
            while not self._stopping:
                poller.poll()
                pause.poll(PAUSE_S * 1000)
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake, 4096)
                self._catch_up()
        except OSError as error:
            with self._lock:
                self._fail(error)
        finally:
            if not self._stopping:
                self._failure = self._failure or "the reading thread has ended"
            self._started.set()

    def _first_look(self) -> None:
        """Every CPU speaks, so that losses can be counted, then every process is looked at."""
        with self._lock:
            self._feed.speak()
        self._look_at_all()

    def _catch_up(self) -> None:
        """Read what is queued; after a loss, count it and look through /proc."""
        self._locked(self._count_losses)
        if self._table.dirty and not self._stopping:
            self._look_at_all()

    def _look_at_all(self) -> None:
        epoch = self._table.epoch
        found = glance.pids()
        for start in range(0, len(found), _SLICE):
            self._locked(partial(self._observe, found[start : start + _SLICE]))
            if self._stopping:
                return
        self._locked(partial(self._finish, epoch))

    def _observe(self, part: list[int]) -> None:
        self._drain()
        for pid in part:
            seen = glance.look(pid)
            if seen is not None:
                self._table.observe(seen)

    def _finish(self, epoch: int) -> None:
        """What /proc did not show has ended; the table is whole again unless more was lost meanwhile."""
        self._drain()
        for pid in self._table.unconfirmed():
            seen = glance.look(pid)
            if seen is None:
                self._table.missing(pid, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
            else:
                self._table.observe(seen)
        if self._table.epoch == epoch:
            self._table.dirty = False

    def _count_losses(self) -> None:
        """Read what is queued; after a loss make every CPU speak, which shows what it lost."""
        self._drain()
        if self._feed.silent:
            self._feed.speak()
            self._drain()

    def _drain(self) -> None:
        for _ in range(_BATCHES):
            if not self._read():
                return

    def _locked(self, work: Callable[[], None]) -> None:
        with self._lock:
            work()

    def _guarded(self, read: Callable[[], None]) -> None:
        """Read unless reading failed before; a failure is kept as the state, for good."""
        if self._failure:
            return
        try:
            read()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Answer nothing from now on rather than something old."""
        self._failure = self._failure or f"cannot read process events: {(error.strerror or str(error)).lower()}"
