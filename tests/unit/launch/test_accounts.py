"""Whom a server runs as; the attacks on it are in tests/attacks/test_l03_whose_server.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from attestd.launch import accounts
from attestd.launch.accounts import SHARED, IsolatedUids, named, of_client, pid_of
from attestd.launch.refusal import RefusedError

ROOT = Path(__file__).resolve().parents[3]


def test_a_client_is_who_the_kernel_says():
    """Uid, gid and groups of a live process through its pidfd are those of the process; once it is dead it is nobody."""
    with subprocess.Popen(["sleep", "100"]) as process:
        fd = os.pidfd_open(process.pid)
        assert pid_of(fd) == process.pid
        found = of_client(fd)
        process.kill()
        process.wait()
        with pytest.raises(RefusedError, match="has gone"):
            of_client(fd)
        os.close(fd)
    assert (found.uid, found.gid, set(found.groups)) == (os.getuid(), os.getgid(), set(os.getgroups()))
    assert (found.name, found.home) == ("", "/")


def test_what_is_no_pidfd():
    """A file with a pidfd's name, and a pipe, are no process."""
    for fd in (os.memfd_create("anon_inode:[pidfd]"), os.eventfd(0)):
        with pytest.raises(RefusedError, match="sent no process"):
            of_client(fd)
        os.close(fd)


def test_an_account_comes_from_the_files(tmp_path: Path):
    """Uid, gid, home and every group that names it, without comments and without the name service's lines."""
    (tmp_path / "passwd").write_text("#x:y\n+nis\nmcp:x:700:701::/srv/mcp:/bin/sh\nhalf:x:1\nhome:x:5:6:::\n")
    (tmp_path / "group").write_text("own:x:701:\none:x:800:mcp,other\ntwo:x:801:other\nthree:x:802:other,mcp\n")
    found = named("mcp", str(tmp_path))
    assert (found.uid, found.gid, found.groups, found.name, found.home) == (
        700,
        701,
        (701, 800, 802),
        "mcp",
        "/srv/mcp",
    )
    assert named("home", str(tmp_path)).home == "/"
    for name in ("half", "nis", "own", ""):
        with pytest.raises(RefusedError, match="there is no account"):
            named(name, str(tmp_path))
    with pytest.raises(RefusedError, match="cannot read"):
        named("mcp", str(tmp_path / "nosuch"))


def test_an_isolated_uid_is_kept(tmp_path: Path):
    """Pairs get uids of their own, the same ones again, also from a book that was opened anew; the book can be read."""
    path = str(tmp_path / "book")
    first = IsolatedUids(path, 1000, 1002)
    found = [first.account(*pair).uid for pair in (("a", 1), ("a", 2), ("a", 1), ("b", SHARED))]
    assert found == [1000, 1001, 1000, 1002]
    assert [IsolatedUids(path, 1000, 1002).account(*pair).uid for pair in (("b", SHARED), ("a", 2))] == [1002, 1001]
    assert Path(path).read_text() == "1000 a 1\n1001 a 2\n1002 b -1\n"
    assert first.account("a", 1).groups == ()
    with pytest.raises(RefusedError, match="no isolated uid is left of 1000-1002"):
        first.account("c", 1)


def test_a_book_that_cannot_be_trusted(tmp_path: Path):
    """A line that is none, a uid outside of the range, a link or no directory: refused, and nothing is given out."""
    path = tmp_path / "book"
    path.write_text("nonsense\n")
    with pytest.raises(RefusedError, match="cannot keep the isolated uids"):
        IsolatedUids(str(path), 1000, 1002).account("a", 1)
    path.write_text("0 a 1\n")
    with pytest.raises(RefusedError, match=r"isolated uid \S+ is outside of 1000-1002|no isolated uid"):
        IsolatedUids(str(path), 1000, 1002).account("a", 1)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError, match="cannot keep the isolated uids"):
        IsolatedUids(str(path), 1000, 1002).account("a", 1)
    with pytest.raises(RefusedError, match="cannot keep the isolated uids"):
        IsolatedUids(str(tmp_path / "nosuch" / "book"), 1000, 1002).account("a", 1)


def test_processes_that_ask_at_once_get_different_ones(tmp_path: Path):
    """Four processes with twenty callers each, all at the same time: eighty uids, none twice."""
    source = (
        "import sys; from attestd.launch.accounts import IsolatedUids; book = IsolatedUids(sys.argv[1], 1000, 1999)\n"
        "print(*(book.account('s', int(sys.argv[2]) * 100 + n).uid for n in range(20)))"
    )
    words = [[sys.executable, "-c", source, str(tmp_path / "book"), str(n)] for n in range(4)]
    running = [subprocess.Popen(each, stdout=subprocess.PIPE, text=True, cwd=ROOT) for each in words]
    found = [int(word) for process in running for word in process.communicate()[0].split()]
    assert len(found) == len(set(found)) == 80


def test_the_dead_are_told_from_the_living():
    """A pidfd of ourselves has not exited."""
    fd = os.pidfd_open(os.getpid())
    assert not accounts.exited(fd)
    os.close(fd)
