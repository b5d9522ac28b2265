"""Who accepted a loopback TCP connection that we made: ``evidence.acceptors`` on Linux.

Rules: the four addresses of our open connection name one socket at its other end. While it waits to be accepted it has
no inode, and so no holder. With an inode, its holders are those whose descriptors name it, and where we may copy the
descriptor, the cookie proves it.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable

from attestd.errors import Cause, EvidenceError
from attestd.evidence.acceptors import Acceptor
from attestd.kernel.linux.tcp.diag import Diag
from attestd.kernel.linux.tcp.holders import holder, scan

if sys.platform != "linux":
    raise ImportError(f"cannot use Linux interfaces on {sys.platform}")

SCANS = 3
"""A socket has its inode a moment before its process has the descriptor."""


class LinuxAcceptors:
    """Safe for several threads."""

    def __init__(self) -> None:
        """Raises OSError where the kernel has no sock_diag."""
        self._diag = Diag()

    def close(self) -> None:
        """Close the netlink socket. Idempotent."""
        self._diag.close()

    def find(self, sock_fd: int, near: Iterable[int]) -> Acceptor | None:
        """See the protocol."""
        with socket.socket(fileno=os.dup(sock_fd)) as connected:
            found = self._diag.server(connected)
        if found is None:
            return None
        inode, cookie = found.inode, found.cookie
        pids = tuple(pid for pid in near if holder(pid, inode, cookie) is not None)
        for _ in range(SCANS):
            if pids:
                break
            holders = scan(inode, cookie, found.uid) or scan(inode, cookie, None)
            pids = tuple(each.key.pid for each in holders)
        if not pids:
            raise EvidenceError(
                Cause.UNATTESTABLE,
                "cannot attest the server: no process was found that holds the accepted connection",
                hint="it may run where attestd cannot look; attestd needs CAP_SYS_PTRACE for servers of other users",
            )
        return Acceptor(cookie=cookie, inode=inode, uid=found.uid, pids=pids)

    def holds(self, pid: int, acceptor: Acceptor) -> bool:
        """See the protocol."""
        return holder(pid, acceptor.inode, acceptor.cookie) is not None
