"""Where listening sockets come from, with real sockets and a real line to a manager."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.daemon.activation import Passed
from attestd.daemon.listening import Listening
from attestd.daemon.notify import Notifier
from attestd.enforcement.listener import listen
from attestd.errors import ConfigurationError


@pytest.fixture(name="manager")
def _manager(short_tmp: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(short_tmp / "notify"))
        manager.settimeout(5)
        yield manager


def said(manager: socket.socket) -> str:
    return manager.recv(4096).decode().replace("\n", " ")


def test_a_made_socket_is_given_to_the_manager(short_tmp: Path, manager: socket.socket):
    """So that the next run gets it, with whoever waits in its queue."""
    listening = Listening(None, Notifier(manager.getsockname()))
    with listening.server("time", short_tmp / "time.sock"):
        assert said(manager) == "FDSTORE=1 FDNAME=mcp-time"


def test_a_held_socket_is_taken_with_its_queue(short_tmp: Path, manager: socket.socket):
    """Who connected while nobody served is served."""
    path = short_tmp / "time.sock"
    held = listen(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        listening = Listening(Passed(servers={"time": held}), Notifier(manager.getsockname()))
        taken = listening.server("time", path)
        with taken:
            assert taken is held
            taken.accept()[0].close()


def test_a_held_socket_without_its_file_is_made_anew(short_tmp: Path, manager: socket.socket):
    """Nobody could reach it."""
    path = short_tmp / "time.sock"
    held = listen(path)
    path.unlink()
    listening = Listening(Passed(servers={"time": held}), Notifier(manager.getsockname()))
    with listening.server("time", path) as made:
        assert made is not held
        assert path.is_socket()
        assert [said(manager), said(manager)] == ["FDSTOREREMOVE=1 FDNAME=mcp-time", "FDSTORE=1 FDNAME=mcp-time"]


def test_sockets_of_servers_that_went_are_given_up(short_tmp: Path, manager: socket.socket):
    """A server that is registered no more is no longer reachable, and the manager forgets it."""
    path = short_tmp / "gone.sock"
    listening = Listening(Passed(servers={"gone": listen(path)}), Notifier(manager.getsockname()))
    listening.settle(short_tmp, 0)
    assert not path.exists()
    assert said(manager) == "FDSTOREREMOVE=1 FDNAME=mcp-gone"


def test_a_paused_socket_keeps_its_file_only_with_a_manager(short_tmp: Path, manager: socket.socket):
    """Without one nobody would answer there."""
    path = short_tmp / "time.sock"
    with listen(path):
        Listening(None, Notifier(manager.getsockname())).paused(path)
        assert path.exists()
        Listening().paused(path)
        assert not path.exists()


def test_the_control_socket_is_verified(short_tmp: Path):
    """One that listens elsewhere is refused; none was passed: none is adopted; and it is given once."""
    with listen(short_tmp / "c") as sock:
        listening = Listening(Passed(control=sock))
        assert listening.control(short_tmp / "c") is sock
        assert listening.control(short_tmp / "c") is None
        with pytest.raises(ConfigurationError):
            Listening(Passed(control=sock)).control(short_tmp / "other")


def test_loopback_sockets_are_adopted_once():
    """A reload that moves to another port opens that one itself."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        listening = Listening(Passed(http=(sock,)))
        port = sock.getsockname()[1]
        assert listening.loopback(port) == [sock]
        with pytest.raises(ConfigurationError, match="cannot listen on port"):
            listening.loopback(port)


def test_an_http_socket_that_nobody_configured(short_tmp: Path):
    """Its clients would hang: the daemon refuses to start and says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as sock, pytest.raises(ConfigurationError, match=r"listen\.port is 0"):
        Listening(Passed(http=(sock,))).settle(short_tmp, 0)


def test_no_loopback_where_nobody_could_be_attested(monkeypatch: pytest.MonkeyPatch):
    """The port is refused with the reason and what to do, before anything listens."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigurationError, match="cannot listen on port 4000") as raised:
        Listening().loopback(4000)
    assert "listen.port to 0" in raised.value.hint
