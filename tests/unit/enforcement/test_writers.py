"""Who wrote what is read from a Unix socket: Linux as it is, and the code of macOS with its one option answered."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attestd.enforcement import writers


class Answering(socket.socket):
    """A socket whose LOCAL_PEERPID is known."""

    last: int | OSError = 4242

    def getsockopt(self, level: int, option: int, *size: int) -> Any:
        """As the kernel of macOS."""
        if (level, option) != (0, 2):
            return super().getsockopt(level, option, *size)
        if isinstance(self.last, OSError):
            raise self.last
        return self.last


Pair = Callable[..., tuple[Answering, socket.socket]]


@pytest.fixture(name="pair")
def _pair() -> Iterator[Pair]:
    opened: list[socket.socket] = []

    def made(kind: type[socket.socket] = socket.socket, family: int = socket.AF_UNIX) -> tuple[Any, socket.socket]:
        left, right = socket.socketpair(family)
        opened.extend((kind(fileno=left.detach()), right))
        return opened[-2], right

    yield made
    for sock in opened:
        sock.close()


@pytest.fixture(name="macos")
def _macos(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module as it is on macOS."""
    monkeypatch.setattr(sys, "platform", "darwin")
    spec = importlib.util.spec_from_file_location("writers_of_macos", Path(writers.__file__))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.undo()
    return module


def test_linux_names_the_writer(pair: Pair):
    """Once asked to; the same bytes without that name nobody."""
    ours, theirs = pair()
    theirs.send(b"early")
    assert not writers.are_named(ours)
    assert writers.read(ours, 64)[1] == 0
    writers.name_writers(ours)
    assert writers.are_named(ours)
    theirs.send(b"late")
    assert writers.read(ours, 64) == (b"late", os.getpid())
    theirs.close()
    assert writers.read(ours, 64) == (b"", 0)


def test_linux_drops_what_has_no_room(pair: Pair):
    """Descriptors beyond those asked for are said to have been cut; the others are ours and closed on exec."""
    ours, theirs = pair()
    writers.name_writers(ours)
    socket.send_fds(theirs, [b"x"], [0, 1])
    found = writers.read_all(ours, 64, 2)
    assert (found.data, found.writer, len(found.fds), found.cut) == (b"x", os.getpid(), 2, False)
    assert not any(os.get_inheritable(fd) for fd in found.fds)
    for fd in found.fds:
        os.close(fd)
    socket.send_fds(theirs, [b"x"], [0])
    assert writers.read_all(ours, 64, 0)[2:] == ((), True)


def test_macos_asks_who_was_last(macos: ModuleType, pair: Pair):
    """After every read; nothing has to be asked for before. Where the other end is closed it was nobody."""
    ours, theirs = pair(Answering)
    macos.name_writers(ours)
    assert macos.are_named(ours)
    theirs.send(b"x")
    assert macos.read(ours, 64) == (b"x", 4242)
    ours.last = OSError(57, "not connected")
    theirs.send(b"y")
    assert macos.read(ours, 64) == (b"y", 0)


def test_macos_closes_descriptors_itself(macos: ModuleType, pair: Pair):
    """None stays open, however many come, and more than were asked for are said to be."""
    ours, theirs = pair(Answering)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only the number counts
    socket.send_fds(theirs, [b"x"], [0] * 9)
    assert macos.read(ours, 64) == (b"x", 4242)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    socket.send_fds(theirs, [b"x"], [0, 1])
    found = macos.read_all(ours, 64, 1)
    assert (len(found.fds), found.cut) == (2, True)
    for fd in found.fds:
        assert not os.get_inheritable(fd)
        os.close(fd)


def test_tcp_names_nobody_on_macos(macos: ModuleType):
    """The number of the option means something else there."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as theirs:
        accepted, _ = listener.accept()
        with Answering(fileno=accepted.detach()) as ours:
            theirs.send(b"x")
            assert macos.read(ours, 64) == (b"x", 0)
            assert not macos.are_named(ours)
