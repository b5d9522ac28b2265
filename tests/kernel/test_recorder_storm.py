"""Exec storms: every exec is recorded, and every event that is lost is counted."""

from __future__ import annotations

import os
import select
import subprocess
import threading
from pathlib import Path

import pytest

from attestd.kernel.linux.recorder import bpf, pins
from attestd.kernel.linux.recorder.reader import BpfRecorder
from attestd.kernel.linux.recorder.words import decode
from tests.support.recorder import compiled, key_of, recording

pytestmark = pytest.mark.root

ELSEWHERE = 500
"""Other programs of the machine may have executed, and their events been lost, while the ring was full."""


def storm(program: Path, count: int, **options: object) -> None:
    """Execute /bin/true ``count`` times, as fast as one process can."""
    words = [program, str(count), "/bin/true", "storm"]
    done = subprocess.run(words, capture_output=True, check=True, **options)  # type: ignore[call-overload]
    assert int(done.stdout) == count


def taken(reader: BpfRecorder) -> int:
    """How many events of the storm's children the reader holds."""
    with reader._events_lock:
        reader._drain()
        events = [decode(data) for data in reader._store._events.values()]
    return sum(event is not None and event.argv == (b"/bin/true", b"storm") for event in events)


def test_a_storm_with_a_reader(short_tmp: Path):
    """Thousands of execs as fast as they go: each has its words, or is counted as lost."""
    program = compiled("storm.c", short_tmp)
    with recording() as root:
        reader = BpfRecorder.open(root)
        try:
            storm(program, 4000, env={"PADDING": "x" * 400})
            held, losses = taken(reader), reader.losses()
            assert reader._store.forgotten == 0
            assert held <= 4000 <= held + losses.exec_events
            assert losses.fork_events == 0
        finally:
            reader.close()


def test_a_storm_without_a_reader(short_tmp: Path):
    """With nobody to take them the events fill the ring; what did not fit is counted exactly."""
    program = compiled("storm.c", short_tmp)
    count = 4500
    with recording() as root:
        storm(program, count, env={"PADDING": "x" * 2000})
        reader = BpfRecorder.open(root)
        try:
            held, lost = taken(reader), reader.losses().exec_events
            others = len(reader._store) - held
            assert lost > 0
            assert held <= count <= held + lost
            assert held + lost <= count + others + reader._store.forgotten + ELSEWHERE
        finally:
            reader.close()


def test_a_storm_does_not_push_out_the_living(short_tmp: Path):
    """However many processes come and go, a living one keeps its record and its words."""
    program = compiled("storm.c", short_tmp)
    with recording() as root, subprocess.Popen(["/bin/sleep", "100"], env={"MARK": "1"}) as old:
        reader = BpfRecorder.open(root)
        try:
            storm(program, 3000)
            reader._store._events.clear()  # as if it had been a hundred times as many
            record = reader.process(key_of(old.pid))
            assert record is not None
            words = reader.exec_event(record.key, record.exec_counter)
            assert words is not None
            assert words.environ == (b"MARK=1",)
            assert record.parent is not None
            assert record.parent.pid == os.getpid()
        finally:
            old.kill()
            reader.close()


def test_a_reader_that_is_behind_is_woken_now_and_then(short_tmp: Path):
    """A quarter of the ring wakes who sleeps; further execs do so only once in 128 KiB of each processor."""
    program = compiled("storm.c", short_tmp)
    with recording() as root, select.epoll() as waker:
        ring, woken, ended = bpf.pinned(f"{pins.current(root)}/events"), [], threading.Event()

        def count() -> None:
            while not ended.is_set():
                woken.extend(waker.poll(0.05))

        with bpf.closing(ring):
            waker.register(ring, select.EPOLLIN | select.EPOLLET)
            counter = threading.Thread(target=count)
            counter.start()
            storm(program, 300, env={"PADDING": "x" * 1000})  # far from a quarter: others execute meanwhile, too
            early = len(woken)
            storm(program, 3000, env={"PADDING": "x" * 2000})
            ended.set()
            counter.join()
            waker.unregister(ring)
    steps = (8 - 2) * 8 * (os.cpu_count() or 1)
    assert early == 0
    assert 0 < len(woken) <= steps
