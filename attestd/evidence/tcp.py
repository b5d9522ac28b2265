"""The peer of a loopback TCP connection: who connected, who holds the socket now, what is not known.

Rules: TCP has no writer of a message, so more than one holder, a connector that is gone or another image since connect
make the connection ambiguous, and that is a reason, never an error. None means not known, never "no". Holders are a
lower bound: a descriptor in flight between two processes, or inside an io_uring, has none.
"""

from __future__ import annotations

import msgspec

from attestd.evidence.recorder import ProcessKey


class TcpPeer(msgspec.Struct, frozen=True, kw_only=True):
    """The other end of one connection, alive when it was asked for."""

    cookie: int
    """The kernel's number of the client's socket; never used twice."""
    inode: int
    """Of the client's socket; never 0."""
    uid: int
    """Of whoever created the client's socket."""
    source: str
    """recorder (the kernel's word at connect) | scan (whoever has the descriptor) | none"""
    key: ProcessKey | None
    """The connector, or the only holder. None: nobody, or several may be it; see ``candidates``."""
    candidates: tuple[ProcessKey, ...]
    """Everyone who may have written: the connector and the holders."""
    holders: tuple[ProcessKey, ...]
    """Processes found with a descriptor of the client's socket; empty until they were looked for."""
    examined: bool
    """Whether holders were looked for among every process of ``uid``."""
    shared: bool | None
    """More than one process has, or had, the socket. None: not examined and nothing speaks for it."""
    exec_changed: bool | None
    """The connector executed something since it connected. None: not known."""
    reasons: tuple[str, ...]
    """What makes the identity weaker than a Unix socket's, in words for a person."""
