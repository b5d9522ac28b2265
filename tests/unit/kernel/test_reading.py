from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest

from attestd.evidence.model import Link
from attestd.kernel.linux.access import Access
from attestd.kernel.linux.process import Process
from attestd.kernel.linux.reading import Sources
from attestd.kernel.linux.snapshot import observe
from tests.support.children import copied, expect_ready, needs_root, needs_userns, python, running

WAIT = "import sys; print('ready', flush=True); sys.stdin.readline()"


def seen(pid: int, sources: Sources) -> Link:
    snapshot = observe(Process.open(pid), sources, Access())
    snapshot.process.close()
    return snapshot.link


def test_a_link_holds_the_facts_of_its_process(sources: Sources):
    """Ids, parent, session, arguments and the digest of the executable are the process's own."""
    with python(WAIT, start_new_session=True) as child:
        link = seen(child.pid, sources)
    executable = Path(sys.executable).resolve()
    assert (link.pid, link.ppid, link.session) == (child.pid, os.getpid(), child.pid)
    assert link.uids == (os.getuid(),) * 4
    assert link.exe is not None
    assert link.exe.path == str(executable)
    assert link.exe.sha256 == hashlib.sha256(executable.read_bytes()).hexdigest()
    assert link.argv[1:3] == ("-I", "-c")
    assert (link.tty, link.tracer_pid, link.gaps) == (None, 0, ())
    assert link.namespaces.ours_user
    assert link.namespaces.ours_pid
    assert link.namespaces.ours_mnt


def test_arguments_are_bounded(sources: Sources):
    """At most 64 arguments of 4096 characters; bytes that are no UTF-8 are replaced."""
    arguments = ["x" * 5000, os.fsdecode(b"\xff"), *map(str, range(100))]
    with python(WAIT, *arguments) as child:
        link = seen(child.pid, sources)
    assert len(link.argv) == 64
    assert link.argv[4:6] == ("x" * 4096, "\ufffd")


def test_a_terminal_is_named(sources: Sources):
    """The controlling terminal of a session leader is shown."""
    master, slave = os.openpty()
    name = os.ttyname(slave)
    code = f"import fcntl, termios; fcntl.ioctl({slave}, termios.TIOCSCTTY, 0); {WAIT}"
    with python(code, pass_fds=[slave], start_new_session=True) as child:
        link = seen(child.pid, sources)
    os.close(master)
    os.close(slave)
    assert link.tty == name.removeprefix("/dev/")


def test_preloads_are_posture(sources: Sources):
    """A preload in the environment is seen."""
    with python(WAIT, env={"LD_PRELOAD": "libc.so.6"}) as child:
        link = seen(child.pid, sources)
    assert any("LD_PRELOAD" in word for word in link.posture)


@pytest.mark.ordinary
def test_an_executable_that_may_not_be_read_is_a_gap(sources: Sources):
    """A process of another user leaves gaps with reasons, not an error."""
    link = seen(1, sources)
    assert link.exe is None
    assert any(gap.startswith("exe: ") for gap in link.gaps)


@pytest.mark.root
def test_the_power_of_every_identity_counts(sources: Sources, tmp_path: Path):
    """With two uids, the executable is writable if either may write it."""
    needs_root()
    tmp_path.chmod(0o755)
    if not os.access("/usr/bin/python3", os.X_OK):
        pytest.skip("no program that can be copied")
    program = copied("/usr/bin/python3", tmp_path, "python3")
    os.chown(program, 54322, 0)
    code = "import os,sys; os.setresuid(54321, 54322, 54322); print('ready', flush=True); sys.stdin.readline()"
    with running(str(program), "-I", "-S", "-c", code) as child:
        expect_ready(child)
        link = seen(child.pid, sources)
    assert link.uids == (54321, 54322, 54322, 54322)
    assert link.exe is not None
    assert link.exe.writable


def test_foreign_namespaces_are_told(sources: Sources):
    """A process in its own user, pid and mount namespaces is marked so, with the uid that we see."""
    needs_userns()
    with running("unshare", "-Urmpf", "--kill-child", sys.executable, "-I", "-c", WAIT) as outer:
        outer.stdout.readline()
        inner = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()[0])
        link = seen(inner, sources)
    assert link.uids[0] == os.getuid()
    assert (link.namespaces.ours_user, link.namespaces.ours_pid, link.namespaces.ours_mnt) == (False, False, False)
