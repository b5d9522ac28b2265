from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from attestd.kernel.linux.unixdiag import peer_inode, socket_inode


def test_the_other_end_of_a_pair_is_found():
    """Each end of a socket pair names the other."""
    left, right = socket.socketpair()
    with left, right:
        one, other = os.fstat(left.fileno()).st_ino, os.fstat(right.fileno()).st_ino
        assert peer_inode(one) == other
        assert peer_inode(other) == one


def test_an_unconnected_or_unknown_socket_has_no_other_end():
    """No answer is None, not an error."""
    with socket.socket(socket.AF_UNIX) as lonely:
        assert peer_inode(os.fstat(lonely.fileno()).st_ino) is None
    assert peer_inode(4_000_000_000) is None


async def test_it_works_inside_a_running_event_loop():
    """The query needs no loop of its own."""
    left, right = socket.socketpair()
    with left, right:
        assert peer_inode(os.fstat(left.fileno()).st_ino) == os.fstat(right.fileno()).st_ino


@pytest.mark.parametrize(("text", "inode"), [("socket:[12]", 12), ("pipe:[12]", None), ("/x/socket:[1]", None)])
def test_only_socket_links_have_a_socket_inode(text: str, inode: int | None):
    """Link texts of other things give None."""
    assert socket_inode(text) == inode


def test_the_daemon_starts_without_pyroute2():
    """Loading the daemon does not load pyroute2, which is large; the first query does."""
    script = "import attestd.daemon.service, sys; sys.exit('pyroute2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
