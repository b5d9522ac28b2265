"""The other side of a loopback TCP connection that attestd made: who accepted it.

A listening socket may be shared by several processes, and several programs may listen on one port, so what is asked is
not who listens but who has accepted this very connection. Until somebody has, nobody has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec


class Acceptor(msgspec.Struct, frozen=True, kw_only=True):
    """The processes that hold the accepted socket at this moment."""

    cookie: int
    """The kernel's number of the accepted socket; never used twice."""
    inode: int
    uid: int
    """Of whoever accepted it."""
    pids: tuple[int, ...]
    """Never empty."""


class Acceptors(Protocol):
    """Implemented by the kernel room."""

    def find(self, sock_fd: int, near: Iterable[int]) -> Acceptor | None:
        """Who accepted a connection of ours; None: nobody yet. Looks at the processes ``near`` first.

        May take milliseconds. Raises EvidenceError: PEER_GONE, FOREIGN_NAMESPACE, UNATTESTABLE.
        """

    def holds(self, pid: int, acceptor: Acceptor) -> bool:
        """Whether ``pid`` has the accepted socket now."""
