"""``evidence.sealing.Sealer`` on Linux: a table of nftables for each instance of attestd, and transparent listeners.

Rules
- The table is named after the state directory, so a restarted daemon finds its own, and two daemons never touch each
  other's.
- The mark is another one for each process: ``replace`` installs it together with the rules.
- pyroute2 is loaded with the first rule that is written or read: see ``unixdiag``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Final, Literal, TypeVar

from attestd.evidence.sealing import Door, Guard, SealError
from attestd.kernel.linux.sealing import netlink

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

PREFIX: Final = "attestd-seal-"
BACKLOG: Final = 512
SO_MARK: Final = 36
KUBERNETES: Final = 0xC000
"""Bits on which kube-proxy drops or translates packets, whatever the other bits are."""
_TRANSPARENT: Final[tuple[tuple[Literal["ip", "ip6"], socket.AddressFamily, str, int, int], ...]] = (
    ("ip", socket.AF_INET, "127.0.0.1", socket.IPPROTO_IP, 19),
    ("ip6", socket.AF_INET6, "::1", socket.IPPROTO_IPV6, 75),
)
"""Family, address, and level and number of IP_TRANSPARENT and IPV6_TRANSPARENT."""
_ABSENT: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
_UNKNOWN: Final = frozenset(
    {errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EINVAL, errno.ENOPROTOOPT}
)
HINT_RIGHT: Final = (
    "run attestd as root, or start it with the capability NET_ADMIN, for example from a system unit with "
    "User= and AmbientCapabilities=CAP_NET_ADMIN"
)
HINT_KERNEL: Final = "use a kernel with nftables, its inet family, and the expressions reject and tproxy"

T = TypeVar("T")


class LinuxSealer:
    """Implements ``Sealer``."""

    def __init__(self, state: Path) -> None:
        """``state`` is the state directory of the instance."""
        name = os.fsencode(state.resolve())
        self.table = PREFIX + hashlib.sha256(b"attestd seal v1\n" + name).hexdigest()[:12]
        self._mark = (secrets.randbits(31) & ~KUBERNETES) | 1

    def exists(self) -> bool:
        """See the protocol."""
        return _guarded("look at", lambda: netlink.table_exists(self.table))

    def guards(self) -> tuple[Guard, ...]:
        """See the protocol."""
        return guards_of(self.table)

    def replace(self, guards: tuple[Guard, ...]) -> None:
        """See the protocol."""
        if not guards:
            raise ValueError("an empty table seals nothing: remove it")
        rules = _rules()
        requests = rules.replacing(self.table, self._mark, guards)
        try:
            _guarded("install", lambda: netlink.commit(requests))
        except _NoTableError as error:
            raise SealError(f"cannot seal: {error.message}", hint=HINT_KERNEL) from error

    def remove(self) -> None:
        """See the protocol."""
        remove_table(self.table)

    def doors(self) -> tuple[Door, ...]:
        """See the protocol."""
        opened: list[Door] = []
        try:
            for family, domain, address, level, option in _TRANSPARENT:
                sock = _guarded("listen for", partial(_listener, domain, address, level, option))
                if sock is not None:
                    port = int(sock.getsockname()[1])
                    opened.append(Door(fd=sock.detach(), family=family, port=port))
        except SealError:
            for door in opened:
                os.close(door.fd)
            raise
        return tuple(opened)

    def let_through(self, sock_fd: int) -> None:
        """See the protocol."""
        with socket.socket(fileno=os.dup(sock_fd)) as sock:
            _guarded("pass", lambda: sock.setsockopt(socket.SOL_SOCKET, SO_MARK, self._mark))


def tables() -> tuple[str, ...]:
    """The tables of every instance in this network namespace. Raises SealError."""
    rules = _rules()
    found = _guarded("look at", lambda: netlink.ask(rules.asking_for_tables(), dump=True))
    return tuple(name for name in map(rules.read_table, found) if name.startswith(PREFIX))


def guards_of(table: str) -> tuple[Guard, ...]:
    """What one table guards; nothing if there is no such table. Raises SealError."""
    rules = _rules()
    try:
        found = _guarded("look at", lambda: netlink.ask(rules.asking_for_rules(table), dump=True))
    except _NoTableError:
        return ()
    return tuple(guard for guard in map(rules.read_guard, found) if guard is not None)


def remove_table(table: str) -> None:
    """Open what one table guards; nothing happens if there is no such table. Raises SealError."""
    rules = _rules()
    try:
        _guarded("undo", lambda: netlink.commit(rules.removing(table)))
    except _NoTableError:
        return


class _NoTableError(SealError):
    """There is no such table."""


def _guarded(what: str, act: Callable[[], T]) -> T:
    try:
        return act()
    except FileNotFoundError as error:
        raise _NoTableError(f"cannot {what} seals: there is no such table") from error
    except PermissionError as error:
        raise SealError(f"cannot {what} seals: attestd has no right to change nftables", hint=HINT_RIGHT) from error
    except OSError as error:
        hint = HINT_KERNEL if error.errno in _UNKNOWN else ""
        raise SealError(f"cannot {what} seals: {error.strerror or error}", hint=hint) from error


def _listener(family: socket.AddressFamily, address: str, level: int, option: int) -> socket.socket | None:
    """None where the machine has no such address."""
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise
    try:
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        sock.setsockopt(level, option, 1)
        if family is socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, 0))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno in _ABSENT:
            return None
        raise
    return sock


def _rules() -> ModuleType:
    from attestd.kernel.linux.sealing import rules  # noqa: PLC0415 - see the head of the module

    return rules
