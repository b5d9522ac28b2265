"""Step 0: the kernel's word on who connected to a Unix socket. Cheap, no file of the peer is read.

Rules: SO_PEERCRED names the connector of the moment of connect(); its pid may have been used again since.
SO_PEERPIDFD names the connector for ever, so it is asked as well and the two must agree. Where it does not exist
(before Linux 6.5) the pid is opened and then proved: the process must hold the socket that sock_diag calls the other
end of ours (``proved``), else the evidence says ``pid-only``. pid 0 is a peer outside our pid namespace and is
refused.
"""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
import sys

from attestd.errors import Cause, EvidenceError
from attestd.evidence.model import Peer
from attestd.kernel.linux.abi import SO_PEERGROUPS, SO_PEERPIDFD, SO_PEERSEC, pidfd_info, pidfd_pid
from attestd.kernel.linux.process import gone
from attestd.kernel.linux.unixdiag import peer_inode, socket_inode

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

_CREDENTIALS = struct.Struct("=iII")
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""What is ours to lack, and no fact about the peer."""
_ABSENT = frozenset({errno.ENOPROTOOPT, errno.EOPNOTSUPP})
_RIGHTS_SPACE = socket.CMSG_SPACE(253 * 4)  # SCM_MAX_FD descriptors


def read_peer(sock_fd: int) -> tuple[Peer, int]:
    """The connector of the Unix socket ``sock_fd`` and a pidfd of it, owned by the caller.

    Raises:
        EvidenceError: PEER_GONE - it has exited and was reaped; FOREIGN_NAMESPACE - it is outside our pid namespace;
            UNATTESTABLE - the socket has no peer credentials (not a connected Unix stream socket).
        OSError: no descriptors or memory are left; that says nothing about the peer.
    """
    with socket.socket(fileno=os.dup(sock_fd)) as sock:
        pid, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if pid < 0 or sock.family != socket.AF_UNIX:
            raise EvidenceError(Cause.UNATTESTABLE, "cannot attest the peer: this socket carries no peer credentials")
        if pid == 0:
            raise _foreign()
        pidfd, source = _peer_pidfd(sock, pid)
        try:
            peer = Peer(pid=pid, uid=uid, gid=gid, groups=_groups(sock), security_label=_label(sock), source=source)
            _confirm(pidfd, pid)
        except BaseException:
            os.close(pidfd)
            raise
    return peer, pidfd


def _foreign() -> EvidenceError:
    return EvidenceError(
        Cause.FOREIGN_NAMESPACE,
        "cannot attest the peer: it is outside the pid namespace of this daemon",
        hint="run attestd in the initial pid namespace of the host",
    )


def _confirm(pidfd: int, pid: int) -> None:
    """The process behind ``pidfd`` is alive, visible to us and has this pid."""
    try:
        found = pidfd_info(pidfd).pid
    except ProcessLookupError as error:
        raise gone(pid) from error
    except OSError as error:
        if error.errno == errno.EREMOTE:
            raise _foreign() from error
        found = pidfd_pid(pidfd)
    if found == 0:
        raise _foreign()
    if found != pid:
        raise gone(pid)


def _peer_pidfd(sock: socket.socket, pid: int) -> tuple[int, str]:
    try:
        return sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD), "peerpidfd"
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        if error.errno not in _ABSENT:  # ESRCH, EINVAL: reaped, on kernels that give no pidfd for it
            raise gone(pid) from error
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        raise gone(pid) from error
    return pidfd, "proved" if holds_other_end(sock.fileno(), pid) else "pid-only"


def holds_other_end(sock_fd: int, pid: int) -> bool:
    """Whether process ``pid`` has the socket that ``sock_fd`` is connected to. False where that cannot be told."""
    try:
        other = peer_inode(os.fstat(sock_fd).st_ino)
        directory = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return other is not None and any(_fd_socket(directory, name) == other for name in os.listdir(directory))
    finally:
        os.close(directory)


def _fd_socket(directory: int, name: str) -> int | None:
    try:
        return socket_inode(os.readlink(name, dir_fd=directory))
    except OSError:
        return None


def _groups(sock: socket.socket) -> tuple[int, ...]:
    size = 256
    while size <= 4 * 65536:
        try:
            raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, size)
        except OSError as error:
            if error.errno != errno.ERANGE:
                return ()
            size *= 4
            continue
        return tuple(array.array("I", raw))
    return ()


def _label(sock: socket.socket) -> str | None:
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERSEC, 1024)
    except OSError:
        return None
    return raw.rstrip(b"\0").decode("utf-8", "replace") or None


def set_passcred(listener: socket.socket) -> None:
    """Make accepted sockets name the writer of each message, data sent before accept included."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


def recv_with_writer(sock: socket.socket, bufsize: int) -> tuple[bytes, int, int, bool]:
    """Receive at most ``bufsize`` bytes that one process wrote.

    Descriptors that came along are closed at once.

    Returns:
        The bytes; pid and uid of their writer, ``(0, -1)`` where the kernel named none; whether the stream has ended.

    Raises:
        OSError: as recvmsg(2), BlockingIOError included.
    """
    space = socket.CMSG_SPACE(_CREDENTIALS.size) + _RIGHTS_SPACE
    data, ancillary, _flags, _address = sock.recvmsg(bufsize, space, socket.MSG_CMSG_CLOEXEC)
    pid, uid = 0, -1
    for level, kind, content in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_CREDENTIALS:
            pid, uid, _gid = _CREDENTIALS.unpack(content)
        elif kind == socket.SCM_RIGHTS:
            for fd in array.array("i", content[: len(content) // 4 * 4]):
                os.close(fd)
    return data, pid, uid, not data
