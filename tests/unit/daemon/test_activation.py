"""Sockets that were passed: real descriptors, and each thing that one may not be."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attestd.daemon.activation import Passed, require_at, require_loopback, take, take_named
from attestd.errors import ConfigurationError

PID = 4242
FIRST = 200
"""Descriptors are laid here, out of the way of pytest's own."""

Pass = Callable[..., dict[str, str]]


@pytest.fixture(name="laid")
def _laid() -> Iterator[Pass]:
    used: list[int] = []

    def lay(*named: tuple[str, socket.socket]) -> dict[str, str]:
        for fd, (_, sock) in enumerate(named, FIRST):
            os.dup2(sock.fileno(), fd)
            used.append(fd)
            sock.close()
        names = ":".join(name for name, _ in named)
        return {"LISTEN_PID": str(PID), "LISTEN_FDS": str(len(named)), "LISTEN_FDNAMES": names}

    yield lay
    for fd in used:
        try:
            os.close(fd)
        except OSError:
            continue  # closed with the socket that took it


def listening(path: Path, *, credentials: bool = True) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, credentials)
    sock.bind(str(path))
    sock.listen()
    return sock


def loopback(address: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.bind((address, 0))
    sock.listen()
    return sock


def test_each_name_has_its_place(short_tmp: Path, laid: Pass):
    """Control, HTTP and the servers' sockets are told apart, non-blocking and not for children."""
    environ = laid(
        ("control", listening(short_tmp / "c")), ("http", loopback()), ("mcp-a.b", listening(short_tmp / "s"))
    )
    passed = take(environ, PID, first=FIRST)
    assert environ == {}
    assert passed.control is not None
    assert passed.control.getsockname() == str(short_tmp / "c")
    assert [len(passed.http), *passed.servers] == [1, "a.b"]
    assert not passed.control.getblocking()
    assert not passed.control.get_inheritable()
    passed.close()


@pytest.mark.parametrize("environ", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "control"}])
def test_nothing_was_passed(environ: dict[str, str]):
    """What another process was passed is not ours."""
    assert take(environ, PID) == Passed()


@pytest.mark.parametrize(("number", "names"), [("2", "control"), ("9999", "control")])
def test_as_many_names_as_descriptors(number: str, names: str):
    """A descriptor without a name is refused, for nobody knows what it is."""
    environ = {"LISTEN_PID": str(PID), "LISTEN_FDS": number, "LISTEN_FDNAMES": names}
    with pytest.raises(ConfigurationError, match="expected as many names"):
        take(environ, PID)


@pytest.mark.parametrize("names", [("what",), ("control", "control"), ("mcp-x", "mcp-x")])
def test_unknown_and_repeated_names_are_refused(short_tmp: Path, laid: Pass, names: tuple[str, ...]):
    """A socket that nobody asked for would stay open, unwatched."""
    environ = laid(*((name, listening(short_tmp / str(i))) for i, name in enumerate(names)))
    with pytest.raises(ConfigurationError, match=r"got the name '.*', expected 'control' once"):
        take(environ, PID, first=FIRST)


def test_only_listening_stream_sockets(short_tmp: Path, laid: Pass):
    """A connected pair, a datagram socket and a file are refused."""
    one, other = socket.socketpair()
    with other, pytest.raises(ConfigurationError, match="does not listen"):
        take(laid(("control", one)), PID, first=FIRST)
    with pytest.raises(ConfigurationError, match="SOCK_DGRAM"):
        take(laid(("control", socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))), PID, first=FIRST)
    file = os.open(short_tmp / "file", os.O_CREAT | os.O_RDWR)
    os.dup2(file, FIRST)
    os.close(file)
    with pytest.raises(ConfigurationError, match="expected a listening socket"):
        take({"LISTEN_PID": str(PID), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "control"}, PID, first=FIRST)


def test_the_right_unix_socket(short_tmp: Path):
    """It is adopted as it is."""
    with listening(short_tmp / "c") as sock:
        require_at(sock, short_tmp / "c")


def test_a_unix_socket_elsewhere(short_tmp: Path):
    """Another path, or none of a Unix socket, is refused."""
    with listening(short_tmp / "c") as sock, pytest.raises(ConfigurationError, match=r"expected .*/other"):
        require_at(sock, short_tmp / "other")
    with loopback() as sock, pytest.raises(ConfigurationError, match="AF_INET"):
        require_at(sock, short_tmp / "c")


def test_a_socket_whose_writers_would_be_unknown(short_tmp: Path):
    """Credentials must have been asked for before anybody could connect."""
    with listening(short_tmp / "c", credentials=False) as sock, pytest.raises(ConfigurationError, match="name their"):
        require_at(sock, short_tmp / "c")


def test_a_path_that_leads_elsewhere(short_tmp: Path):
    """The file is gone, or another one lies there: whoever connects would reach somebody else."""
    with listening(short_tmp / "c") as sock:
        (short_tmp / "c").unlink()
        with pytest.raises(ConfigurationError, match="nobody can connect"):
            require_at(sock, short_tmp / "c")
        (short_tmp / "c").write_text("")
        with pytest.raises(ConfigurationError, match="expected a socket of uid"):
            require_at(sock, short_tmp / "c")


def test_only_our_port_of_loopback(short_tmp: Path):
    """Another port, every address, and a Unix socket are refused."""
    with loopback() as right, loopback("0.0.0.0") as wide, listening(short_tmp / "c") as unix:
        port = right.getsockname()[1]
        require_loopback((right,), port)
        for sockets, wanted in (((right,), port + 1), ((right, wide), port), ((unix,), port)):
            with pytest.raises(ConfigurationError, match="expected a loopback address"):
                require_loopback(sockets, wanted)


def test_what_launchd_made(short_tmp: Path, laid: Pass):
    """Its sockets are adopted by name and verified as those of systemd; names that the job has not are none."""
    laid(("control", listening(short_tmp / "c")))
    passed = take_named(lambda name: (FIRST,) if name == "control" else ())
    assert passed.control is not None
    assert passed.control.getsockname() == str(short_tmp / "c")
    assert (passed.http, passed.servers) == ((), {})
    passed.close()
    assert take_named(lambda _: ()) == Passed()


def test_launchd_refuses(laid: Pass):
    """A second take, and a descriptor that does not listen, are errors of the configuration."""

    def taken(name: str) -> tuple[int, ...]:
        raise OSError(114, f"{name} was taken")

    with pytest.raises(ConfigurationError, match="cannot take the sockets of launchd: control was taken"):
        take_named(taken)
    laid(("control", socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)))
    with pytest.raises(ConfigurationError, match="does not listen"):
        take_named(lambda name: (FIRST,) if name == "control" else ())
