"""Orders as they arrive; the attacks on them are in tests/attacks/test_l04_who_orders.py and test_l05_floods.py."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.launch.ordered import peer_of, receive
from tests.support.system_launcher import Started, send


def me() -> tuple[int, int]:
    """This process; asked each time, since tests may run in a fork of what imported them."""
    return os.getpid(), os.getuid()


class Pair:
    """Both ends of a connection, and the descriptors of one order."""

    def __init__(self) -> None:
        self.ours, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.order = Started()

    def refused(self, message: bytes, fds: list[int], writer: tuple[int, int] | None = None) -> str:
        """Why what is sent is no order; nothing that came with it stays open."""
        before = len(list(Path("/proc/self/fd").iterdir()))
        send(self.far, message, fds)
        with pytest.raises(ConnectionError) as found:
            receive(self.ours, writer or me())
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        return str(found.value)

    def close(self) -> None:
        """Let go."""
        self.order.sent()
        self.order.close()
        self.ours.close()
        self.far.close()


@pytest.fixture(name="pair")
def _pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def test_an_order(pair: Pair):
    """Name and descriptors arrive, closed on exec; the end of the connection is no order."""
    client = os.pidfd_open(os.getpid())
    for fds in (pair.order.theirs, [*pair.order.theirs, client]):
        send(pair.far, b"start\0a.b-c_1", fds)
        received = receive(pair.ours, me())
        assert received is not None
        name, found = received
        assert (name, len(found)) == ("a.b-c_1", len(fds))
        assert [os.fstat(fd).st_ino for fd in found] == [os.fstat(fd).st_ino for fd in fds]
        for fd in found:
            assert not os.get_inheritable(fd)
            os.close(fd)
    os.close(client)
    pair.far.shutdown(socket.SHUT_RDWR)
    assert receive(pair.ours, me()) is None


def test_who_connected(pair: Pair):
    """The kernel names the process and its uid."""
    assert peer_of(pair.ours) == me()


def test_another_writer(pair: Pair):
    """An order of another process or uid than the one that connected is none."""
    for writer in ((me()[0] + 1, me()[1]), (me()[0], me()[1] + 1)):
        assert "got a message of process" in pair.refused(b"start\0a", pair.order.theirs, writer)


def test_a_writer_that_the_kernel_did_not_name(pair: Pair):
    """Without the kernel's word on the writer nothing counts."""
    pair.ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
    assert "got a message of process ()" in pair.refused(b"start\0a", pair.order.theirs)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"start\0../a", "expected the name of a server"),
        (b"start\0a\0b", "expected the name of a server"),
        (b"stop\0a", "expected the name of a server"),
        (b"start\0a".ljust(81, b"a"), "above 80 bytes"),
    ],
)
def test_another_message(pair: Pair, message: bytes, why: str):
    """What is not ``start`` and a name is no order."""
    assert why in pair.refused(message, pair.order.theirs)


def test_other_descriptors(pair: Pair):
    """Too few, too many, a pipe the wrong way round, or no line."""
    good = pair.order.theirs
    others = ([], good[:3], [*good, 0, 0], [good[1], *good[1:]], [good[0], good[0], *good[2:]], [*good[:3], good[0]])
    for fds in others:
        assert "expected three pipes, a line" in pair.refused(b"start\0a", fds)
