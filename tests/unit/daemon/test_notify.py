"""The line to the service manager, against a real datagram socket."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.daemon.notify import Notifier, monotonic_us


@pytest.fixture(name="manager")
def _manager(short_tmp: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(short_tmp / "notify"))
        manager.settimeout(5)
        yield manager


def notifier(manager: socket.socket) -> Notifier:
    return Notifier(manager.getsockname(), watchdog_us=15_000_000)


def said(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def test_what_the_manager_passed_is_taken_out_of_the_environment():
    """No child can speak for the daemon."""
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_PID": "7", "WATCHDOG_USEC": "15000000", "LANG": "C"}
    made = Notifier.from_environment(environ, 7)
    assert (made.present, made.watchdog_s, environ) == (True, 15.0, {"LANG": "C"})


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_PID": "8", "WATCHDOG_USEC": "15000000"}, 0),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "soon"}, 0),
        ({"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1000000"}, 1),
        ({"WATCHDOG_USEC": "1000000"}, 0),
    ],
)
def test_a_watchdog_counts_only_for_us(environ: dict[str, str], seconds: float):
    """That of another process, a malformed one, and one without a socket to answer to are none."""
    assert Notifier.from_environment(environ, 7).watchdog_s == seconds


@pytest.mark.parametrize("address", ["", "relative", "@", "/"])
def test_without_a_manager_nothing_is_sent(address: str):
    """Neither an absent nor an unusable address is an error."""
    made = Notifier.from_environment({"NOTIFY_SOCKET": address}, 7)
    made.ready("serving")
    assert made.present is False


def test_a_manager_that_went_is_no_error(manager: socket.socket):
    """The daemon goes on: what a manager does not hear changes nothing for callers."""
    made = notifier(manager)
    manager.close()
    made.alive("well")
    assert made.present


def test_who_must_not_go_on_says_so(manager: socket.socket):
    """In the manager's own words for it, with the reason."""
    notifier(manager).failed("cannot trust decisions")
    assert said(manager) == ["WATCHDOG=trigger", "STATUS=cannot trust decisions"]


def test_ready_and_alive_carry_a_status_of_one_line(manager: socket.socket):
    """A line end in a message cannot become a message of its own."""
    made = notifier(manager)
    made.ready("serving 2 servers")
    made.alive("bad\nREADY=0")
    made.status("x" * 1000)
    assert said(manager) == ["READY=1", "STATUS=serving 2 servers"]
    assert said(manager) == ["WATCHDOG=1", "STATUS=bad READY=0"]
    assert said(manager) == ["STATUS=" + "x" * 200]


def test_a_reload_says_when_it_began(manager: socket.socket):
    """In the manager's clock, not before the signal that asked for it."""
    before = monotonic_us()
    notifier(manager).reloading()
    first, second = said(manager)
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= monotonic_us()


def test_the_end_is_announced(manager: socket.socket):
    """So that the manager does not take it for a crash."""
    notifier(manager).stopping()
    assert said(manager)[0] == "STOPPING=1"


def test_a_stored_socket_arrives_with_its_name(manager: socket.socket):
    """The manager gets a descriptor of the same socket."""
    sock, other = socket.socketpair()
    with sock, other:
        notifier(manager).store("mcp-time", sock)
        text, ancillary, _, _ = manager.recvmsg(4096, socket.CMSG_SPACE(4))
        assert text == b"FDSTORE=1\nFDNAME=mcp-time"
        fd = array.array("i", ancillary[0][2])[0]
        try:
            assert os.fstat(fd).st_ino == os.fstat(sock.fileno()).st_ino
        finally:
            os.close(fd)


def test_a_stored_socket_is_forgotten_by_name(manager: socket.socket):
    """It is not passed to the next run."""
    notifier(manager).drop("mcp-time")
    assert said(manager) == ["FDSTOREREMOVE=1", "FDNAME=mcp-time"]


def test_an_abstract_address():
    """A manager in a container may use one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")
        manager.settimeout(5)
        Notifier("@" + manager.getsockname()[1:].decode()).stopping()
        assert said(manager)[0] == "STOPPING=1"
