"""Which socket is the other end of a Unix socket, by one exact sock_diag query.

The message layouts are pyroute2's; the exchange is one send and one receive on a plain netlink socket, because
pyroute2's own sockets drive an event loop of their own and cannot be used where one is running already. The layouts are
loaded with the first query: importing any part of pyroute2 imports all of it, a third of the daemon's start and memory.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import Any

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

_NETLINK_SOCK_DIAG = 4
_NLMSG_ERROR = 2
_NLM_F_REQUEST = 1
_SHOW_PEER = 4
_ANY_COOKIE = 0xFFFFFFFFFFFFFFFF
_TIMEOUT_S = 1.0


def peer_inode(inode: int) -> int | None:
    """Inode of the socket connected to Unix socket ``inode`` in our network namespace; None: unconnected or unknown.

    Raises:
        OSError: sock_diag is not available (ENOENT means an unknown inode and is answered with None).
    """
    message = _asked(inode)
    found = message.get_attr("UNIX_DIAG_PEER") if message is not None else None
    return int(found) if found else None


def cookie(inode: int) -> int | None:
    """The kernel's number of Unix socket ``inode``, never used twice; None: unknown. Raises as ``peer_inode``."""
    message = _asked(inode)
    return int(message["udiag_cookie"]) if message is not None else None


def _asked(inode: int) -> Any | None:
    from pyroute2.netlink.diag import (  # noqa: PLC0415 - see the head of the module
        SOCK_DIAG_BY_FAMILY,
        unix_diag_msg,
        unix_diag_req,
    )

    request = unix_diag_req()
    request["sdiag_family"] = socket.AF_UNIX
    request["udiag_states"] = 0xFFFFFFFF
    request["udiag_ino"] = inode
    request["udiag_show"] = _SHOW_PEER
    request["udiag_cookie"] = _ANY_COOKIE
    request["header"]["type"] = SOCK_DIAG_BY_FAMILY
    request["header"]["flags"] = _NLM_F_REQUEST
    request["header"]["sequence_number"] = 1
    request.encode()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as door:
        door.settimeout(_TIMEOUT_S)
        door.sendto(bytes(request.data), (0, 0))
        reply = door.recv(8192)
    if int.from_bytes(reply[4:6], "little") == _NLMSG_ERROR:
        number = -int.from_bytes(reply[16:20], "little", signed=True)
        if number == errno.ENOENT:
            return None
        raise OSError(number, os.strerror(number))
    message = unix_diag_msg(reply)
    message.decode()
    return message


def socket_inode(link: str) -> int | None:
    """The inode in ``socket:[123]``, the text of a descriptor link; None for any other text."""
    return int(link[8:-1]) if link.startswith("socket:[") and link.endswith("]") else None
