from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

import pytest

from attestd.evidence.recorder import ProcessKey
from attestd.kernel.linux.connector import glance
from attestd.kernel.linux.connector.recorder import ConnectorRecorder
from tests.support.children import running
from tests.support.puppets import Stage


@pytest.fixture(name="recorder")
def _recorder() -> Iterator[ConnectorRecorder]:
    with contextlib.closing(ConnectorRecorder()) as made:
        yield made


def key_of(pid: int) -> ProcessKey:
    seen = glance.look(pid)
    assert seen is not None
    return ProcessKey(pid, seen.start_ns)


def test_processes_that_were_there_are_known(recorder: ConnectorRecorder):
    """We are older than the recorder: known, marked, and the end of our own lineage."""
    own = recorder.process(key_of(os.getpid()))
    assert own is not None
    assert (own.pre_attach, own.uid, own.image) == (True, os.getuid(), None)
    assert [record.key.pid for record in recorder.lineage(own.key)] == [os.getpid()]


def test_an_image_that_was_read_in_time_is_a_claim(recorder: ConnectorRecorder):
    """A program that runs on gets its name and inode, marked as claimed."""
    with running("sleep", "100") as child:
        deadline = time.monotonic() + 5
        record = recorder.process(key_of(child.pid))
        while record is not None and record.image is None and time.monotonic() < deadline:
            time.sleep(0.001)
            record = recorder.process(key_of(child.pid))
        facts = os.stat(f"/proc/{child.pid}/exe")
    assert record is not None
    assert record.image is not None
    assert (record.comm, record.image_claimed) == ("sleep", True)
    assert (record.image.dev, record.image.ino) == (facts.st_dev, facts.st_ino)


def test_questions_from_several_threads_are_answered(recorder: ConnectorRecorder):
    """The table is read and written under one lock."""
    own = key_of(os.getpid())
    wrong: list[int] = []

    def ask() -> None:
        wrong.extend(1 for _ in range(200) if recorder.process(own) is None or not recorder.lineage(own))

    askers = [threading.Thread(target=ask) for _ in range(4)]
    with Stage() as stage:
        puppet = stage.enter()
        for asker in askers:
            asker.start()
        puppet.tell("forks 50")
        for asker in askers:
            asker.join()
    assert wrong == []


def test_a_closed_recorder_knows_nothing(recorder: ConnectorRecorder):
    """It says so, and closing twice is fine."""
    key = key_of(os.getpid())
    recorder.close()
    recorder.close()
    assert recorder.state() == ("absent", "the recorder was closed")
    assert recorder.process(key) is None
    assert recorder.lineage(key) == ()
    assert recorder.losses().unknown_events >= 0


def test_a_recorder_that_cannot_read_any_more_says_so(recorder: ConnectorRecorder, monkeypatch: pytest.MonkeyPatch):
    """It answers nothing rather than something old."""

    def fail(_sink: object) -> bool:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(recorder._feed, "read", fail)
    assert recorder.process(key_of(os.getpid())) is None
    assert recorder.state() == ("absent", "cannot read process events: input/output error")


def test_the_thread_ends_with_the_recorder():
    """No descriptor and no thread is left."""
    before = set(os.listdir("/proc/self/fd"))
    recorder = ConnectorRecorder()
    recorder.close()
    assert not recorder._thread.is_alive()
    assert set(os.listdir("/proc/self/fd")) == before


def test_memory_stays_within_the_limit():
    """Dead processes make room, living ancestors stay."""
    with contextlib.closing(ConnectorRecorder(limit=600)) as recorder, Stage() as stage:
        parent = stage.enter()
        child = parent.fork()
        child.tell("forks 700")
        chain = recorder.lineage(ProcessKey(child.pid, child.start_ns))
        assert [record.key.pid for record in chain][:2] == [child.pid, parent.pid]
        assert len(recorder._table) == 600
