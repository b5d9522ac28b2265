"""The kernel recorder against real processes: what it says is what happened, whatever the processes do afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.evidence.recorder import ExecEvent, ImageFacts, ProcessKey, ProcessRecord
from attestd.kernel.linux.recorder.reader import BpfRecorder
from tests.support.children import copied, expect_ready, kill_and_wait_gone, python, running
from tests.support.recorder import compiled, eventually, key_of, recording

pytestmark = pytest.mark.root


@pytest.fixture(name="recorder", scope="module")
def _recorder() -> Iterator[BpfRecorder]:
    with recording() as root:
        reader = BpfRecorder.open(root)
        yield reader
        reader.close()


def record_of(recorder: BpfRecorder, pid: int) -> ProcessRecord:
    record = recorder.process(key_of(pid))
    assert record is not None
    return record


def words_of(recorder: BpfRecorder, pid: int) -> ExecEvent:
    record = record_of(recorder, pid)
    event = recorder.exec_event(record.key, record.exec_counter)
    assert event is not None
    return event


def is_file(image: ImageFacts | None, path: str | Path) -> bool:
    found = os.stat(path)
    return image is not None and (image.dev, image.ino, image.size) == (found.st_dev, found.st_ino, found.st_size)


def test_image_parent_and_owner_of_a_child(recorder: BpfRecorder):
    """A child's record names its executable's inode, its creator and its user."""
    sleep = os.path.realpath("/bin/sleep")
    with running("/bin/sleep", "100", user=60001, group=60001) as child:
        record = eventually(lambda: (r := record_of(recorder, child.pid)).exec_ns > r.forked_ns and r)
        assert is_file(record.image, sleep)
        assert record.image is not None
        assert record.image.ctime_ns == os.stat(sleep).st_ctime_ns
        assert record.uid == 60001
        assert record.comm == "sleep"
        assert record.parent is not None
        assert record.parent.pid == os.getpid()
        assert (record.pre_attach, record.gap, record.image_claimed, record.exited_ns) == (False, False, False, None)


def test_exit_is_recorded(recorder: BpfRecorder):
    """A dead process keeps its record, with the time of its end, also when it has been reaped."""
    with running("/bin/sleep", "100") as child:
        key = record_of(recorder, child.pid).key
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    record = recorder.process(key)
    assert record is not None
    assert record.exited_ns is not None
    assert record.exited_ns >= before
    assert record.key == key


def test_older_processes_are_marked(recorder: BpfRecorder):
    """A process that is older than the recorder has a record, marked, whose image is a claim; lineage ends there."""
    record = record_of(recorder, os.getpid())
    assert record.pre_attach
    assert record.image_claimed
    assert is_file(record.image, "/proc/self/exe")
    assert recorder.lineage(record.key) == (record,)


def test_lineage_through_dead_ancestors(recorder: BpfRecorder):
    """After a double fork the kernel says init; the recorder says who it was, though all of them are dead."""
    script = "(setsid sh -c 'sleep 100 >/dev/null 2>&1 & echo $!' &) ; exit 0"
    out = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, timeout=20)
    pid = int(out.stdout)
    try:
        eventually(lambda: all(each.exited_ns for each in recorder.lineage(key_of(pid))[1:-1]))
        lineage = recorder.lineage(key_of(pid))
        assert lineage[-1].key.pid == os.getpid()
        ancestors = lineage[1:-1]
        assert len(ancestors) >= 2
        assert all(each.exited_ns is not None for each in ancestors)
        assert all(is_file(each.image, os.path.realpath("/bin/sh")) for each in ancestors)
    finally:
        kill_and_wait_gone(pid)


def test_exec_of_the_same_binary_counts(recorder: BpfRecorder):
    """Executing the same file again changes nothing but the counter, the time and the words."""
    with python(
        "import os, sys; print('ready', flush=True); sys.stdin.readline();"
        "os.execv(sys.executable, [sys.executable, '-Ic', 'print(1, flush=True); input()'])"
    ) as child:
        before = record_of(recorder, child.pid)
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
        assert child.stdout is not None
        child.stdout.readline()
        after = record_of(recorder, child.pid)
        assert after.exec_counter == before.exec_counter + 1
        assert (after.image, after.key, after.parent) == (before.image, before.key, before.parent)
        assert after.exec_ns > before.exec_ns
        assert recorder.exec_event(after.key, before.exec_counter) is not None


def test_exec_from_a_thread(recorder: BpfRecorder):
    """A thread that executes takes over the process: same key, new image, not an exit."""
    code = (
        "import os, threading\nprint('ready', flush=True); input()\n"
        "threading.Thread(target=os.execv, args=('/bin/sleep', ['sleep', '100'])).start()\n"
        "threading.Event().wait()"
    )
    with python(code) as child:
        before = record_of(recorder, child.pid)
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
        after = eventually(lambda: (r := record_of(recorder, child.pid)).comm == "sleep" and r)
        assert after.exited_ns is None
        assert after.key == before.key
        assert after.exec_counter == before.exec_counter + 1
        assert is_file(after.image, os.path.realpath("/bin/sleep"))
        assert words_of(recorder, child.pid).argv == (b"sleep", b"100")


def test_threads_are_not_processes(recorder: BpfRecorder):
    """The end of a thread does not end the process, and a thread has no record."""
    code = (
        "import threading, time\nt = threading.Thread(target=lambda: print(threading.get_native_id(), flush=True))\n"
        "t.start(); t.join(); print('done', flush=True); input()"
    )
    with running(sys.executable, "-I", "-c", code) as child:
        assert child.stdout is not None
        tid = int(child.stdout.readline())
        child.stdout.readline()
        assert record_of(recorder, child.pid).exited_ns is None
        started = record_of(recorder, child.pid).key.start_ns // 10_000_000
        assert not any(recorder.process(ProcessKey(tid, (started + i) * 10_000_000)) for i in range(200))


def test_clone_parent_does_not_hide_the_creator(recorder: BpfRecorder):
    """With CLONE_PARENT the kernel names the grandparent; the record names who created it."""
    code = (
        "import ctypes, os, sys, time\n"
        "pid = ctypes.CDLL(None).syscall(56, 0x8000 | 17, 0, 0, 0, 0)\n"
        "if pid == 0:\n os.execv('/bin/sleep', ['sleep', '100'])\n"
        "print(pid, flush=True); sys.stdin.readline()"
    )
    if os.uname().machine != "x86_64":
        pytest.skip("the number of clone is that of x86_64")
    with running(sys.executable, "-I", "-c", code) as child:
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        try:
            assert int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == os.getpid()
            parent = record_of(recorder, pid).parent
            assert parent is not None
            assert parent.pid == child.pid
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_forged_exe_is_refuted(recorder: BpfRecorder, short_tmp: Path):
    """B4: /proc/PID/exe names another program, without privilege; the record names the one that was executed."""
    forge = compiled("forge.c", short_tmp, name="forge")
    short_tmp.chmod(0o755)
    genuine = copied("sleep", short_tmp, "genuine")
    listener = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen();"
        "import os; os.chmod(sys.argv[1], 0o777); print('ready', flush=True); c = s.accept(); print('in', flush=True);"
        "sys.stdin.readline()"
    )
    path = str(short_tmp / "s")
    with running(sys.executable, "-I", "-c", listener, path) as server:
        expect_ready(server)
        with running(str(forge), str(genuine), path, user=60001, group=60001, extra_groups=[]) as forger:
            code = None
            ready = False
            while not ready and code is None:
                ready = os.path.realpath(f"/proc/{forger.pid}/exe") == str(genuine)
                code = forger.poll()
            if code == 77:
                pytest.skip("the executable cannot be forged here")
            assert os.path.samefile(f"/proc/{forger.pid}/exe", genuine)
            record = record_of(recorder, forger.pid)
            assert is_file(record.image, forge)
            assert not record.image_claimed
            assert words_of(recorder, forger.pid).filename == str(forge)


REWRITE = """
import sys
f = open('/proc/self/stat').read().rpartition(')')[2].split()
start, end = int(f[45]), int(f[48])
with open('/proc/self/mem', 'r+b', buffering=0) as memory:
    memory.seek(start); memory.write(b'x' * (end - start))
print('ready', flush=True); sys.stdin.readline()
"""


def test_rewritten_argv_and_environment(recorder: BpfRecorder):
    """A process that overwrites its argv and environment is still known by the words it was executed with."""
    with python(REWRITE, "secret-argument", env={"LD_BIND_NOW": "1", "MARK": "true"}) as child:
        assert set(Path(f"/proc/{child.pid}/environ").read_bytes()) == {ord("x")}
        words = words_of(recorder, child.pid)
        assert words.argv == (sys.executable.encode(), b"-I", b"-c", REWRITE.encode(), b"secret-argument")
        assert set(words.environ) == {b"LD_BIND_NOW=1", b"MARK=true"}
        assert not words.truncated


def test_a_changed_directory(recorder: BpfRecorder, short_tmp: Path):
    """The directory is that of the moment of the exec, whatever the process does later."""
    deep = short_tmp / "a directory" / "b" / "ümlaut"
    deep.mkdir(parents=True)
    with python("import os, sys; os.chdir('/'); print('ready', flush=True); sys.stdin.readline()", cwd=deep) as child:
        words = words_of(recorder, child.pid)
        assert words.cwd == str(deep)
        assert (words.cwd_dev, words.cwd_ino) == (deep.stat().st_dev, deep.stat().st_ino)


@pytest.mark.parametrize("directory", ["/", "/proc/sys/kernel", "/sys/fs/bpf", "/dev"])
def test_directories_of_other_mounts(recorder: BpfRecorder, directory: str):
    """Paths are followed across mounts, up to the root of the process."""
    with running("/bin/sleep", "100", cwd=directory) as child:
        eventually(lambda: record_of(recorder, child.pid).comm == "sleep")
        assert words_of(recorder, child.pid).cwd == directory


def test_a_path_too_long_is_marked(recorder: BpfRecorder, short_tmp: Path):
    """A directory that does not fit is not half told: it is empty, and the event is marked; the inode is right."""
    deep = short_tmp
    for _ in range(8):
        deep = deep / ("d" * 200)
    deep.mkdir(parents=True)
    with running("/bin/sleep", "100", cwd=deep) as child:
        eventually(lambda: record_of(recorder, child.pid).comm == "sleep")
        words = words_of(recorder, child.pid)
        assert (words.cwd, words.truncated, words.cwd_ino) == ("", True, deep.stat().st_ino)
        assert words.argv == (b"/bin/sleep", b"100")


def test_a_script_with_a_first_line(recorder: BpfRecorder, short_tmp: Path):
    """For a script the file name is the script's, the interpreter's path and image are the interpreter's."""
    script = short_tmp / "script"
    script.write_text("#!/bin/sh -e\necho ready\nread x\n")
    script.chmod(0o755)
    with running(str(script), "word") as child:
        expect_ready(child)
        words = words_of(recorder, child.pid)
        assert (words.filename, words.interp) == (str(script), "/bin/sh")
        assert words.argv == (b"/bin/sh", b"-e", str(script).encode(), b"word")
        assert is_file(record_of(recorder, child.pid).image, os.path.realpath("/bin/sh"))


def test_long_words_are_cut_and_marked(recorder: BpfRecorder):
    """More than 1 KiB of argv or 6 KiB of environment is cut, and which of them is said; less is whole."""
    with running("/bin/sleep", "100", "0" * 2000, env={}) as child:
        eventually(lambda: record_of(recorder, child.pid).comm == "sleep")
        words = words_of(recorder, child.pid)
        assert (words.argv_truncated, words.environ_truncated, words.truncated) == (True, False, True)
        assert sum(len(word) + 1 for word in words.argv) == 1025
    for length, cut in ((3000, False), (6144 - len("A=1\0LONG=\0"), False), (6144, True)):
        with running("/bin/sleep", "100", env={"A": "1", "LONG": "x" * length}) as child:
            eventually(lambda: record_of(recorder, child.pid).comm == "sleep")
            words = words_of(recorder, child.pid)
            assert (words.argv_truncated, words.environ_truncated) == (False, cut)
            assert b"A=1" in words.environ
            assert (b"LONG=" + b"x" * length in words.environ) is not cut


def test_what_is_kept_is_less_than_its_event(recorder: BpfRecorder):
    """Who did not take the event knows less of a large environment, and that it is not all; the rest is whole."""
    env = {f"V{number:03}": "x" * 95 for number in range(50)}
    with running("/bin/sleep", "100", "100", env=env) as child:
        eventually(lambda: record_of(recorder, child.pid).comm == "sleep")
        whole = words_of(recorder, child.pid)
        recorder._store._events.clear()
        carried = words_of(recorder, child.pid)
    assert (whole.environ_truncated, len(whole.environ)) == (False, 50)
    assert (carried.environ_truncated, carried.argv_truncated) == (True, False)
    assert (carried.argv, carried.cwd, carried.filename) == (whole.argv, whole.cwd, whole.filename)
    assert 20 < len(carried.environ) < 50
    assert carried.environ[:-1] == whole.environ[: len(carried.environ) - 1]


def test_a_fork_has_its_ancestors_words(recorder: BpfRecorder):
    """A process that was forked and executed nothing runs its parent's image, and has its words."""
    code = (
        "import os, sys\npid = os.fork()\n"
        "if pid == 0:\n sys.stdin.readline(); os._exit(0)\n"
        "print(pid, flush=True); os.waitpid(pid, 0)"
    )
    with running(sys.executable, "-I", "-c", code) as child:
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        record, parent = record_of(recorder, pid), record_of(recorder, child.pid)
        assert (record.image, record.exec_counter) == (parent.image, parent.exec_counter)
        assert record.exec_ns < record.forked_ns
        words = recorder.exec_event(record.key, record.exec_counter)
        assert words is not None
        assert words.key == parent.key
        assert words.argv[0] == sys.executable.encode()
        assert child.stdin is not None
        child.stdin.write("end\n")
        child.stdin.flush()
        child.wait(10)


def test_a_process_gone_before_it_could_be_read(recorder: BpfRecorder):
    """A program that has exited already has its image, its words and its lineage."""
    marker = f"gone-{time.monotonic_ns()}"
    pid = os.posix_spawn(shutil.which("true") or "/bin/true", ["true", marker], {})
    os.waitpid(pid, 0)
    tick = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 10_000_000
    record = next(
        r for back in range(300) if (r := recorder.process(ProcessKey(pid, (tick - back) * 10_000_000))) is not None
    )
    assert record.exited_ns is not None
    words = recorder.exec_event(record.key, record.exec_counter)
    assert words is not None
    assert words.argv == (b"true", marker.encode())
    assert [each.key.pid for each in recorder.lineage(record.key)] == [pid, os.getpid()]


def test_another_process_of_the_same_tick_is_not_it(recorder: BpfRecorder):
    """A key exact to the nanosecond finds only that process; the key that /proc gives finds the one of its tick."""
    with running("/bin/sleep", "100") as child:
        record = record_of(recorder, child.pid)
        assert recorder.process(record.key) is not None
        assert recorder.process(ProcessKey(child.pid, record.key.start_ns + 1)) is None
        assert recorder.process(ProcessKey(child.pid, record.key.start_ns + 10_000_000)) is None
