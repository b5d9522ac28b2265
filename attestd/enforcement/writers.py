"""Who wrote what is read from a Unix socket, as far as this kernel tells, and how much waits there.

Linux names the writer of every read, if SO_PASSCRED was set before the bytes were queued: on the listener, so that each
accepted connection inherits it. No read mixes two writers, and descriptors that come along are dropped by the kernel
where there is no room for them.

macOS names no writer. LOCAL_PEERPID tells whose pid used the other end *last*; it is asked after every read, so a
program that writes there is seen unless the peer used its socket again in between (docs/macos.md). There is always room
for descriptors, and they are closed here: whether that kernel drops what has no room is not documented.

0 stands for nobody: the kernel names no process, or the other end is closed.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import sys
import termios
from collections.abc import Sequence
from typing import NamedTuple

UCRED = struct.Struct("=iII")
SCM_CREDENTIALS = 2
_DESCRIPTOR_BYTES = array.array("i").itemsize
_MAX_DESCRIPTORS = 512
"""More than either kernel lets one message bring."""


class Received(NamedTuple):
    """One read."""

    data: bytes
    """Empty at the end of the stream."""
    writer: int
    fds: tuple[int, ...]
    """Descriptors that came along, closed on exec: the caller's to close."""
    cut: bool
    """More came along than there was room for."""


if sys.platform == "linux":
    CREDENTIALS_SPACE = socket.CMSG_SPACE(UCRED.size)

    def name_writers(listener: socket.socket) -> None:
        """Before it listens: its connections shall name their writers."""
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def are_named(listener: socket.socket) -> bool:
        """Whether its connections tell of their writers what this kernel can tell."""
        return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED))

    def read(sock: socket.socket, size: int) -> tuple[bytes, int]:
        """Bytes and their writer. Raises OSError, BlockingIOError first."""
        data, ancillary, _flags, _address = sock.recvmsg(size, CREDENTIALS_SPACE)
        return data, writer(ancillary)

    def read_all(sock: socket.socket, size: int, descriptors: int) -> Received:
        """The same with up to so many descriptors. Raises OSError, BlockingIOError first."""
        room = CREDENTIALS_SPACE + (socket.CMSG_SPACE(descriptors * _DESCRIPTOR_BYTES) if descriptors else 0)
        data, ancillary, flags, _address = sock.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
        return Received(data, writer(ancillary), _descriptors(ancillary), bool(flags & socket.MSG_CTRUNC))

else:
    SOL_LOCAL = 0
    LOCAL_PEERPID = 2

    def name_writers(listener: socket.socket) -> None:
        """Nothing has to be asked for."""
        del listener

    def are_named(listener: socket.socket) -> bool:
        """Whether its connections tell of their writers what this kernel can tell."""
        return listener.family == socket.AF_UNIX

    def read(sock: socket.socket, size: int) -> tuple[bytes, int]:
        """Bytes and who used the other end last. Raises OSError, BlockingIOError first."""
        found = read_all(sock, size, 0)
        for fd in found.fds:
            os.close(fd)
        return found.data, found.writer

    def read_all(sock: socket.socket, size: int, descriptors: int) -> Received:
        """The same with the descriptors that came along; ``cut``: more than ``descriptors`` of them."""
        data, ancillary, flags, _address = sock.recvmsg(size, socket.CMSG_SPACE(_MAX_DESCRIPTORS * _DESCRIPTOR_BYTES))
        fds = _descriptors(ancillary)
        for fd in fds:
            os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library's signature
        return Received(data, _last_user(sock), fds, bool(flags & socket.MSG_CTRUNC) or len(fds) > descriptors)

    def _last_user(sock: socket.socket) -> int:
        if sock.family != socket.AF_UNIX:
            return 0
        try:
            return sock.getsockopt(SOL_LOCAL, LOCAL_PEERPID)
        except OSError:
            return 0


def queued_bytes(connection: socket.socket) -> int:
    """Bytes that wait to be read on a stream socket (FIONREAD)."""
    return int(struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.FIONREAD, b"\0" * 4))[0])


def writer(ancillary: Sequence[tuple[int, int, bytes]]) -> int:
    """The pid that Linux names as the writer."""
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == SCM_CREDENTIALS:
            return int(UCRED.unpack_from(value)[0])
    return 0


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> tuple[int, ...]:
    fds = array.array("i")
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(value[: len(value) - len(value) % fds.itemsize])
    return tuple(fds)
