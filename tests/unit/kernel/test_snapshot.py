from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from attestd.errors import Cause, EvidenceError
from attestd.kernel.linux.access import Access
from attestd.kernel.linux.process import Process
from attestd.kernel.linux.reading import Reading, Sources
from attestd.kernel.linux.snapshot import Snapshot, observe
from tests.support.children import age, copied, python, running

WAIT = "import sys; print('ready', flush=True); sys.stdin.readline()"


def seen(pid: int, sources: Sources) -> Snapshot:
    return observe(Process.open(pid), sources, Access())


def settled(pid: int, sources: Sources) -> Snapshot:
    """A snapshot of a program that has loaded all it needs; a program that says nothing is asked until it rests."""
    for _ in range(10_000):
        snapshot = seen(pid, sources)
        if snapshot.current(Access()):
            return snapshot
        snapshot.process.close()
    pytest.fail("the program never came to rest")


def test_an_unchanged_process_is_current(sources: Sources):
    """What was read still holds while nothing changes."""
    with python(WAIT) as child:
        snapshot = settled(child.pid, sources)
        assert snapshot.current(Access())
        snapshot.process.close()


def test_an_exec_while_reading_is_read_anew(sources: Sources, monkeypatch: pytest.MonkeyPatch):
    """A process that executes another program in the middle is described as what it is afterwards, in every fact."""
    code = "import os,sys; print('ready', flush=True); sys.stdin.readline(); os.execv('/bin/sleep', ['sleep', '100'])"
    with python(code) as child:
        original = Reading.consistent
        attempts = []

        def consistent(reading: Reading) -> bool:
            if not attempts:
                child.stdin.close()
                while reading.process.same_image():
                    os.sched_yield()
            attempts.append(reading.process)
            return original(reading)

        monkeypatch.setattr(Reading, "consistent", consistent)
        snapshot = seen(child.pid, sources)
        snapshot.process.close()
    assert len(attempts) == 2
    assert snapshot.link.comm == "sleep"
    assert snapshot.link.exe is not None
    assert os.path.basename(snapshot.link.exe.path) in {"sleep", "coreutils", "busybox"}


def test_a_process_that_never_rests_is_refused(sources: Sources, monkeypatch: pytest.MonkeyPatch):
    """After three inconsistent readings the cause is INCONSISTENT, and nothing stays open."""
    monkeypatch.setattr(Reading, "consistent", lambda _reading: False)
    before = len(os.listdir("/proc/self/fd"))
    with python(WAIT) as child, pytest.raises(EvidenceError) as refusal:
        seen(child.pid, sources)
    assert refusal.value.cause is Cause.INCONSISTENT
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_that_exits_while_reading_is_gone(sources: Sources, monkeypatch: pytest.MonkeyPatch):
    """An exit in the middle is PEER_GONE."""
    with python(WAIT) as child:
        original = Reading.consistent

        def consistent(reading: Reading) -> bool:
            child.kill()
            child.wait()
            return original(reading)

        monkeypatch.setattr(Reading, "consistent", consistent)
        with pytest.raises(EvidenceError) as refusal:
            seen(child.pid, sources)
    assert refusal.value.cause is Cause.PEER_GONE


def test_a_replaced_path_ends_the_snapshot(sources: Sources, tmp_path: Path):
    """When another file takes the executable's place, the facts are read anew and say deleted."""
    program = copied("sleep", tmp_path)
    age(program)
    with running(str(program), "100") as child:
        snapshot = settled(child.pid, sources)
        other = copied("cat", tmp_path)
        other.rename(program)
        assert not snapshot.current(Access())
        again = seen(child.pid, sources)
        snapshot.process.close()
        again.process.close()
    assert again.link.exe is not None
    assert again.link.exe.deleted
    assert snapshot.link.exe is not None
    assert again.link.exe.sha256 == snapshot.link.exe.sha256


@pytest.mark.root
def test_a_change_of_power_to_write_ends_the_snapshot(sources: Sources, tmp_path: Path):
    """A directory above the executable that becomes writable is noticed at the next look."""
    home = tmp_path / "home"
    home.mkdir()
    program = copied("sleep", home)
    age(program)
    with running(str(program), "100") as child:
        snapshot = settled(child.pid, sources)
        assert snapshot.link.exe is not None
        if snapshot.link.exe.writable:
            pytest.skip("the temporary directory is writable by this user anyway")
        home.chmod(0o777)
        assert not snapshot.current(Access())
        snapshot.process.close()


def test_a_young_executable_is_never_current(sources: Sources, tmp_path: Path):
    """Until ctime is two seconds old everything is read each time."""
    program = copied("sleep", tmp_path)
    with running(str(program), "100") as child:
        snapshot = seen(child.pid, sources)
        assert not snapshot.current(Access())
        snapshot.process.close()


def test_a_changed_script_ends_the_snapshot(sources: Sources, tmp_path: Path):
    """An edited script is read anew and found younger than its process."""
    script = tmp_path / "s.py"
    script.write_text(WAIT)
    age(script)
    with running(sys.executable, str(script)) as child:
        child.stdout.readline()
        first = seen(child.pid, sources)
        held = first.current(Access())
        script.write_text(WAIT + "\n# changed")
        assert not first.current(Access())
        second = seen(child.pid, sources)
        first.process.close()
        second.process.close()
    assert held
    assert first.link.script is not None
    assert second.link.script is not None
    assert first.link.script.sha256 != second.link.script.sha256
    assert (first.link.script.younger_than_process, second.link.script.younger_than_process) == (False, True)


def test_new_code_in_memory_ends_the_snapshot(sources: Sources):
    """A library loaded after the first look is looked at."""
    code = f"{WAIT}; import _decimal; print('done', flush=True); sys.stdin.readline()"
    with python(code) as child:
        snapshot = seen(child.pid, sources)
        child.stdin.write("\n")
        child.stdin.flush()
        child.stdout.readline()
        assert not snapshot.current(Access())
        snapshot.process.close()
