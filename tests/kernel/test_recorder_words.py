"""The words of the living: in places made beforehand, given back at exit; carried by the task when no place is left."""

from __future__ import annotations

import errno
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.evidence.recorder import ExecEvent, ProcessKey
from attestd.kernel.linux.recorder import bpf, layout
from attestd.kernel.linux.recorder.reader import BpfRecorder
from tests.support.children import python, running
from tests.support.recorder import compiled, eventually, key_of, recording

pytestmark = pytest.mark.root

ARGV = (b"/bin/sleep", b"100")
TASK_STORAGE = frozenset({"BPF_MAP_TYPE_TASK_STORAGE"})


@pytest.fixture(name="reader")
def _reader(request: pytest.FixtureRequest) -> Iterator[BpfRecorder]:
    """Who takes no events: what it knows of words, the living keep."""
    with recording(absent=getattr(request, "param", frozenset())) as root:
        reader = BpfRecorder.open(root, consume=False)
        yield reader
        reader.close()


def words_of(reader: BpfRecorder, pid: int) -> ExecEvent | None:
    """The words of a child, once it is seen to run /bin/sleep."""
    record = eventually(lambda: (r := reader.process(key_of(pid))) and r.comm == "sleep" and r)
    return reader.exec_event(record.key, record.exec_counter)


def has_place(reader: BpfRecorder, key: ProcessKey) -> bool:
    """Whether words stand under that key."""
    try:
        bpf.map_get(reader._fds["words_of_living"], layout.map_key(key), layout.WORDS_BYTES)
    except FileNotFoundError:
        return False
    return True


def placed(places: int, key: bytes) -> bool:
    """Take a place; False if there is none left."""
    try:
        bpf.map_set(places, key, bytes(layout.WORDS_BYTES))
    except OSError as error:
        assert error.errno == errno.E2BIG  # noqa: PT017 - anything else is a fault of the test
        return False
    return True


def take_every_place(reader: BpfRecorder) -> None:
    """Fill the table with processes that there are not, until it refuses."""
    places = bpf.pinned(f"{reader._directory}/words_of_living")
    count = bpf.map_shape(places)[3]
    with bpf.closing(places):
        keys = (struct.pack("<QII", 1, number, 0) for number in range(count + 1))
        assert not all(placed(places, key) for key in keys)


def test_a_place_is_given_back_at_exit(reader: BpfRecorder):
    """A living process has a place, a dead one has none."""
    with running("/bin/sleep", "100") as child:
        words = words_of(reader, child.pid)
        key = key_of(child.pid)
        assert words is not None
        assert words.argv == ARGV
        assert has_place(reader, key)
    eventually(lambda: not has_place(reader, key))


def test_every_exec_replaces_the_words(reader: BpfRecorder):
    """A process that executes again has the words of the last exec in its one place."""
    code = "import os, sys; print('ready', flush=True); sys.stdin.readline(); os.execv('/bin/sleep', ['sleep', '99'])"
    with python(code) as child:
        key = key_of(child.pid)
        before = reader.process(key)
        assert before is not None
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
        words = words_of(reader, child.pid)
        assert words is not None
        assert words.argv == (b"sleep", b"99")
        assert reader.exec_event(before.key, before.exec_counter) is None
    eventually(lambda: not has_place(reader, key))


def test_the_dead_take_no_place(reader: BpfRecorder, short_tmp: Path):
    """More processes than there are places come and go, and the next one still finds one."""
    subprocess.run([compiled("storm.c", short_tmp), "3000", "/bin/true"], check=True, capture_output=True)
    with running("/bin/sleep", "100") as child:
        assert words_of(reader, child.pid) is not None
        assert has_place(reader, key_of(child.pid))
    assert reader.lost()[layout.LOST_WORDS] == 0


def test_without_a_place_the_task_carries_them(reader: BpfRecorder):
    """When every place is taken the words are known all the same, and nothing is counted as lost."""
    take_every_place(reader)
    with running("/bin/sleep", "100") as child:
        words = words_of(reader, child.pid)
        assert words is not None
        assert words.argv == ARGV
        assert not has_place(reader, key_of(child.pid))
    assert reader.lost()[layout.LOST_WORDS] == 0


@pytest.mark.parametrize("reader", [TASK_STORAGE], indirect=True)
def test_an_older_kernel_keeps_words_while_there_are_places(reader: BpfRecorder):
    """Without task storage the words of the living are known up to the number of places; then each loss is counted."""
    with running("/bin/sleep", "100") as first:
        words = words_of(reader, first.pid)
        assert words is not None
        assert words.argv == ARGV
        take_every_place(reader)
        lost = reader.lost()[layout.LOST_WORDS]
        with running("/bin/sleep", "100") as second:
            assert words_of(reader, second.pid) is None
        assert reader.lost()[layout.LOST_WORDS] > lost
        assert words_of(reader, first.pid) == words
