"""I21: loopback TCP: the client closes before it is looked up; its socket is shared after a fork, or handed over; it
executes a granted program after it connected.

There is no TCP front in this version; what it must ask is all here. A ``Door`` is a real listener whose connections are
looked up and examined as a front has to, and ``Door.cap`` is the rule of the design (attestation, TCP): refused, or
level 0, or, without the recorder, a capped level. When there is a front it becomes another parameter of ``door``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attestd.errors import Cause, EvidenceError
from attestd.evidence.protocol import AbsentRecorder
from attestd.evidence.recorder import Recorder
from attestd.evidence.tcp import TcpPeer
from attestd.kernel.linux.connector.fallback import open_fallback
from attestd.kernel.linux.recorder.reader import BpfRecorder
from attestd.kernel.linux.tcp.peers import (
    CONNECTOR_EXITED,
    EXEC_CHANGED,
    EXEC_UNKNOWN,
    HANDED_OVER,
    SHARED,
    TcpPeers,
)
from tests.support.attackers import until
from tests.support.naive import cmdline
from tests.support.recorder import recording

pytestmark = [pytest.mark.attack("I21"), pytest.mark.linux("TCP peers")]

UNCAPPED = 4
GRANTED = "granted-program"
LETTER = b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}\n'
EVIL = '''\
"""Connects, writes a call, and hides who it is. argv: port, how. It says its pid when it is done."""
import os, socket, sys

port, how = int(sys.argv[1]), sys.argv[2]
wait = [sys.executable, "-I", "-S", "-c", "import os; os.write(1, b'done\\\\n'); os.read(0, 1)"]
s = socket.create_connection(("127.0.0.1", port))
if how != "genuine":
    s.sendall(b'{"jsonrpc":"2.0","id":1,"method":"tools/call"}\\n')
s.set_inheritable(True)
if how == "close":
    s.close()
elif how == "share":
    if os.fork() == 0:
        os.read(0, 1)
        os._exit(0)
elif how == "leave":
    if os.fork():
        os._exit(0)
elif how == "hand over":
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        s.close()
        _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
        os.set_inheritable(fds[0], True)
        os.write(theirs.fileno(), b".")
        os.execv(wait[0], [*wait, "granted-program"])
    socket.send_fds(ours, [b"."], [s.fileno()])
    ours.recv(1)
    s.close()
    os.wait()
    os._exit(0)
if how in ("share", "exec", "leave"):
    os.execv(wait[0], [*wait, "granted-program"])
os.write(1, b"done\\n")
os.read(0, 1)
'''


class Door:
    """A listener, and who is at the other end of what it accepts, as a front has to ask."""

    def __init__(self, peers: TcpPeers, state: str) -> None:
        self.peers = peers
        self.state = state
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]

    def peer(self, accepted: socket.socket) -> TcpPeer:
        """With every holder. Raises EvidenceError."""
        return self.peers.examine(self.peers.lookup(accepted))

    @staticmethod
    def cap(peer: TcpPeer) -> int:
        """The highest level that this peer may have."""
        if peer.key is None or peer.shared is not False or peer.exec_changed:
            return 0
        return 1 if peer.exec_changed is None else UNCAPPED


@contextlib.contextmanager
def recorder_in(state: str) -> Iterator[Recorder]:
    """The kernel recorder, process events, or nothing."""
    if state == "on":
        with recording() as root, contextlib.closing(BpfRecorder.open(root)) as reader:
            yield reader
        return
    made: Recorder = open_fallback() if state == "fallback" else AbsentRecorder()
    with contextlib.closing(made):
        if made.state()[0] != state:
            pytest.skip(made.state()[1])
        yield made


@pytest.fixture(scope="module", name="door", params=[pytest.param("on", marks=pytest.mark.root), "fallback", "absent"])
def _door(request: pytest.FixtureRequest) -> Iterator[Door]:
    with recorder_in(request.param) as recorder, contextlib.closing(TcpPeers(recorder)) as peers:
        made = Door(peers, request.param)
        with made.server:
            yield made


@contextlib.contextmanager
def attacked(door: Door, how: str, tmp_path: Path) -> Iterator[tuple[socket.socket, int]]:
    """Our end of the evil program's connection once it is what it wants to be taken for, and its pid."""
    script = tmp_path / "evil.py"
    script.write_text(EVIL, encoding="utf-8")
    words = [sys.executable, str(script), str(door.port), how]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as evil:
        assert evil.stdout is not None
        accepted, _ = door.server.accept()
        with accepted:
            assert evil.stdout.readline() == b"done\n"
            yield accepted, evil.pid
            evil.communicate()
        until(lambda: all(row[9] == "0" for row in clients(door.port)), "the end of the evil program's connection")


def clients(port: int) -> list[list[str]]:
    """The rows of /proc/net/tcp of sockets that are connected to our port, columns as text."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return [row for row in rows if row[2] == f"0100007F:{port:04X}"]


def naive_row(accepted: socket.socket) -> list[str]:
    """The client's row for a connection of ours."""
    theirs, ours = accepted.getpeername()[1], accepted.getsockname()[1]
    return next(row for row in clients(ours) if row[1].endswith(f":{theirs:04X}"))


def naive_holders(accepted: socket.socket) -> list[str]:
    """Command lines of who holds the client's socket now: what is believed where nobody asks who connected."""
    wanted = f"socket:[{naive_row(accepted)[9]}]"
    found = []
    for pid in (int(name.name) for name in Path("/proc").iterdir() if name.name.isdigit()):
        with contextlib.suppress(OSError):
            if any(str(fd.readlink()) == wanted for fd in Path(f"/proc/{pid}/fd").iterdir()):
                found.append(cmdline(pid))
    return found


def test_a_client_that_only_connects(door: Door, tmp_path: Path):
    """The measure of the others: with the recorder it is known whole, without it what it executed since is not."""
    with attacked(door, "genuine", tmp_path) as (accepted, pid):
        peer = door.peer(accepted)
    assert peer.key is not None
    assert (peer.key.pid, peer.shared) == (pid, False)
    assert door.cap(peer) == (UNCAPPED if door.state == "on" else 1)
    assert (peer.source, peer.reasons == ()) == (("recorder", True) if door.state == "on" else ("scan", False))


def test_a_client_that_closes_before_it_is_looked_up(door: Door, tmp_path: Path):
    """Its call waits, and its socket has a uid (root's, on some kernels, whoever it was): refused, nobody is there."""
    with attacked(door, "close", tmp_path) as (accepted, _):
        assert int(naive_row(accepted)[7]) in {0, os.geteuid()}
        assert accepted.recv(4096) == LETTER
        with pytest.raises(EvidenceError) as caught:
            door.peer(accepted)
    assert caught.value.cause is Cause.PEER_GONE


Judge = Callable[[TcpPeer], None]


def shared(peer: TcpPeer) -> None:
    """Two have the socket."""
    assert SHARED in peer.reasons
    assert len(peer.candidates) == 2


def changed(peer: TcpPeer) -> None:
    """The recorder saw the exec."""
    assert peer.exec_changed is True
    assert EXEC_CHANGED in peer.reasons


def left(peer: TcpPeer) -> None:
    """The connector has exited."""
    assert CONNECTOR_EXITED in peer.reasons


def handed(peer: TcpPeer) -> None:
    """The connector does not have the socket any more."""
    assert HANDED_OVER in peer.reasons
    assert peer.shared is True


def unknown(peer: TcpPeer) -> None:
    """Only who holds it now is known."""
    assert EXEC_UNKNOWN in peer.reasons
    assert peer.source == "scan"


@pytest.mark.parametrize(
    ("how", "recorded", "otherwise", "cap"),
    [
        ("share", shared, shared, 0),
        ("exec", changed, unknown, 1),
        ("leave", left, unknown, 1),
        ("hand over", handed, unknown, 1),
    ],
)
def test_a_socket_whose_holder_did_not_write(
    door: Door, tmp_path: Path, how: str, recorded: Judge, otherwise: Judge, cap: int
):
    """A granted program holds the socket and never wrote the call that waits in it. With the recorder: level 0, with
    the reason; without it two holders are level 0 as well, and one is at most level 1, for nobody knows who wrote."""
    with attacked(door, how, tmp_path) as (accepted, _):
        until(lambda: any(GRANTED in words for words in naive_holders(accepted)), "the granted program")
        assert accepted.recv(4096) == LETTER
        peer = door.peer(accepted)
    (recorded if door.state == "on" else otherwise)(peer)
    assert door.cap(peer) == (0 if door.state == "on" else cap)
