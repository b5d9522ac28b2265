"""Steps 0 and 1 for the peer of a loopback TCP connection.

Step 0 asks inet_diag for the client's socket: its uid, for the limits. Step 1 finds the process (the recorder's word,
or whoever has the descriptor), opens it, and only believes it if it still has the socket after its chain was read.
Where several may have written, one of them is shown and the evidence says that there are several: that is level 0.
"""

from __future__ import annotations

import os
import socket
import sys

from attestd.errors import Cause, EvidenceError
from attestd.evidence.model import Peer
from attestd.evidence.recorder import Recorder
from attestd.evidence.tcp import TcpPeer
from attestd.kernel.linux.process import gone
from attestd.kernel.linux.recorded import same_process
from attestd.kernel.linux.table import Observed
from attestd.kernel.linux.tcp.holders import holder
from attestd.kernel.linux.tcp.peers import NO_HOLDER, TcpPeers

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

SOURCE = "tcp"


class TcpAttestation:
    """The TCP half of ``LinuxKernel``. Safe for several threads."""

    def __init__(self, recorder: Recorder) -> None:
        """Opens a netlink socket with the first question."""
        self._recorder = recorder
        self._peers: TcpPeers | None = None

    def close(self) -> None:
        """Close the netlink socket. Idempotent."""
        if self._peers is not None:
            self._peers.close()

    def peer(self, sock_fd: int) -> Peer:
        """Step 0: whose socket it is. The process is not known yet: pid 0. Raises EvidenceError."""
        with _socket(sock_fd) as accepted:
            return _peer(0, self._known().uid(accepted))

    def find(self, sock_fd: int, peer: Peer) -> tuple[TcpPeer, Peer, int]:
        """The process at the other end, and a pidfd of it that the caller owns. May take milliseconds.

        Raises:
            EvidenceError: PEER_GONE, INCONSISTENT, UNATTESTABLE.
        """
        with _socket(sock_fd) as accepted:
            known = self._known().lookup(accepted)
        if not known.examined:
            known = self._known().examine(known)
        if known.uid != peer.uid:
            raise EvidenceError(
                Cause.INCONSISTENT, f"cannot attest a tcp peer: got uid {known.uid}, expected {peer.uid} as at accept"
            )
        key = known.key or next(iter(known.candidates), None)
        if key is None or not known.holders:
            raise EvidenceError(
                Cause.UNATTESTABLE,
                f"cannot attest a tcp peer: {NO_HOLDER}",
                hint="use the unix socket, or run attestd as the system service",
            )
        try:
            pidfd = os.pidfd_open(key.pid)
        except OSError as error:
            raise gone(key.pid) from error
        return known, _peer(key.pid, known.uid), pidfd

    @staticmethod
    def confirm(known: TcpPeer, observed: Observed) -> None:
        """The process whose chain was read is the one that was found, and still has the socket.

        Raises:
            EvidenceError: PEER_GONE: it is another one, or has let go.
        """
        link = observed.link
        keys = [key for key in (known.key, *known.candidates) if key is not None and key.pid == link.pid]
        if not any(same_process(key, link.pid, link.start_ticks) for key in keys):
            raise gone(link.pid)
        if known.shared is False and holder(link.pid, known.inode, known.cookie) is None:
            raise EvidenceError(
                Cause.PEER_GONE, f"cannot attest a tcp peer: process {link.pid} has let go of the connection"
            )

    def _known(self) -> TcpPeers:
        if self._peers is None:
            try:
                self._peers = TcpPeers(self._recorder)
            except OSError as error:
                raise EvidenceError(
                    Cause.UNATTESTABLE, f"cannot attest tcp peers: sock_diag: {error.strerror}"
                ) from error
        return self._peers


def is_tcp(sock_fd: int) -> bool:
    """Whether it is an internet socket."""
    with _socket(sock_fd) as sock:
        return sock.family in {socket.AF_INET, socket.AF_INET6}


def _socket(sock_fd: int) -> socket.socket:
    return socket.socket(fileno=os.dup(sock_fd))


def _peer(pid: int, uid: int) -> Peer:
    return Peer(pid=pid, uid=uid, gid=-1, groups=(), security_label=None, source=SOURCE)
