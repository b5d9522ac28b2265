"""Nothing is said to a socket that is not proven to be attestd's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from attestd.control.daemon_proof import SYSTEM_SOCKET, Place, Us, candidates, find, owner, prove_listener
from attestd.errors import ExitCode, UnreachableError
from tests.support.control_instance import Installation

root_only = pytest.mark.root


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """Scripts and a runtime directory."""
    return Installation(tmp_path)


def us(installation: Installation) -> Us:
    """Who runs ``bin/attestctl`` of that installation."""
    return Us(uid=os.geteuid(), interpreter=Path(sys.executable), scripts=(installation.bin,))


def bound(path: Path) -> socket.socket:
    """A listening socket of this very process."""
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


def test_the_users_socket_comes_before_the_systems() -> None:
    """XDG_RUNTIME_DIR, or /run/user/UID where it is not set or not absolute, then the system's path."""
    assert [place.path for place in candidates(7, {"XDG_RUNTIME_DIR": "/x"})] == [
        Path("/x/attestd/control.sock"),
        SYSTEM_SOCKET,
    ]
    for environ in ({}, {"XDG_RUNTIME_DIR": ""}, {"XDG_RUNTIME_DIR": "relative"}):
        assert candidates(7, environ)[0].path == Path("/run/user/7/attestd/control.sock")


def test_no_socket_at_all_says_where_it_looked(tmp_path: Path) -> None:
    """The error names both places and how to start attestd."""
    with pytest.raises(UnreachableError) as caught:
        find(None, 0, {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert str(tmp_path) in caught.value.message
    assert str(SYSTEM_SOCKET) in caught.value.message
    assert "attestd run --user" in caught.value.hint
    assert caught.value.exit_code is ExitCode.UNREACHABLE


def test_an_explicit_socket_is_taken_as_it_is(tmp_path: Path) -> None:
    """``--socket`` wins, and the system's path stays the system's."""
    assert find(tmp_path / "s", 0, {}) == Place(path=tmp_path / "s", system=False)
    assert find(SYSTEM_SOCKET, 0, {}).system


def test_what_is_found_first_is_used_even_if_it_is_bad(installation: Installation) -> None:
    """A planted file at the user's path is an error, never a reason to try the next place."""
    installation.socket.write_text("")
    place = find(None, os.geteuid(), installation.environment())
    assert place.path == installation.socket
    with pytest.raises(UnreachableError, match="not a socket"):
        owner(place, us(installation))


def test_a_symbolic_link_is_not_a_socket(installation: Installation, tmp_path: Path) -> None:
    """The socket itself must lie at the path."""
    with bound(tmp_path / "s"):
        installation.socket.symlink_to(tmp_path / "s")
        with pytest.raises(UnreachableError, match="not a socket"):
            owner(Place(path=installation.socket, system=False), us(installation))


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_a_directory_that_others_can_write_is_refused(installation: Installation, mode: int) -> None:
    """Others who can write the directory can replace the socket, sticky or not."""
    with bound(installation.socket):
        installation.socket.parent.chmod(mode)
        with pytest.raises(UnreachableError, match="can write it"):
            owner(Place(path=installation.socket, system=False), us(installation))


def test_a_directory_further_up_that_others_can_write_is_refused(installation: Installation) -> None:
    """Who can rename a directory above the socket can replace it; a sticky one is fine."""
    place = Place(path=installation.socket, system=False)
    with bound(installation.socket):
        installation.runtime.chmod(0o777)
        with pytest.raises(UnreachableError, match="can write it"):
            owner(place, us(installation))
        installation.runtime.chmod(0o1777)
        assert owner(place, us(installation)) == os.geteuid()


@pytest.mark.root
@root_only
def test_a_socket_of_another_user_is_refused(installation: Installation) -> None:
    """A socket that is neither ours nor root's is not attestd's."""
    with bound(installation.socket):
        os.chown(installation.socket, 12345, 12345)
        with pytest.raises(UnreachableError, match="12345"):
            owner(Place(path=installation.socket, system=False), us(installation))


@pytest.mark.root
@root_only
def test_a_directory_of_another_user_is_refused(installation: Installation) -> None:
    """Our own socket in somebody else's directory could be replaced by them."""
    with bound(installation.socket):
        os.chown(installation.socket.parent, 12345, 12345)
        with pytest.raises(UnreachableError, match="12345"):
            owner(Place(path=installation.socket, system=False), us(installation))


@pytest.mark.root
@root_only
def test_the_systems_socket_belongs_to_whom_root_gave_its_directory(installation: Installation) -> None:
    """At the system's path the owner of the directory may serve, whoever that is, if all above is root's."""
    with bound(installation.socket):
        for path in (installation.socket, installation.socket.parent):
            os.chown(path, 12345, 12345)
        assert owner(Place(path=installation.socket, system=True), us(installation)) == 12345


@pytest.mark.root
@root_only
def test_the_systems_socket_may_be_the_service_managers(installation: Installation) -> None:
    """Root may have made the socket in the service's directory, and listen there until the service does."""
    place = Place(path=installation.socket, system=True)
    with bound(installation.socket), socket.socket(socket.AF_UNIX) as sock:
        os.chown(installation.socket.parent, 12345, 12345)
        assert owner(place, us(installation)) == 12345
        sock.connect(str(installation.socket))
        assert prove_listener(sock, place, 12345, us(installation)) == os.getpid()


@pytest.mark.root
@root_only
def test_a_listener_of_another_uid_is_refused(installation: Installation) -> None:
    """The kernel's word on who listens must equal the owner of the file."""
    with bound(installation.socket), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(installation.socket))
        with pytest.raises(UnreachableError, match="got a listener of uid 0, expected the socket's owner, uid 12345"):
            prove_listener(sock, Place(path=installation.socket, system=False), 12345, us(installation))


def test_another_program_of_ours_is_refused(installation: Installation) -> None:
    """A process of the same user that is not the attestd script is not attestd: here, this very test."""
    with bound(installation.socket), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(installation.socket))
        with pytest.raises(UnreachableError, match=f"pid {os.getpid()} listens there"):
            prove_listener(sock, Place(path=installation.socket, system=False), os.geteuid(), us(installation))


def test_the_attestd_beside_us_is_accepted(installation: Installation) -> None:
    """Same interpreter and the script that lies beside our attestctl: the daemon."""
    with installation.daemon() as process, socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(installation.socket))
        place = Place(path=installation.socket, system=False)
        assert prove_listener(sock, place, os.geteuid(), us(installation)) == process.pid


def test_an_attestd_from_elsewhere_is_refused(installation: Installation, tmp_path: Path) -> None:
    """A script of the same name and content in another place is another program."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    copy = elsewhere / "attestd"
    copy.write_bytes(installation.attestd.read_bytes())
    copy.chmod(0o755)
    with installation.daemon(script=copy), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(installation.socket))
        with pytest.raises(UnreachableError, match="not the attestd of this installation"):
            prove_listener(sock, Place(path=installation.socket, system=False), os.geteuid(), us(installation))


def test_another_interpreter_is_refused(installation: Installation) -> None:
    """The right script under another executable is another program."""
    with installation.daemon(), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(installation.socket))
        other = Us(uid=os.geteuid(), interpreter=Path("/bin/sh"), scripts=(installation.bin,))
        with pytest.raises(UnreachableError, match="not the attestd of this installation"):
            prove_listener(sock, Place(path=installation.socket, system=False), os.geteuid(), other)


def test_a_listener_that_has_gone_is_refused(installation: Installation) -> None:
    """A process that made the socket, handed it on and ended cannot be looked at."""
    listener = bound(installation.socket)
    code = f"import os, socket, sys\ns = socket.socket(fileno={listener.fileno()})\ns.listen()\nos._exit(0)\n"
    subprocess.run([sys.executable, "-c", code], pass_fds=[listener.fileno()], check=True)
    with listener, socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(installation.socket))
        with pytest.raises(UnreachableError, match="cannot look at pid"):
            prove_listener(sock, Place(path=installation.socket, system=False), os.geteuid(), us(installation))


def test_here_names_the_running_program() -> None:
    """The running process is its effective user, its interpreter, and the directories of its script."""
    here = Us.here()
    assert here.uid == os.geteuid()
    assert here.interpreter == Path(sys.executable)
    assert Path(sys.executable).parent in here.scripts
