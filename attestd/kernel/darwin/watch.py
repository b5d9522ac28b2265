"""Step 4 of mediation on macOS: is it still the process that was attested?

Rules: the token of the socket must still name the attested peer and image: whoever else used the other end last is
another writer. For the peer and each link up to the accountable client: same unique id, same pid version, and the
parent that was attested. For the peer and the accountable client: not traced, and a signature that is still valid and
not debugged; for the peer the same uids. A kqueue tells of exec and exit of both as they happen; it is registered
before the ids are compared, so nothing falls between. It holds processes, not pids.

A message has no writer here: the token says who used the socket *last*, not who wrote these bytes (docs/macos.md).
"""

from __future__ import annotations

import errno
import os

from attestd.errors import Cause
from attestd.kernel.darwin import abi
from attestd.kernel.darwin.libsystem import System
from attestd.kernel.darwin.reading import Observed
from attestd.kernel.darwin.signature import CS_DEBUGGED, CS_VALID


class DarwinWatch:
    """Implements ``attestd.evidence.protocol.Watch``; until ``pin_accountable`` the peer counts as accountable.

    ``sock_fd`` is duplicated; None: the process was named by its pid. Raises ProcessLookupError: the peer has gone.
    """

    def __init__(self, system: System, chain: list[Observed], sock_fd: int | None = None) -> None:
        self._system = system
        self._chain = list(chain)
        self._accountable = 0
        self._closed = False
        self._kq = system.events()
        self._sock = -1
        try:
            system.watch(self._kq, chain[0].link.pid)
            if sock_fd is not None:
                self._sock = os.dup(sock_fd)
        except BaseException:
            self.close()
            raise

    def verify(self, writer_pid: int) -> Cause | None:
        """See the protocol. After ``close`` never None."""
        if self._closed or not self._chain:
            return Cause.PEER_GONE
        if writer_pid and writer_pid != self._chain[0].link.pid:
            return Cause.WRITER_MISMATCH
        try:
            return self._writer_changed() or self._chain_changed() or self._held_changed()
        except ProcessLookupError:
            return Cause.PEER_GONE
        except OSError:
            return Cause.UNATTESTABLE

    def _writer_changed(self) -> Cause | None:
        if self._sock < 0:
            return None
        peer = self._chain[0]
        try:
            token = self._system.token(self._sock)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOTCONN):
                # The last user has gone: the peer itself, or somebody else who used its socket.
                gone = error.errno == errno.ENOTCONN or not self._lives(peer)
                return Cause.PEER_GONE if gone else Cause.WRITER_MISMATCH
            raise
        if token.pid != peer.link.pid:
            return Cause.WRITER_MISMATCH
        if token.version != peer.unique.version:
            return Cause.IMAGE_CHANGED if self._lives(peer) else Cause.PEER_GONE
        return None

    def _lives(self, each: Observed) -> bool:
        try:
            return self._system.unique(each.link.pid).unique_id == each.unique.unique_id
        except ProcessLookupError:
            return False

    def _chain_changed(self) -> Cause | None:
        for index, each in enumerate(self._chain[: self._accountable + 1]):
            now = self._system.unique(each.link.pid)
            if now.unique_id != each.unique.unique_id:
                return Cause.PEER_GONE
            if now.version != each.unique.version:
                return Cause.IMAGE_CHANGED
            if index < self._accountable and self._system.short(each.link.pid).pbsi_ppid != each.link.ppid:
                return Cause.CHAIN_CHANGED
        return None

    def _held_changed(self) -> Cause | None:
        for index in {0, self._accountable}:
            each = self._chain[index]
            short = self._system.short(each.link.pid)
            if short.pbsi_flags & abi.PROC_FLAG_TRACED:
                return Cause.TRACED
            if short.pbsi_status == abi.SZOMB or short.pbsi_flags & abi.PROC_FLAG_INEXIT:
                return Cause.PEER_GONE
            if index == 0 and (short.pbsi_ruid, short.pbsi_uid, short.pbsi_svuid) != each.link.uids[:3]:
                return Cause.INCONSISTENT
            status = self._status(each)
            if status & CS_DEBUGGED:
                return Cause.TRACED
            if each.link.signature is not None and each.link.signature.status & ~status & CS_VALID:
                return Cause.IMAGE_CHANGED
        return None

    def _status(self, each: Observed) -> int:
        answer = self._system.signed(each.link.pid, each.unique.version, abi.CS_OPS_STATUS, 4)
        return int.from_bytes(answer, "little")

    def exit_fds(self) -> tuple[int, ...]:
        """The kqueue: readable once the peer or the accountable client executes or exits; empty after ``close``."""
        return () if self._closed else (self._kq,)

    def set_aside(self) -> None:
        """See the protocol: no relay steps aside here, and every look is whole."""

    def leave_connection(self) -> None:
        """See the protocol: a socket without another end has no token, and our copy would keep it open."""
        if self._sock >= 0:
            os.close(self._sock)
            self._sock = -1

    def pin_accountable(self, index: int) -> None:
        """See the protocol. Raises IndexError for a link that is not there or was released."""
        if not 0 <= index < len(self._chain):
            raise IndexError(f"cannot pin link {index}: the watch holds {len(self._chain)} links")
        del self._chain[index + 1 :]
        self._accountable = index
        if index:
            try:
                self._system.watch(self._kq, self._chain[index].link.pid)
            except OSError:
                self._chain.clear()  # it has gone, so nothing verifies any more

    def close(self) -> None:
        """Release every descriptor. Idempotent."""
        if not self._closed:
            self._closed = True
            os.close(self._kq)
            self.leave_connection()
