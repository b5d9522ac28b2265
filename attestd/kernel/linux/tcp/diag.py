"""One exact inet_diag query: the client's socket of a connection that we accepted.

Rules:
- The layouts are those of linux/inet_diag.h (pyroute2 has them too, and the tests hold them against each other;
  encoding through it costs more than this whole query).
- The kernel answers an exact query with a *listening* socket of the client's port when the connection is gone, and with
  a new socket that only tries to connect from there. So the answer counts only if its four addresses are the
  connection's and its state is one of an open connection.
- inode 0 is a socket whose process is gone; its uid then reads 0, which is not root.
- The client's address and port may belong to another connection by now, if ours is closed. So our own socket must still
  be open *after* the answer: as long as it is, no other connection can have these four addresses.
- A v4-mapped IPv6 address is asked for as IPv4, which finds clients of either family.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
import threading
from typing import NamedTuple

from attestd.errors import Cause, EvidenceError

if sys.platform != "linux":
    raise ImportError(f"cannot use Linux interfaces on {sys.platform}")

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_REQUEST = struct.Struct("=IHHIIBBBxIHH16s16sIII")
_ANSWER = struct.Struct("=IHHIIBBxxHH16s16sIQIIIII")
_REQUEST_TAIL = (0, 0xFFFFFFFF, 0xFFFFFFFF)  # any interface, any cookie
_MAPPED = b"\0" * 10 + b"\xff\xff"
_TCP_CLOSE = 7
_OPEN = frozenset({1, 4, 5, 8})
"""ESTABLISHED, FIN_WAIT1 and FIN_WAIT2 (it writes no more), CLOSE_WAIT (we write no more)."""
_FAMILIES = {2: socket.AF_INET, 4: socket.AF_INET6}
"""By the length of an address as Python has it: quicker than asking the socket."""
_TIMEOUT = struct.pack("=qq", 1, 0)  # struct timeval of a 64-bit kernel
_BUFFER = 4096


class Ends(NamedTuple):
    """A connection as the client's socket has it: family, then the client's and our port and packed address."""

    family: int
    port: int
    our_port: int
    address: bytes
    our_address: bytes


class Found(NamedTuple):
    """The client's socket."""

    cookie: int
    uid: int
    inode: int
    state: int


class Diag:
    """A netlink socket that is kept open for queries. Safe for several threads."""

    def __init__(self) -> None:
        """Open it. Raises OSError where the kernel has no sock_diag."""
        self._door = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
        self._door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
        self._lock = threading.Lock()
        self._sequence = 0

    def close(self) -> None:
        """Close the netlink socket. Idempotent."""
        self._door.close()

    def client(self, accepted: socket.socket) -> Found:
        """The client's socket of a TCP connection that we accepted.

        Raises:
            EvidenceError: PEER_GONE - the client closed it, or no process has it; FOREIGN_NAMESPACE - it is not a
                socket of this network namespace; UNATTESTABLE - not a loopback connection, or sock_diag does not
                answer.
        """
        ends = ends_of(accepted)
        try:
            answer = self._ask(ends)
        except OSError as error:
            raise EvidenceError(
                Cause.UNATTESTABLE, f"cannot ask for the other end of a tcp connection: {_words(error)}"
            ) from error
        if not is_open(accepted):
            raise _gone()
        if answer is None:
            raise EvidenceError(
                Cause.FOREIGN_NAMESPACE,
                "cannot attest a tcp peer: no socket in this network namespace is its other end",
                hint="connect from the host's network namespace, or use the unix socket",
            )
        found = accept_answer(answer, ends)
        if found is None:
            raise _gone()
        return found

    def server(self, connected: socket.socket) -> Found | None:
        """The other end of a TCP connection that we made; None: it waits to be accepted.

        Raises:
            EvidenceError: PEER_GONE - it is closed; FOREIGN_NAMESPACE - its other end is not in this network
                namespace; UNATTESTABLE - not a loopback connection, or sock_diag does not answer.
        """
        ends = ends_of(connected)
        try:
            answer = self._ask(ends)
        except OSError as error:
            raise EvidenceError(
                Cause.UNATTESTABLE, f"cannot ask for the other end of a tcp connection: {_words(error)}"
            ) from error
        if not is_open(connected):
            raise EvidenceError(Cause.PEER_GONE, "cannot attest the server: it has closed the connection")
        if answer is None:
            raise EvidenceError(
                Cause.FOREIGN_NAMESPACE,
                "cannot attest the server: no socket in this network namespace is the connection's other end",
                hint="a server in a container is reached through a unix socket",
            )
        return accept_answer(answer, ends)

    def _ask(self, ends: Ends) -> bytes | None:
        with self._lock:
            self._sequence = (self._sequence + 1) & 0x7FFFFFFF
            self._door.send(request(ends, self._sequence))
            while True:
                answer = self._door.recv(_BUFFER)
                kind, _flags, sequence = struct.unpack_from("=HHI", answer, 4)
                if sequence == self._sequence:
                    break  # an older one is the late answer of a question that timed out
        if kind == _NLMSG_ERROR:
            number = -int.from_bytes(answer[16:20], "little", signed=True)
            if number == errno.ENOENT:
                return None
            raise OSError(number, os.strerror(number))
        return answer


def request(ends: Ends, sequence: int) -> bytes:
    """The exact query for the client's socket."""
    return _REQUEST.pack(
        _REQUEST.size,
        _SOCK_DIAG_BY_FAMILY,
        _NLM_F_REQUEST,
        sequence,
        0,
        ends.family,
        socket.IPPROTO_TCP,
        0,
        0xFFFFFFFF,
        socket.htons(ends.port),
        socket.htons(ends.our_port),
        ends.address,
        ends.our_address,
        *_REQUEST_TAIL,
    )


def accept_answer(answer: bytes, ends: Ends) -> Found | None:
    """The socket in an answer if it is the open client's end of this very connection and a process has it."""
    if len(answer) < _ANSWER.size:
        return None
    (_, _, _, _, _, family, state, port, our_port, address, our_address, _, cookie, _, _, _, uid, inode) = (
        _ANSWER.unpack_from(answer)
    )
    same = (
        socket.ntohs(port) == ends.port
        and socket.ntohs(our_port) == ends.our_port
        and _plain(family, address) == _plain(ends.family, ends.address)
        and _plain(family, our_address) == _plain(ends.family, ends.our_address)
    )
    if not same or state not in _OPEN or inode == 0:
        return None
    return Found(cookie=cookie, uid=uid, inode=inode, state=state)


def ends_of(accepted: socket.socket) -> Ends:
    """The four addresses of a connection, v4-mapped ones as IPv4.

    Raises:
        EvidenceError: PEER_GONE - it is not connected any more; UNATTESTABLE - not TCP over loopback.
    """
    try:
        theirs, ours = accepted.getpeername(), accepted.getsockname()
    except OSError as error:
        raise _gone() from error
    width = len(theirs) if isinstance(theirs, tuple) else 0
    if width not in _FAMILIES:
        raise EvidenceError(Cause.UNATTESTABLE, f"cannot attest a tcp peer: got a {accepted.family.name} socket")
    address, our_address = _packed(_FAMILIES[width], theirs[0]), _packed(_FAMILIES[width], ours[0])
    if not (_is_loopback(address) and _is_loopback(our_address)):
        raise EvidenceError(
            Cause.UNATTESTABLE,
            f"cannot attest a tcp peer: got a connection from {theirs[0]} to {ours[0]}, expected loopback addresses",
        )
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    return Ends(family, theirs[1], ours[1], address.ljust(16, b"\0"), our_address.ljust(16, b"\0"))


def is_open(accepted: socket.socket) -> bool:
    """Whether our own socket still has its connection; an error counts as no."""
    try:
        return accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _TCP_CLOSE
    except OSError:
        return False


def _packed(family: int, address: str) -> bytes:
    """4 bytes, or 16 for an address that is not v4-mapped; a scope (``%lo``) is cut off."""
    packed = socket.inet_pton(family, address.partition("%")[0])
    return packed[12:] if packed.startswith(_MAPPED) else packed


def _plain(family: int, address: bytes) -> bytes:
    """An address of an answer or of ``Ends`` without its filling."""
    if family == socket.AF_INET:
        return address[:4]
    return address[12:] if address.startswith(_MAPPED) else address


def _is_loopback(address: bytes) -> bool:
    return address[0] == 127 if len(address) == 4 else address == b"\0" * 15 + b"\1"


def _gone() -> EvidenceError:
    return EvidenceError(Cause.PEER_GONE, "cannot attest a tcp peer: the client has closed the connection")


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
