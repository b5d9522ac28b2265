"""What the daemon may send to the launcher of system mode, and who the kernel says has sent it.

Standard library only: this runs in an isolated interpreter.

Rules
- A message counts if the kernel names the very process that connected as its writer, with the daemon's uid.
- It is ``start`` NUL NAME and brings the server's ends of three pipes, its line (see ``program``) and, unless it
  is shared, a pidfd of the client that the server is for. Anything more, less or different ends the connection.
"""

import array
import fcntl
import os
import socket
import stat
import struct
import sys
from collections.abc import Callable, Sequence
from functools import partial

from attestd.launch.program import close_all
from attestd.launch.registry import NAME

if sys.platform != "linux":
    sys.exit("error: cannot launch servers on this platform: the launcher needs Linux")

MESSAGE = b"start\0"
MESSAGE_BYTES = 80
DESCRIPTORS = 253
"""As many as the kernel lets one message bring."""
CREDENTIALS = struct.Struct("=iII")


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Process and uid that connected."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, uid, _gid = CREDENTIALS.unpack(found)
    return pid, uid


def receive(control: socket.socket, writer: tuple[int, int]) -> tuple[str, list[int]] | None:
    """One order: the server's name and its descriptors, which are what they should be; None at the end.

    Raises ConnectionError: it is no order, or ``writer`` (process, uid) did not write it.
    """
    fds = array.array("i")
    space = socket.CMSG_SPACE(CREDENTIALS.size) + socket.CMSG_SPACE(DESCRIPTORS * fds.itemsize)
    message, ancillary, flags, _ = control.recvmsg(MESSAGE_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    wrote: tuple[int, ...] = ()
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            wrote = CREDENTIALS.unpack(data)[:2]
    if not message and not fds:
        return None
    wrong = _wrong(message, flags, fds)
    if wrote != writer:
        wrong = f"got a message of process {wrote}, expected {writer}"
    if wrong:
        close_all(fds)
        raise ConnectionError(wrong)
    return message.removeprefix(MESSAGE).decode(), list(fds)


def _wrong(message: bytes, flags: int, fds: Sequence[int]) -> str:
    """Why this is no order; empty if it is one."""
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        return f"got a message above {MESSAGE_BYTES} bytes or {DESCRIPTORS} descriptors"
    if not message.startswith(MESSAGE) or not NAME.match(message.removeprefix(MESSAGE).decode("ascii", "replace")):
        return f"got the message {message[:40]!r}, expected the name of a server"
    if len(fds) not in (4, 5) or not all(kind(fd) for kind, fd in zip(KINDS, fds, strict=False)):
        return f"got {len(fds)} descriptors, expected three pipes, a line and at most one client"
    return ""


def _pipe(access: int, fd: int) -> bool:
    return stat.S_ISFIFO(os.fstat(fd).st_mode) and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == access


def _line(fd: int) -> bool:
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return False
    with socket.socket(fileno=os.dup(fd)) as sock:
        return (sock.family, sock.type) == (socket.AF_UNIX, socket.SOCK_SEQPACKET)


KINDS: tuple[Callable[[int], bool], ...] = (
    partial(_pipe, os.O_RDONLY),
    partial(_pipe, os.O_WRONLY),
    partial(_pipe, os.O_WRONLY),
    _line,
)
"""What the descriptors are. Whether the fifth is a process is found out when it is asked who that is."""
