"""The client's own descriptors: read and written without waiting, never changed, and with the writer's name."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from attestd.enforcement.client_end import ClientEnd, SocketEnd, take
from attestd.evidence.model import InputHolders

RELAY = 77


def me() -> frozenset[int]:
    """This process, which is not the one that imported this file."""
    return frozenset({os.getpid()})


@pytest.fixture
def ended() -> Iterator[ExitStack]:
    """Closes what a test made."""
    with ExitStack() as stack:
        yield stack


def examined(fd: int, kind: str = "pipe") -> InputHolders:
    """As the attestation would have found it."""
    return InputHolders(kind=kind, pids=(os.getpid(),), complete=True, ino=os.fstat(fd).st_ino)


def pipes(ended: ExitStack) -> tuple[ClientEnd, int, int]:
    """A taken pair of pipes, and the client's ends: where it writes and where it reads."""
    source, client_writes = os.pipe()
    client_reads, sink = os.pipe()
    end = take((source, sink), examined(source), RELAY, me())
    assert end is not None
    ended.callback(end.close)
    ended.callback(_close, client_writes)
    ended.callback(_close, client_reads)
    return end, client_writes, client_reads


def sockets(ended: ExitStack, writers: frozenset[int] | None = None) -> tuple[ClientEnd, socket.socket]:
    """A taken socket pair and the client's side of it."""
    ours, theirs = socket.socketpair()
    fds = (os.dup(theirs.fileno()), theirs.detach())
    end = take(fds, examined(fds[0], "socket"), RELAY, me() if writers is None else writers)
    assert end is not None
    ended.callback(end.close)
    ended.callback(ours.close)
    return end, ours


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        return


def send(end: ClientEnd, data: memoryview) -> int:
    """Write as the outbox does."""
    assert end.write is not None
    return end.write(data)


def ready(fd: int, seconds: float = 0) -> bool:
    """Whether a loop that watches ``fd`` would call."""
    return bool(select.select([fd], [], [], seconds)[0])


def test_a_pipe_is_read_to_its_end_by_the_relays_name(ended: ExitStack):
    """Nothing there, bytes, the end: each is told apart, and none waits although the pipe is blocking."""
    end, client_writes, _ = pipes(ended)
    with pytest.raises(BlockingIOError):
        end.read()
    assert not ready(end.in_fd)
    os.write(client_writes, b"hello")
    assert ready(end.in_fd)
    assert end.read() == (b"hello", RELAY)
    os.close(client_writes)
    assert ready(end.in_fd)
    assert end.read() == (b"", RELAY)


def test_a_full_pipe_does_not_hold_the_writer(ended: ExitStack):
    """It takes what it can, then says so, and can be watched until there is room."""
    end, _, client_reads = pipes(ended)
    assert ready(end.out_fd)
    block = memoryview(bytes(1 << 20))
    sent = send(end, block)
    assert 4096 <= sent < len(block)
    with pytest.raises(BlockingIOError):
        send(end, block)
    assert not ready(end.out_fd)
    assert len(os.read(client_reads, 1 << 20)) > 0
    assert ready(end.out_fd)


def test_the_descriptions_stay_blocking(ended: ExitStack):
    """They are shared with other processes, which expect that."""
    source, client_writes = os.pipe()
    client_reads, sink = os.pipe()
    copies = os.dup(source), os.dup(sink)
    end = take((source, sink), examined(source), RELAY, me())
    assert end is not None
    ended.callback(end.close)
    os.write(client_writes, b"x")
    end.read()
    send(end, memoryview(b"y"))
    assert [os.get_blocking(fd) for fd in copies] == [True, True]
    for fd in (*copies, client_writes, client_reads):
        os.close(fd)


def test_a_closed_client_breaks_the_writing(ended: ExitStack):
    """As with any pipe."""
    end, _, client_reads = pipes(ended)
    os.close(client_reads)
    with pytest.raises(BrokenPipeError):
        send(end, memoryview(b"x"))


def test_a_socket_names_its_writer(ended: ExitStack):
    """What was written before the taking names nobody; afterwards a process of the call passes for the relay."""
    ours, theirs = socket.socketpair()
    ended.callback(ours.close)
    ours.send(b"early")
    fds = (os.dup(theirs.fileno()), theirs.detach())
    end = take(fds, examined(fds[0], "socket"), RELAY, me())
    assert end is not None
    ended.callback(end.close)
    ours.send(b"late")
    assert end.read() == (b"early", RELAY)
    assert end.read() == (b"late", RELAY)
    assert send(end, memoryview(b"answer")) == 6
    assert ours.recv(10) == b"answer"


def test_a_socket_names_a_stranger(ended: ExitStack):
    """A child of the client that got hold of its socket is named as itself, and its bytes are not joined to others."""
    end, ours = sockets(ended)
    ours.send(b"client")
    child = subprocess.Popen(
        [sys.executable, "-c", "import os, sys; os.write(int(sys.argv[1]), b'child')", str(ours.fileno())],
        pass_fds=(ours.fileno(),),
    )
    child.wait()
    assert end.read() == (b"client", RELAY)
    assert end.read() == (b"child", child.pid)


def test_a_socket_whose_writers_are_named_no_more(ended: ExitStack):
    """What waited before is the relay's and not joined to what came without a name since: that is nobody's."""
    ours, theirs = socket.socketpair()
    ours.send(b"early")
    copy = theirs.dup()
    fds = (os.dup(theirs.fileno()), theirs.detach())
    end = take(fds, examined(fds[0], "socket"), RELAY, me())
    assert end is not None
    for each in (end, ours, copy):
        ended.callback(each.close)
    ours.send(b"named")
    copy.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
    ours.send(b"late")
    assert end.read() == (b"early", RELAY)
    assert end.read()[1] == 0


def test_descriptors_that_cannot_be_used_are_declined_and_closed(tmp_path: Path):
    """Another file than the examined one, a named pipe, a file, an internet socket, too few."""
    source, client_writes = os.pipe()
    other, sink = os.pipe()
    named = tmp_path / "fifo"
    os.mkfifo(named)
    inet = socket.socket()
    bad = (
        ((os.dup(source), os.dup(sink)), examined(other)),
        ((os.dup(source), os.dup(sink)), None),
        ((os.dup(source), os.dup(sink)), InputHolders(kind="pipe", pids=(), complete=True)),
        ((os.open(named, os.O_RDWR), os.dup(sink)), examined(os.open(named, os.O_RDWR))),
        ((os.dup(source), os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)), examined(source)),
        ((inet.detach(), os.dup(sink)), None),
        ((os.dup(source),), examined(source)),
    )
    for fds, found in bad:
        assert take(fds, found, RELAY, me()) is None
        for fd in fds:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
    for fd in (source, client_writes, other, sink):
        os.close(fd)


def test_an_accepted_socket_brings_descriptors_once(ended: ExitStack):
    """The first read tells them; later reads drop what comes."""
    ours, theirs = socket.socketpair()
    ended.callback(ours.close)
    ended.callback(theirs.close)
    theirs.setblocking(False)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    end = SocketEnd(theirs)
    socket.send_fds(ours, [b"\0"], [0, 1])
    data, writer, fds = end.read_first()
    assert (data, writer, len(fds)) == (b"\0", os.getpid(), 2)
    assert not any(os.get_inheritable(fd) for fd in fds)
    for fd in fds:
        os.close(fd)
    before = len(list(Path("/proc/self/fd").iterdir()))
    socket.send_fds(ours, [b"x"], [0, 1])
    assert end.read() == (b"x", os.getpid())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
