from __future__ import annotations

import errno
import os
import socket

import pytest

from attestd.kernel.linux.connector import feed as feed_module
from attestd.kernel.linux.connector import messages
from attestd.kernel.linux.connector.feed import ConnectorUnavailableError, Feed
from tests.support.children import running
from tests.unit.kernel.connector.test_messages import datagram


class Heard:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.forks: list[tuple[int, int, int]] = []
        self.executions: list[int] = []
        self.exits: list[tuple[int, int]] = []
        self.names: list[tuple[int, bytes]] = []
        self.losses: list[tuple[int, bool]] = []
        self.events = 0

    def fork(self, time_ns, parent, tid, pid):
        assert time_ns > 0
        self.events += 1
        self.forks.append((parent, tid, pid))

    def exec(self, time_ns, pid):
        assert time_ns > 0
        self.events += 1
        self.executions.append(pid)

    def exit(self, time_ns, tid, pid):
        assert time_ns > 0
        self.events += 1
        self.exits.append((tid, pid))

    def uid(self, pid, uid):
        del pid, uid

    def comm(self, pid, name):
        self.names.append((pid, name))

    def lost(self, count, *, fresh):
        self.losses.append((count, fresh))


@pytest.fixture(name="feed")
def _feed():
    made = Feed()
    made.speak()
    yield made
    made.close()


def read_all(feed: Feed) -> Heard:
    heard = Heard()
    while feed.read(heard):
        pass
    return heard


def give(feed: Feed, *raw: bytes, senders: list[int] | None = None) -> Heard:
    """Put datagrams where the kernel would."""
    heard = Heard()
    for index, each in enumerate(raw):
        feed._slots[index * messages.SLOT : index * messages.SLOT + len(each)] = each
        address = bytearray(feed_module._ADDRESS)
        address[4:8] = (senders[index] if senders else 0).to_bytes(4, "little")
        feed._addresses[index * 12 : index * 12 + 12] = bytes(address)
    feed._give(len(raw), heard, genuine=senders is None)
    return heard


def test_what_happened_before_reading_is_read(feed: Feed):
    """Fork and execution of a child are there at once, without waiting."""
    with running("cat") as child:
        child.stdin.write("x\n")
        child.stdin.flush()
        child.stdout.readline()  # so it runs: that it was executed is queued
        heard = read_all(feed)
    assert (os.getpid(), child.pid, child.pid) in heard.forks
    assert child.pid in heard.executions


def test_speaking_is_an_event_on_every_cpu(feed: Feed):
    """Afterwards the next number of each CPU that we may run on is known, and our affinity is as it was."""
    before = os.sched_getaffinity(0)
    feed.speak()
    read_all(feed)
    assert before <= set(feed._next)
    assert os.sched_getaffinity(0) == before


def test_a_jump_is_a_number_of_lost_events(feed: Feed):
    """Numbers go on per CPU; the first of a CPU is only a start; the counter may run over."""
    fork = messages.FORK
    feed._next.clear()
    heard = give(
        feed,
        datagram(fork, b"", sequence=0xFFFFFFFE, cpu=0),
        datagram(fork, b"", sequence=5, cpu=1),
        datagram(fork, b"", sequence=0xFFFFFFFF, cpu=0),
        datagram(fork, b"", sequence=6, cpu=1),
        datagram(fork, b"", sequence=3, cpu=0),
    )
    assert heard.losses == [(3, True)]
    assert heard.events == 5


def test_one_overrun_is_one_loss_on_every_cpu(feed: Feed):
    """Jumps that show after it belong to it, once per CPU; later ones are new losses."""
    feed._next.clear()
    fork = messages.FORK
    give(feed, datagram(fork, b"", sequence=0, cpu=0), datagram(fork, b"", sequence=0, cpu=1))
    feed._overrun = True
    heard = Heard()
    assert not feed._refused(errno.EAGAIN, heard)
    assert heard.losses == [(0, True)]
    assert feed.silent
    late = give(
        feed,
        datagram(fork, b"", sequence=5, cpu=0),
        datagram(fork, b"", sequence=9, cpu=1),
        datagram(fork, b"", sequence=11, cpu=1),
    )
    assert late.losses == [(4, False), (8, False), (1, True)]


def test_only_the_kernel_is_believed(feed: Feed):
    """A datagram of another sender is dropped and not counted."""
    feed._next.clear()
    heard = give(
        feed,
        datagram(messages.FORK, b"", sequence=1),
        datagram(messages.EXIT, b"", sequence=77),
        datagram(messages.FORK, b"", sequence=2),
        senders=[0, 4711, 0],
    )
    assert (heard.events, heard.exits, heard.losses) == (2, [], [])


def test_what_is_no_event_is_left_out(feed: Feed):
    """A short datagram, another group, and an answer without a CPU change nothing."""
    feed._next.clear()
    short = datagram(messages.FORK, b"", sequence=5)
    short = (60).to_bytes(4, "little") + short[4:]
    other = datagram(messages.FORK, b"", sequence=5)
    other = other[:16] + (9).to_bytes(4, "little") + other[20:]
    heard = give(feed, short, other, datagram(messages.ACK, b"", sequence=5, cpu=messages.NO_CPU))
    assert (heard.events, heard.losses, feed._next) == (0, [], {})


def test_names_are_of_processes(feed: Feed):
    """A thread's own name is not its process's."""
    thread = datagram(messages.COMM, (5).to_bytes(4, "little") + (4).to_bytes(4, "little") + b"thread", sequence=1)
    whole = datagram(messages.COMM, (4).to_bytes(4, "little") * 2 + b"sixteen-letters\0", sequence=2)
    feed._next.clear()
    assert give(feed, thread, whole).names == [(4, b"sixteen-letters\0")]


def test_a_broken_socket_is_an_error(feed: Feed):
    """Anything but an empty or overrun queue is told to the reader."""
    with pytest.raises(OSError, match="Bad file"):
        feed._refused(errno.EBADF, Heard())


def test_a_refused_listener_says_why(monkeypatch: pytest.MonkeyPatch):
    """Older kernels let only root listen; the message says so and the hint what helps."""

    class Refusing(socket.socket):
        def bind(self, _address):
            raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(feed_module.socket, "socket", Refusing)
    with pytest.raises(ConnectorUnavailableError) as caught:
        Feed()
    assert "operation not permitted" in caught.value.message
    assert "6.6" in caught.value.hint


def test_a_refusal_in_the_answer_says_why():
    """The kernel may answer the subscription with an error number."""
    with pytest.raises(ConnectorUnavailableError, match="not permitted"):
        feed_module._agreed(errno.EPERM)
    feed_module._agreed(0)


def test_silence_is_a_namespace(monkeypatch: pytest.MonkeyPatch):
    """A subscription from an inner pid or user namespace is not answered at all."""
    monkeypatch.setattr(messages, "subscription", lambda *_, **__: b"\x10\0\0\0" + bytes(12))
    monkeypatch.setattr(feed_module, "_ANSWER_S", 0.05)
    with pytest.raises(ConnectorUnavailableError) as caught:
        Feed()
    assert "namespace" in caught.value.hint
