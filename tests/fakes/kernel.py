"""A kernel that knows one process, with behaviour: it counts what is open, and can fail or hang."""

from __future__ import annotations

import socket
import struct
import threading

from attestd.errors import Cause, EvidenceError
from attestd.evidence.model import Evidence, InputHolders, Peer
from attestd.evidence.protocol import Collected, Feature

UCRED = struct.Struct("=iII")


class FakeWatch:
    """A watch; ``found`` is what it says, ``fds`` what becomes readable when the peer exits."""

    def __init__(self, kernel: OneProcess | None = None, fds: tuple[int, ...] = ()) -> None:
        self.found: Cause | None = None
        self.pinned: list[int] = []
        self.closed = False
        self.connected = True
        self._kernel = kernel
        self._fds = fds

    def verify(self, writer_pid: int) -> Cause | None:
        """As told."""
        del writer_pid
        return self.found

    def exit_fds(self) -> tuple[int, ...]:
        """As told."""
        return self._fds

    def pin_accountable(self, index: int) -> None:
        """Remember it."""
        self.pinned.append(index)

    def leave_connection(self) -> None:
        """Remember it."""
        self.connected = False

    def set_aside(self) -> None:
        """Nothing is looked at, so nothing is looked at less."""

    def close(self) -> None:
        """One watch less."""
        if not self.closed and self._kernel is not None:
            self._kernel.open -= 1
        self.closed = True


class OneProcess:
    """Implements ``evidence.protocol.Kernel``; every peer is the process of ``evidence``."""

    def __init__(self, evidence: Evidence, holders: InputHolders | Exception | None = None) -> None:
        self.evidence = evidence
        self.holders = holders
        self.open = 0
        """Watches that are open."""
        self.watches: list[FakeWatch] = []
        self.failure: Exception | None = None
        self.peer_failure: EvidenceError | OSError | None = None
        self.go_on = threading.Event()
        """Cleared: collecting hangs until it is set."""
        self.go_on.set()
        self.collecting = threading.Semaphore(0)
        """Released once for every collection that has begun."""

    def peer(self, sock_fd: int) -> Peer:
        """The connector, as SO_PEERCRED names it."""
        if self.peer_failure is not None:
            raise self.peer_failure
        with socket.socket(fileno=socket.dup(sock_fd)) as sock:
            pid, uid, gid = UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
        return Peer(pid=pid, uid=uid, gid=gid, groups=(gid,), security_label=None, source="pid-only")

    def collect(self, sock_fd: int, peer: Peer) -> Collected:
        """The one."""
        del sock_fd, peer
        self.collecting.release()
        self.go_on.wait(30)
        if self.failure is not None:
            raise self.failure
        self.open += 1
        watch = FakeWatch(self)
        self.watches.append(watch)
        return Collected(evidence=self.evidence, watch=watch)

    def collect_pid(self, pid: int) -> Collected:
        """The one, too."""
        return self.collect(-1, Peer(pid=pid, uid=0, gid=0, groups=(), security_label=None, source="pid"))

    def input_holders(self, pid: int) -> InputHolders:
        """As told."""
        del pid
        if isinstance(self.holders, Exception):
            raise self.holders
        if self.holders is None:
            return InputHolders(kind="none", pids=(), complete=True)
        return self.holders

    def features(self) -> tuple[Feature, ...]:
        """None."""
        return ()

    def examine(self) -> tuple[Feature, ...]:
        """Two: one that is there, one of the recorder's that is not."""
        return (
            Feature(name="pidfd", present=True, detail="works"),
            Feature(name="tp_btf", present=False, detail="no", remedy="use 5.11", cost="no record", group="recorder"),
        )
