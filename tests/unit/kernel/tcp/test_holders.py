from __future__ import annotations

import os
import socket

import pytest

from attestd.evidence.recorder import ProcessKey
from attestd.kernel.linux.connector import glance
from attestd.kernel.linux.tcp import holders
from tests.support.children import python, running
from tests.unit.kernel.tcp.test_diag import connected, cookie


def inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def own_key(pid: int) -> ProcessKey:
    seen = glance.look(pid)
    assert seen is not None
    return ProcessKey(pid, seen.start_ns)


@pytest.mark.parametrize("everyone", [False, True])
def test_every_holder_is_found(everyone: bool):
    """We and the child that inherited it, by uid or among everyone; a child without it is not."""
    with (
        connected() as (_accepted, client),
        running("sleep", "99", pass_fds=[client.fileno()]) as twin,
        running("sleep", "99") as other,
    ):
        found = holders.scan(inode(client), cookie(client), None if everyone else os.geteuid())
        assert {each.key for each in found} == {own_key(os.getpid()), own_key(twin.pid)}
        assert other.pid not in {each.key.pid for each in found}
        assert all(each.fd == client.fileno() for each in found)


def test_a_holder_that_hides_its_memory_is_found():
    """Not being dumpable does not change who owns /proc/PID."""
    code = "import ctypes; ctypes.CDLL(None).prctl(4, 0); print('ready', flush=True); input()"
    with connected() as (_accepted, client), python(code, pass_fds=[client.fileno()]) as hidden:
        assert os.stat(f"/proc/{hidden.pid}").st_uid == os.geteuid()
        found = holders.holder(hidden.pid, inode(client), cookie(client))
        if os.geteuid() == 0:
            assert found is not None


def test_another_socket_with_that_number_is_not_it():
    """Inode numbers come round, cookies do not."""
    with connected() as (_accepted, client):
        assert holders.holder(os.getpid(), inode(client), cookie(client)) is not None
        assert holders.holder(os.getpid(), inode(client), cookie(client) + 1) is None
        assert holders.scan(4_000_000_000, 1, os.geteuid()) == ()


def test_a_known_holder_is_looked_at_again():
    """It must hold the same socket at the same descriptor, and be the same process."""
    with connected() as (_accepted, client):
        known = holders.holder(os.getpid(), inode(client), cookie(client))
        assert known is not None
        number, mark = inode(client), cookie(client)
        assert holders.still_holds(known, number, mark)
        younger = known._replace(key=ProcessKey(known.key.pid, known.key.start_ns + glance.TICK_NS))
        assert not holders.still_holds(younger, number, mark)
        assert not holders.still_holds(known._replace(fd=0), number, mark)
        assert not holders.still_holds(known, number, mark + 1)
    assert not holders.still_holds(known, number, mark)


def test_a_descriptor_that_is_no_socket_has_no_cookie():
    """And a process that is gone cannot be asked."""
    assert holders.proven(os.getpid(), 0, 1) is False
    assert holders.proven(2**22 + 5, 0, 1) is None
    assert holders.holder(2**22 + 5, 1, 1) is None


def test_the_proof_leaves_the_clients_flags_alone():
    """Copying a descriptor shares its flags with the client."""
    with connected() as (_accepted, client):
        socket.setdefaulttimeout(5)
        try:
            assert holders.proven(os.getpid(), client.fileno(), cookie(client))
        finally:
            socket.setdefaulttimeout(None)
        assert os.get_blocking(client.fileno())
