"""The kernel facts behind tests/attacks, with real processes: the evidence must be the truth about the running
image."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attestd.errors import Cause, EvidenceError
from attestd.evidence.model import Evidence, FileFacts, Peer
from attestd.kernel.linux import peer as peer_module
from attestd.kernel.linux.kernel import LinuxKernel
from tests.support.children import (
    age,
    copied,
    expect_ready,
    kill_and_wait_gone,
    listening,
    needs_root,
    needs_userns,
    python,
    running,
)

WAIT = "import sys; print('ready', flush=True); sys.stdin.readline()"
CONNECT = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.set_inheritable(True)
print('ready', flush=True); word = sys.stdin.readline().strip()
if word == 'exec': os.execv('/bin/sleep', ['sleep', '100'])
"""


@pytest.fixture(name="kernel")
def _kernel() -> Iterator[LinuxKernel]:
    kernel = LinuxKernel()
    yield kernel
    kernel.close()


def sha256(path: Path | str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def evidence_of(kernel: LinuxKernel, pid: int) -> Evidence:
    collected = kernel.collect_pid(pid)
    collected.watch.close()
    return collected.evidence


def exe_of(kernel: LinuxKernel, pid: int) -> FileFacts:
    exe = evidence_of(kernel, pid).chain[0].exe
    assert exe is not None
    return exe


@contextmanager
def connected(tmp_path: Path) -> Iterator[tuple[socket.socket, subprocess.Popen[str]]]:
    with listening(tmp_path) as (listener, path), python(CONNECT, path) as child:
        connection, _ = listener.accept()
        with connection:
            yield connection, child


def fork_as(wanted: int) -> int:
    """Make a process with this very pid (root): it sleeps until killed. Gives up when others are faster."""
    for _ in range(200):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(wanted - 1))
        pid = os.posix_spawn("/bin/sleep", ["sleep", "100"], os.environ)
        if pid == wanted:
            return pid
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    pytest.skip("the pid could not be had again")


@pytest.mark.root
def test_a_reused_pid_is_not_the_peer(kernel: LinuxKernel, tmp_path: Path):
    """I4: the peer's pid belongs to another process now; attestation refuses, and so does a watch of the old one."""
    needs_root()
    with connected(tmp_path) as (connection, child):
        seen = kernel.peer(connection.fileno())
        collected = kernel.collect(connection.fileno(), seen)
        child.kill()
        child.wait()
        impostor = fork_as(child.pid)
        try:
            with pytest.raises(EvidenceError) as refusal:
                kernel.peer(connection.fileno())
            with pytest.raises(EvidenceError) as late:
                kernel.collect(connection.fileno(), seen)
            verdict = collected.watch.verify(child.pid)
            inspected = exe_of(kernel, impostor)
        finally:
            os.kill(impostor, signal.SIGKILL)
            os.waitpid(impostor, 0)
            collected.watch.close()
    assert refusal.value.cause is Cause.PEER_GONE
    assert late.value.cause is Cause.PEER_GONE
    assert verdict is Cause.PEER_GONE
    assert inspected.sha256 == sha256("/bin/sleep")


def test_a_peer_that_left_before_accept_is_refused(kernel: LinuxKernel, tmp_path: Path):
    """I5: data of a dead peer is still readable, its identity is not."""
    code = CONNECT.replace("word = sys.stdin.readline().strip()", "sys.exit()")
    with listening(tmp_path) as (listener, path):
        subprocess.run([sys.executable, "-I", "-c", code, path], check=True, stdout=subprocess.DEVNULL)
        connection, _ = listener.accept()
        with connection, pytest.raises(EvidenceError) as refusal:
            kernel.peer(connection.fileno())
    assert refusal.value.cause is Cause.PEER_GONE


def test_an_exec_after_connect_is_seen(kernel: LinuxKernel, tmp_path: Path):
    """I6: attested before the exec, the watch breaks; attested after it, the identity is the new image."""
    with connected(tmp_path) as (connection, child):
        seen = kernel.peer(connection.fileno())
        before = kernel.collect(connection.fileno(), seen)
        child.stdin.write("exec\n")
        child.stdin.flush()
        while (cause := before.watch.verify(child.pid)) is None:
            os.sched_yield()
        after = kernel.collect(connection.fileno(), seen)
        before.watch.close()
        after.watch.close()
    first, second = before.evidence.chain[0], after.evidence.chain[0]
    assert cause is Cause.IMAGE_CHANGED
    assert (first.pid, first.pidfs_ino) == (second.pid, second.pidfs_ino)
    assert first.exe is not None
    assert first.exe.sha256 == sha256(os.path.realpath(sys.executable))
    assert second.exe is not None
    assert second.exe.sha256 == sha256("/bin/sleep")


def test_a_memfd_executable_is_named_so(kernel: LinuxKernel):
    """I13: an executable without a file is a memfd, deleted and writable, with its true digest."""
    fd = os.memfd_create("evil", os.MFD_CLOEXEC)
    content = Path("/bin/sleep").resolve().read_bytes()
    os.write(fd, content)
    with running(f"/proc/self/fd/{fd}", "100", pass_fds=[fd], executable=f"/proc/{os.getpid()}/fd/{fd}") as child:
        exe = exe_of(kernel, child.pid)
    os.close(fd)
    assert (exe.memfd, exe.deleted, exe.writable, exe.fs) == (True, True, True, "memfd")
    assert exe.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_the_identity_is_the_running_image(kernel: LinuxKernel, tmp_path: Path, how: str):
    """I12: deleted or replaced on disk while running, the digest is of what runs."""
    program = copied("sleep", tmp_path)
    original = sha256(program)
    with running(str(program), "100") as child:
        first = exe_of(kernel, child.pid)
        if how == "deleted":
            program.unlink()
        else:
            copied("cat", tmp_path, "other").rename(program)
        second = exe_of(kernel, child.pid)
    assert (first.sha256, first.deleted) == (original, False)
    assert (second.sha256, second.deleted, second.path) == (original, True, str(program))


def test_a_program_changed_between_two_runs_is_a_new_program(kernel: LinuxKernel, tmp_path: Path):
    """I12: one byte changed in place, with mtime set back, gives another digest although the first was remembered."""
    program = copied("sleep", tmp_path)
    age(program)
    with running(str(program), "100") as child:
        first = exe_of(kernel, child.pid)
    before = program.stat()
    with program.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    os.utime(program, ns=(before.st_atime_ns, before.st_mtime_ns))
    with running(str(program), "100") as child:
        second = exe_of(kernel, child.pid)
    assert first.ino == second.ino
    assert first.sha256 != second.sha256 == sha256(program)


def test_a_change_on_tmpfs_is_always_seen(kernel: LinuxKernel):
    """I12: on tmpfs nothing is remembered, so a change in place between two runs is seen whatever stat says."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm")
    home = Path(f"/dev/shm/attestd-test-{os.getpid()}")
    home.mkdir()
    try:
        program = copied("sleep", home)
        with running(str(program), "100") as child:
            first = exe_of(kernel, child.pid)
        before = program.stat()
        content = bytearray(program.read_bytes())
        content[-1] ^= 1
        program.write_bytes(content)
        os.utime(program, ns=(before.st_atime_ns, before.st_mtime_ns))
        with running(str(program), "100") as child:
            second = exe_of(kernel, child.pid)
    finally:
        shutil.rmtree(home)
    assert first.fs == second.fs == "tmpfs"
    assert first.sha256 != second.sha256


def test_a_bind_mount_elsewhere_does_not_lend_its_path(kernel: LinuxKernel, tmp_path: Path):
    """I14: in a private mount namespace a path is another program; the digest is of that one, the path a label."""
    needs_userns()
    evil = copied("cat", tmp_path, "evil")
    target = os.path.realpath("/bin/sleep")
    script = 'mount --bind "$1" "$2" && exec "$2" -'
    flags = "-m" if os.geteuid() == 0 else "-Urm"
    with running("unshare", flags, "sh", "-c", script, "sh", str(evil), target, stderr=subprocess.PIPE) as child:
        child.stdin.write("x\n")
        child.stdin.flush()
        if child.stdout.readline() != "x\n":
            pytest.skip(f"no bind mount here: {child.stderr.read()}")
        link = evidence_of(kernel, child.pid).chain[0]
    assert link.exe is not None
    assert link.exe.path == target
    assert link.exe.sha256 == sha256(evil) != sha256(target)
    assert link.exe.writable
    assert link.origin is None or not link.origin.verified
    assert link.namespaces.ours_mnt is False


def test_a_caller_in_other_namespaces_keeps_its_true_uid(kernel: LinuxKernel, tmp_path: Path):
    """I16: root and pid 1 in namespaces of its own is our uid, and marked foreign."""
    needs_userns()
    with (
        listening(tmp_path) as (listener, path),
        running("unshare", "-Urpf", "--kill-child", sys.executable, "-I", "-c", CONNECT, path) as outer,
    ):
        expect_ready(outer)
        connection, _ = listener.accept()
        with connection:
            seen = kernel.peer(connection.fileno())
            collected = kernel.collect(connection.fileno(), seen)
            collected.watch.close()
    link = collected.evidence.chain[0]
    assert seen.uid == link.uids[0] == os.getuid()
    assert seen.pid != 1
    assert (link.namespaces.ours_user, link.namespaces.ours_pid) == (False, False)
    assert [other.pid for other in collected.evidence.chain[1:3]] == [outer.pid, os.getpid()]


def test_a_server_inside_a_pid_namespace_refuses_outsiders(tmp_path: Path):
    """I16, the other way round: a peer that has no pid here is FOREIGN_NAMESPACE."""
    needs_userns()
    code = (
        "import socket,sys; from attestd.kernel.linux.peer import read_peer; from attestd.errors import EvidenceError\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print('ready', flush=True)\n"
        "c, _ = s.accept()\n"
        "try: read_peer(c.fileno()); print('accepted', flush=True)\n"
        "except EvidenceError as e: print(e.cause, flush=True)\n"
    )
    path = str(tmp_path / "inner")
    root = Path(peer_module.__file__).parents[3]
    with running("unshare", "-Urpf", "--kill-child", sys.executable, "-c", code, path, cwd=root) as inner:
        expect_ready(inner)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            answer = inner.stdout.readline().strip()
    assert answer == Cause.FOREIGN_NAMESPACE


def test_a_traced_process_is_reported(kernel: LinuxKernel):
    """I20: the tracer is in the evidence."""
    tracer_code = (
        "import ctypes,sys; d = ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), None, None)\n"
        "print('ready' if d == 0 else 'refused', flush=True); sys.stdin.readline()"
    )
    with python(WAIT) as child:
        with running(sys.executable, "-I", "-c", tracer_code, str(child.pid)) as tracer:
            if tracer.stdout.readline().strip() != "ready":
                pytest.skip("tracing is not permitted here")
            traced = evidence_of(kernel, child.pid).chain[0].tracer_pid
            by = tracer.pid
        free = evidence_of(kernel, child.pid).chain[0].tracer_pid
    assert (traced, free) == (by, 0)


@contextmanager
def forked_twice(*, setsid: bool) -> Iterator[int]:
    """A process whose parent has exited, as a launcher that hides makes it."""
    leaf = "import os,sys,time; print(os.getpid(), flush=True); time.sleep(1000)"
    session = "os.setsid();" if setsid else ""
    code = (
        f"import os,sys\nif os.fork() == 0:\n {session}\n"
        f" if os.fork() == 0: os.execv(sys.executable, [sys.executable, '-I', '-c', {leaf!r}])\n os._exit(0)\nos.wait()"
    )
    with subprocess.Popen([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE, text=True) as launcher:
        leaf_pid = int(launcher.stdout.readline())
        launcher.wait()
    try:
        yield leaf_pid
    finally:
        kill_and_wait_gone(leaf_pid)


@pytest.mark.parametrize("setsid", [False, True])
def test_a_double_fork_is_no_ancestry(kernel: LinuxKernel, setsid: bool):
    """I17: a process whose launcher has gone is not shown as its adopter's child without doubt."""
    with forked_twice(setsid=setsid) as leaf:
        evidence = evidence_of(kernel, leaf)
    assert os.getpid() not in [link.pid for link in evidence.chain]
    first = evidence.chain[0]
    assert first.reparented is not False
    if first.reparented:
        assert (evidence.end, len(evidence.chain)) == ("broken", 1)


@pytest.mark.root
def test_a_change_of_uid_after_connect_shows_both(kernel: LinuxKernel, tmp_path: Path):
    """I22: the socket keeps the uid of connect, the link has that of now."""
    needs_root()
    code = CONNECT.replace("print('ready'", "os.setuid(54321); print('ready'")
    with listening(tmp_path) as (listener, path), python(code, path):
        connection, _ = listener.accept()
        with connection:
            seen: Peer = kernel.peer(connection.fileno())
            collected = kernel.collect(connection.fileno(), seen)
            collected.watch.close()
    assert (seen.uid, collected.evidence.chain[0].uids) == (0, (54321,) * 4)


def test_system_programs_are_not_writable_and_copies_are(kernel: LinuxKernel, tmp_path: Path):
    """The same bytes in the user's hands are another matter than in the system's."""
    system = Path("/bin/sleep").resolve()
    program = copied("sleep", tmp_path)
    program.chmod(0o777)
    with running(str(system), "100") as one, running(str(program), "100") as other:
        trusted, own = exe_of(kernel, one.pid), exe_of(kernel, other.pid)
    assert trusted.sha256 == own.sha256
    assert (trusted.writable, own.writable) == (False, True)
