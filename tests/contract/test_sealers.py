"""The promises of ``evidence.sealing.Sealer``, kept by the kernel's and by the fake."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attestd.evidence.sealing import Guard, Sealer
from attestd.kernel.linux.sealing.sealer import LinuxSealer
from tests.fakes.sealer import FakeSealer, Rules
from tests.support.network import own_network

Maker = Callable[[], Sealer]
GUARDS = (Guard(server="a", port=80, ip=81, ip6=82), Guard(server="b", port=83))


@pytest.fixture(params=["fake", pytest.param("linux", marks=pytest.mark.root)], name="make")
def _make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Maker]:
    if request.param == "fake":
        rules = Rules()
        yield lambda: FakeSealer(rules)
    else:
        with own_network():
            yield lambda: LinuxSealer(tmp_path)


def test_guards_outlive_the_sealer(make: Maker):
    """Another sealer of the same instance finds, replaces and removes them."""
    first = make()
    assert (first.exists(), first.guards()) == (False, ())
    first.replace(GUARDS)
    second = make()
    assert second.table == first.table
    assert (second.exists(), second.guards()) == (True, GUARDS)
    second.replace(GUARDS[1:])
    assert first.guards() == GUARDS[1:]
    second.remove()
    second.remove()
    assert (first.exists(), first.guards()) == (False, ())


def test_no_guard_at_all_is_an_error_of_ours(make: Maker):
    """A table that guards nothing would look like a seal."""
    with pytest.raises(ValueError, match="remove it"):
        make().replace(())


def test_doors_listen(make: Maker):
    """Each is a listening socket at the port that it names, and does not block."""
    doors = make().doors()
    assert doors
    for door in doors:
        with socket.socket(fileno=door.fd) as sock:
            assert sock.getsockname()[1] == door.port
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
            assert not os.get_blocking(sock.fileno())
            assert (sock.family is socket.AF_INET6) == (door.family == "ip6")


def test_a_socket_that_is_let_through_stays_the_callers(make: Maker):
    """It is neither closed nor connected."""
    with socket.socket() as sock:
        make().let_through(sock.fileno())
        assert sock.fileno() >= 0
