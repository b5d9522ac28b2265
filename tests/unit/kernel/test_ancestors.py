"""Chains that go on through dead ancestors, with a recorder that remembers real processes."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from attestd.errors import Cause
from attestd.evidence.recorder import ExecEvent, ImageFacts, ProcessKey, ProcessRecord
from attestd.kernel.linux import chain
from attestd.kernel.linux.reading import Sources
from attestd.kernel.linux.table import ProcessTable
from attestd.kernel.linux.watch import LinuxWatch
from tests.fakes.recorder import FakeRecorder
from tests.support.children import kill_and_wait_gone, running
from tests.support.recorder import key_of

ORPHAN = """
import subprocess, sys, time
print(subprocess.Popen(['/bin/sleep', '600'], start_new_session=True, stdout=subprocess.DEVNULL).pid, flush=True)
sys.stdin.readline()
"""


class Remembering(FakeRecorder):
    """Answers with the records and words that a test gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[ProcessKey, ProcessRecord] = {}
        self.words: dict[ProcessKey, ExecEvent] = {}

    def process(self, key: ProcessKey) -> ProcessRecord | None:
        """By key."""
        return self.records.get(key)

    def exec_counter(self, key: ProcessKey) -> int | None:
        """By key."""
        found = self.records.get(key)
        return None if found is None else found.exec_counter

    def exec_event(self, key: ProcessKey, exec_counter: int) -> ExecEvent | None:
        """By key."""
        del exec_counter
        return self.words.get(key)

    def remember(self, key: ProcessKey, parent: ProcessKey | None, path: Path, *argv: str, counter: int = 3) -> None:
        """A process that executed ``path``."""
        found = path.stat()
        self.records[key] = ProcessRecord(
            key=key,
            parent=parent,
            exec_counter=counter,
            image=ImageFacts(
                dev=found.st_dev, ino=found.st_ino, generation=0, size=found.st_size, ctime_ns=found.st_ctime_ns
            ),
            uid=os.getuid(),
            cgroup_id=0,
            forked_ns=key.start_ns,
            exec_ns=key.start_ns + 1,
            exited_ns=None,
            comm=path.name[:15],
        )
        self.words[key] = ExecEvent(
            key=key,
            exec_counter=counter,
            argv=tuple(word.encode() for word in argv),
            environ=(b"LD_PRELOAD=/x/evil.so",),
            cwd="/",
            cwd_dev=Path("/").stat().st_dev,
            cwd_ino=Path("/").stat().st_ino,
            filename=str(path),
            interp=str(path),
            truncated=False,
            time_ns=key.start_ns + 1,
        )


@pytest.fixture(name="recorder")
def _recorder() -> Remembering:
    return Remembering()


@pytest.fixture(name="watched")
def _watched(sources: Sources, recorder: Remembering) -> ProcessTable:
    return ProcessTable(Sources(sources.files, sources.origins, sources.ours, recorder), 64)


def orphaned() -> tuple[int, ProcessKey]:
    """A process whose parent has exited, and that parent's key."""
    with running(sys.executable, "-I", "-c", ORPHAN) as parent:
        assert parent.stdout is not None
        leaf = int(parent.stdout.readline())
        key = key_of(parent.pid)
    return leaf, key


def test_a_dead_launcher_is_a_link(watched: ProcessTable, recorder: Remembering, tmp_path: Path):
    """The true parent has exited: it stands in the chain as a dead link with its recorded words, and ends it."""
    program = Path(shutil.copy("/bin/sleep", tmp_path / "hidden"))
    leaf, key = orphaned()
    try:
        recorder.remember(key_of(leaf), key, Path("/bin/sleep").resolve(), "/bin/sleep", "600")
        recorder.remember(key, None, program, "hidden", "x")
        links, end = chain.walk(watched, leaf)
        child, dead = (observed.link for observed in links)
        assert (child.recorded, child.reparented, child.forged) == (True, False, "")
        assert (dead.dead, dead.pid, dead.argv, dead.reparented) == (True, key.pid, ("hidden", "x"), True)
        assert dead.exe is not None
        assert (dead.exe.path, dead.exe.writable) == (str(program), True)
        assert dead.posture == ("env LD_PRELOAD=/x/evil.so",)
        assert end == "broken"
        watch = LinuxWatch(links, recorder)
        watch.pin_accountable(1)
        assert watch.verify(leaf) is Cause.UNATTESTABLE
        watch.close()
    finally:
        kill_and_wait_gone(leaf)
        watched.close()


def test_a_replaced_file_is_not_the_launcher(watched: ProcessTable, recorder: Remembering, tmp_path: Path):
    """Another file at the recorded name is not what was executed: no executable, with the reason."""
    program = Path(shutil.copy("/bin/sleep", tmp_path / "hidden"))
    leaf, key = orphaned()
    try:
        recorder.remember(key_of(leaf), key, Path("/bin/sleep").resolve(), "/bin/sleep")
        recorder.remember(key, None, program, "hidden")
        shutil.copy("/bin/true", tmp_path / "other")
        (tmp_path / "other").rename(program)
        links, _ = chain.walk(watched, leaf)
        assert links[1].link.exe is None
        assert any(gap.startswith("exe: ") for gap in links[1].link.gaps)
        chain.release(links)
    finally:
        kill_and_wait_gone(leaf)
        watched.close()


def test_a_forgotten_launcher_breaks_the_chain(watched: ProcessTable, recorder: Remembering):
    """A recorded parent that is neither alive nor remembered leaves an orphan."""
    leaf, key = orphaned()
    try:
        recorder.remember(key_of(leaf), key, Path("/bin/sleep").resolve(), "/bin/sleep")
        links, end = chain.walk(watched, leaf)
        assert (len(links), end, links[0].link.reparented) == (1, "broken", True)
        chain.release(links)
    finally:
        kill_and_wait_gone(leaf)
        watched.close()


def test_a_forged_image_has_no_identity(watched: ProcessTable, recorder: Remembering):
    """The record names another file than /proc: no executable, the shown path, and not recorded."""
    with running("/bin/sleep", "600") as process:
        recorder.remember(key_of(process.pid), None, Path("/bin/true").resolve(), "/bin/sleep")
        links, _ = chain.walk(watched, process.pid)
        link = links[0].link
        assert (link.exe, link.recorded) == (None, False)
        assert link.forged.endswith("sleep")
        chain.release(links)
    watched.close()


def test_a_counter_that_moved_ends_the_session(watched: ProcessTable, recorder: Remembering):
    """Another exec counter is another image; a record that is gone verifies nothing."""
    with running("/bin/sleep", "600") as process:
        key, path = key_of(process.pid), Path("/bin/sleep").resolve()
        recorder.remember(key, None, path, "/bin/sleep")
        links, _ = chain.walk(watched, process.pid)
        watch = LinuxWatch(links, recorder)
        watch.pin_accountable(0)
        assert watch.verify(process.pid) is None
        recorder.remember(key, None, path, "/bin/sleep", counter=4)
        assert watch.verify(process.pid) is Cause.IMAGE_CHANGED
        recorder.records.clear()
        assert watch.verify(process.pid) is Cause.UNATTESTABLE
        watch.close()
    watched.close()
