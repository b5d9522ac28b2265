from __future__ import annotations

import array
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from attestd.errors import Cause, EvidenceError
from attestd.kernel.linux import peer
from tests.support.children import listening, needs_root, python

CONNECT = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(b'hello')
print('ready', flush=True); sys.stdin.readline()
"""


def test_the_connector_is_named(tmp_path: Path):
    """Pid, uid and gid are those of the process that connected, proved by its pidfd."""
    with listening(tmp_path) as (listener, path), python(CONNECT, path) as child:
        connection, _ = listener.accept()
        with connection:
            found, pidfd = peer.read_peer(connection.fileno())
            os.close(pidfd)
    assert (found.pid, found.uid, found.gid) == (child.pid, os.getuid(), os.getgid())
    assert found.source in {"peerpidfd", "proved"}


@pytest.mark.root
def test_supplementary_groups_are_named(tmp_path: Path):
    """The groups of the moment of connect are reported."""
    needs_root()
    code = "import os; os.setgroups([4, 24]); " + CONNECT.strip().replace(
        "import socket, sys\n", "import socket, sys; ", 1
    )
    with listening(tmp_path) as (listener, path), python(code, path):
        connection, _ = listener.accept()
        with connection:
            found, pidfd = peer.read_peer(connection.fileno())
            os.close(pidfd)
    assert set(found.groups) == {4, 24}


def test_a_dead_peer_is_refused(tmp_path: Path):
    """A peer that exited before accept is PEER_GONE, though its data and credentials are still there."""
    code = CONNECT.replace("sys.stdin.readline()", "")
    with listening(tmp_path) as (listener, path):
        subprocess.run([sys.executable, "-I", "-c", code, path], check=True, stdout=subprocess.DEVNULL)
        connection, _ = listener.accept()
        with connection, pytest.raises(EvidenceError) as refusal:
            peer.read_peer(connection.fileno())
    assert refusal.value.cause is Cause.PEER_GONE


def test_a_socket_without_credentials_is_refused():
    """A TCP socket names no peer."""
    with socket.socket() as tcp, pytest.raises(EvidenceError) as refusal:
        peer.read_peer(tcp.fileno())
    assert refusal.value.cause is Cause.UNATTESTABLE


@pytest.fixture(name="old_kernel")
def _old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without SO_PEERPIDFD: the option number is one that no kernel has."""
    monkeypatch.setattr(peer, "SO_PEERPIDFD", 9999)


@pytest.mark.usefixtures("old_kernel")
def test_without_peerpidfd_the_peer_is_proved(tmp_path: Path):
    """On an older kernel the peer is found to hold the other end."""
    with listening(tmp_path) as (listener, path), python(CONNECT, path) as child:
        connection, _ = listener.accept()
        with connection:
            found, pidfd = peer.read_peer(connection.fileno())
            os.close(pidfd)
    assert (found.pid, found.source) == (child.pid, "proved")


@pytest.mark.usefixtures("old_kernel")
def test_without_peerpidfd_and_proof_it_is_pid_only(tmp_path: Path):
    """A connector that gave its socket away is not proved."""
    code = CONNECT.replace(
        "print(",
        "import os, subprocess; c = subprocess.Popen(['sleep', '100'], pass_fds=[s.fileno()]); s.close(); print(",
    ).replace("sys.stdin.readline()", "sys.stdin.readline(); c.kill(); c.wait()")
    with listening(tmp_path) as (listener, path), python(code, path) as child:
        connection, _ = listener.accept()
        with connection:
            found, pidfd = peer.read_peer(connection.fileno())
            os.close(pidfd)
        child.stdin.close()
        child.wait()
    assert found.source == "pid-only"


@pytest.mark.parametrize(
    ("number", "cause"), [(errno.EREMOTE, Cause.FOREIGN_NAMESPACE), (errno.ESRCH, Cause.PEER_GONE)]
)
def test_a_pidfd_we_cannot_see_is_refused(monkeypatch: pytest.MonkeyPatch, number: int, cause: Cause):
    """A peer outside our pid namespace is foreign, a reaped one is gone; no descriptor is left behind."""

    def info(_pidfd: int) -> object:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(peer, "pidfd_info", info)
    before = len(os.listdir("/proc/self/fd"))
    left, right = socket.socketpair()
    with left, right, pytest.raises(EvidenceError) as refusal:
        peer.read_peer(left.fileno())
    assert refusal.value.cause is cause
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_writer_is_named_per_message(tmp_path: Path):
    """Bytes of a child on an inherited socket are named as the child's, and do not mix with the parent's."""
    code = CONNECT.replace(
        "print(",
        "import os\npid = os.fork()\nif pid == 0: s.sendall(b'child'); os._exit(0)\nos.waitpid(pid, 0); "
        "s.sendall(b'parent'); print(pid, flush=True); print(",
    )
    with listening(tmp_path) as (listener, path):
        peer.set_passcred(listener)
        with subprocess.Popen(
            [sys.executable, "-I", "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            grandchild = int(child.stdout.readline())
            child.stdout.readline()
            connection, _ = listener.accept()
            with connection:
                seen = [peer.recv_with_writer(connection, 100)[:3] for _ in range(3)]
                child.stdin.close()
                child.wait()
                end = peer.recv_with_writer(connection, 100)
    uid = os.getuid()
    assert seen == [(b"hello", child.pid, uid), (b"child", grandchild, uid), (b"parent", child.pid, uid)]
    assert (end[0], end[3]) == (b"", True)


def test_descriptors_that_come_along_are_closed():
    """Nobody can make us hold descriptors."""
    left, right = socket.socketpair()
    with left, right:
        right.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        before = len(os.listdir("/proc/self/fd"))
        left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
        data, pid, _uid, ended = peer.recv_with_writer(right, 10)
        assert (data, pid, ended) == (b"x", os.getpid(), False)
        assert len(os.listdir("/proc/self/fd")) == before
