from __future__ import annotations

import os
import subprocess
import sys

import pytest

from attestd.errors import Cause, EvidenceError
from attestd.kernel.linux import process as module
from attestd.kernel.linux.process import Process
from tests.support.children import python

EXEC = "import os,sys; print('ready', flush=True); sys.stdin.readline(); os.execv('/bin/sleep', ['sleep', '100'])"
WAIT = "import sys; print('ready', flush=True); sys.stdin.readline()"


def test_reads_are_of_the_process():
    """Status, stat, argv, environment and links are those of the process held."""
    with python(WAIT, "a b", "", env={"X": "1=2"}) as child, Process.open(child.pid) as process:
        assert process.status().ppid == os.getpid() == process.ppid()
        assert process.stat().start_ticks == process.start_ticks > 0
        assert process.argv()[-2:] == ("a b", "")
        assert process.environ() == {"X": "1=2"}
        assert process.readlink("exe") == os.path.realpath(sys.executable)
        assert process.exists()
        assert process.same_image()
        assert not process.exited()
        assert process.thread_tracers() == ()


def test_an_exec_ends_the_image_not_the_process():
    """After an exec the process exists and its image is no longer the same."""
    with python(EXEC) as child, Process.open(child.pid) as process:
        child.stdin.close()
        while process.same_image():
            os.sched_yield()
        assert process.exists()
        assert not process.exited()


def test_an_exit_ends_everything():
    """After exit and reaping nothing is readable and the parent cannot be asked."""
    with python(WAIT) as child, Process.open(child.pid) as process:
        child.kill()
        child.wait()
        assert process.exited()
        assert not process.exists()
        assert not process.same_image()
        with pytest.raises(ProcessLookupError):
            process.status()
        with pytest.raises(ProcessLookupError):
            process.ppid()


def test_a_zombie_owns_its_pid_without_an_image():
    """Exited but not reaped: it exists, has exited and has no image."""
    with python(WAIT) as child, Process.open(child.pid) as process:
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process.exists()
        assert process.exited()
        assert not process.same_image()
        assert process.status().zombie


def test_a_pid_of_nobody_is_peer_gone():
    """Opening a reaped pid is refused with PEER_GONE."""
    child = subprocess.Popen([sys.executable, "-I", "-c", ""])
    child.wait()
    with pytest.raises(EvidenceError) as refusal:
        Process.open(child.pid)
    assert refusal.value.cause is Cause.PEER_GONE


def test_a_pidfd_taken_over_is_closed_on_failure():
    """The descriptor that was handed in does not leak when the process is gone."""
    child = subprocess.Popen([sys.executable, "-I", "-c", ""])
    pidfd = os.pidfd_open(child.pid)
    child.wait()
    with pytest.raises(EvidenceError):
        Process.open(child.pid, pidfd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pidfd)


def test_the_last_user_closes():
    """A handle with two users stays usable until both have given it up."""
    before = len(os.listdir("/proc/self/fd"))
    process = Process.open(os.getpid())
    process.retain()
    process.close()
    assert process.exists()
    process.close()
    assert len(os.listdir("/proc/self/fd")) == before


TWO = """
import sys, threading
threading.Thread(target=sys.stdin.readline).start()
print('ready', flush=True); sys.stdin.readline()
"""


@pytest.mark.parametrize("links", [True, False])
def test_a_second_thread_is_counted(monkeypatch: pytest.MonkeyPatch, links: bool):
    """One thread is alone, two are not, by the links of the directory and by the status."""
    monkeypatch.setattr(module, "_links_count_threads", lambda: links)
    with python(WAIT) as one, python(TWO) as two, Process.open(one.pid) as single, Process.open(two.pid) as double:
        assert single.alone()
        assert not double.alone()
        one.kill()
        one.wait()
        with pytest.raises(OSError, match="No such"):
            single.alone()


def test_links_are_tried_out_on_ourselves(monkeypatch: pytest.MonkeyPatch):
    """This kernel counts threads as links; one that showed a fixed number would not be believed."""
    assert module._links_count_threads()
    module._links_count_threads.cache_clear()
    fixed = os.stat_result((0, 0, 0, 3, 0, 0, 0, 0, 0, 0))
    monkeypatch.setattr(module.os, "stat", lambda *_, **__: fixed)
    assert not module._links_count_threads()
    monkeypatch.undo()
    module._links_count_threads.cache_clear()
