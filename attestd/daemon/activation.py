"""Sockets that the service manager opened for us, or held for us while we were away: sd_listen_fds(3), and launchd's.

Nothing is taken on trust. Each descriptor must be what its name says, else the daemon refuses to start: a listening
stream socket, on the very path or loopback address that this instance serves, whose connections name their writers
(SO_PASSCRED, which must be set before a connection is queued).

launchd is asked for each name of its job, and passes each socket once; it holds nothing of ours.

Names: ``control`` the control socket; ``http`` the loopback port, one for each address family; ``mcp-SERVER`` a socket
that an earlier run of ours gave to the manager to hold.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import sys
from collections.abc import Callable, MutableMapping
from ipaddress import ip_address
from pathlib import Path

import msgspec

from attestd.enforcement.writers import are_named
from attestd.errors import ConfigurationError

FIRST = 3
MOST = 4096
CONTROL = "control"
HTTP = "http"
SERVER = "mcp-"
_HINT = (
    "see the job: launchctl print system/dev.attestd.daemon"
    if sys.platform == "darwin"
    else "see attestd.socket: systemctl cat attestd.socket"
)


class Passed(msgspec.Struct, frozen=True, kw_only=True):
    """What was passed, by name; every socket is non-blocking and closed by whoever takes it."""

    control: socket.socket | None = None
    http: tuple[socket.socket, ...] = ()
    servers: dict[str, socket.socket] = {}
    """By name of the server."""

    def close(self) -> None:
        """Close whatever is left."""
        for sock in (self.control, *self.http, *self.servers.values()):
            if sock is not None:
                sock.close()


def take(environ: MutableMapping[str, str], pid: int, *, first: int = FIRST) -> Passed:
    """Adopt what was passed to process ``pid`` in the descriptors from ``first`` on.

    The variables are taken out of ``environ``. Raises ConfigurationError for a descriptor without a name of ours, that
    is no listening stream socket, or whose name came twice.
    """
    whose, number, names = (environ.pop(f"LISTEN_{name}", "") for name in ("PID", "FDS", "FDNAMES"))
    if whose != str(pid) or not number.isdecimal() or number == "0":
        return Passed()
    count, called = int(number), names.split(":")
    if count > MOST or len(called) != count:
        raise ConfigurationError(
            f"cannot adopt the sockets of the service manager: got {count} descriptors and {len(called)} names, "
            "expected as many names as descriptors",
            hint=_HINT,
        )
    return _adopted(list(enumerate(called, first)))


def take_named(activated: Callable[[str], tuple[int, ...]]) -> Passed:
    """Adopt what launchd made for our job. ``activated(name)``: the descriptors of a name, none where there are none.

    Raises ConfigurationError as ``take``, and where launchd refuses.
    """
    try:
        return _adopted([(fd, name) for name in (CONTROL, HTTP) for fd in activated(name)])
    except OSError as error:
        raise ConfigurationError(
            f"cannot take the sockets of launchd: {error.strerror}",
            hint="see: launchctl print system/dev.attestd.daemon",
        ) from error


def _adopted(named: list[tuple[int, str]]) -> Passed:
    with contextlib.ExitStack() as opened:
        passed = _sorted(named, opened)
        opened.pop_all()
    return passed


def _sorted(named: list[tuple[int, str]], opened: contextlib.ExitStack) -> Passed:
    """Each descriptor in its place; what was adopted is in ``opened``. Raises ConfigurationError."""
    control: list[socket.socket] = []
    http: list[socket.socket] = []
    servers: dict[str, socket.socket] = {}
    for fd, name in named:
        sock = opened.enter_context(_socket(fd, name))
        _require_listening(sock, fd, name)
        if name == CONTROL and not control:
            control.append(sock)
        elif name == HTTP:
            http.append(sock)
        elif name.startswith(SERVER) and name[len(SERVER) :] not in servers:
            servers[name[len(SERVER) :]] = sock
        else:
            raise ConfigurationError(
                f"cannot adopt descriptor {fd}: got the name {name!r}, expected {CONTROL!r} once, {HTTP!r} or "
                f"'{SERVER}SERVER' once for each server",
                hint=_HINT,
            )
    return Passed(control=control[0] if control else None, http=tuple(http), servers=servers)


def _socket(fd: int, name: str) -> socket.socket:
    """The socket behind a descriptor that was passed. Raises ConfigurationError."""
    try:
        os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library's signature
        return socket.socket(fileno=fd)
    except OSError as error:
        raise ConfigurationError(
            f"cannot adopt descriptor {fd} ({name!r}): {error.strerror}, expected a listening socket", hint=_HINT
        ) from error


def _require_listening(sock: socket.socket, fd: int, name: str) -> None:
    """Raises ConfigurationError."""
    accepting = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if sock.type != socket.SOCK_STREAM or not accepting:
        raise ConfigurationError(
            f"cannot adopt descriptor {fd} ({name!r}): got a {sock.type.name} socket that "
            f"{'listens' if accepting else 'does not listen'}, expected a SOCK_STREAM socket that listens",
            hint=_HINT,
        )
    sock.setblocking(False)  # noqa: FBT003 - the standard library's signature


def require_at(sock: socket.socket, path: Path) -> None:
    """A Unix socket that listens at ``path``, where only root and we can have put it, and names its writers.

    Raises ConfigurationError.
    """
    name = sock.getsockname()
    if sock.family != socket.AF_UNIX or name != str(path):
        raise ConfigurationError(
            f"cannot adopt the socket of the service manager: got {sock.family.name} {name!r}, expected {path}",
            hint=_HINT,
        )
    if not are_named(sock):
        raise ConfigurationError(
            f"cannot adopt {path}: its connections would not name their writers, expected PassCredentials=yes",
            hint=_HINT,
        )
    try:
        found = path.lstat()
    except OSError as error:
        raise ConfigurationError(
            f"cannot adopt {path}: {error.strerror}: nobody can connect to it any more", hint=_HINT
        ) from error
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid not in {0, os.geteuid()}:
        raise ConfigurationError(
            f"cannot adopt {path}: got mode {stat.filemode(found.st_mode)} and owner {found.st_uid}, expected a "
            f"socket of uid 0 or {os.geteuid()}",
            hint=_HINT,
        )


def require_loopback(sockets: tuple[socket.socket, ...], port: int) -> None:
    """Loopback addresses with this port and nothing else. Raises ConfigurationError."""
    for sock in sockets:
        address = sock.getsockname()
        inet = sock.family in {socket.AF_INET, socket.AF_INET6}
        if not inet or not ip_address(address[0]).is_loopback or address[1] != port:
            raise ConfigurationError(
                f"cannot adopt the HTTP socket of the service manager: got {sock.family.name} {address!r}, expected "
                f"a loopback address with the port that listen.port names, {port}",
                hint="make attestd-http.socket and attestd.toml say the same",
            )
