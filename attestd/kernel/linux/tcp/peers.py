"""The peer of a loopback TCP connection: the recorder's word if there is one, else whoever has the socket.

Rules: ``lookup`` costs microseconds and says who connected; ``examine`` looks through /proc for every holder and is
what an attestation must call before it believes a lookup, for TCP has no writer of a message. A holder found by
scanning may have been given the socket, and may have executed anything since the connect: ``exec_changed`` is then not
known. Recent peers are remembered only as a place to look first: each is looked at again.
"""

from __future__ import annotations

import socket
import threading
from collections import OrderedDict

import msgspec

from attestd.evidence.recorder import Connection, ProcessKey, Recorder
from attestd.evidence.tcp import TcpPeer
from attestd.kernel.linux.connector.glance import TICK_NS
from attestd.kernel.linux.tcp.diag import Diag, Found
from attestd.kernel.linux.tcp.holders import Holder, holder, scan, still_holds

RECENT = 64
_FIRST = 4
"""Recent peers of a uid that are looked at before everyone else is."""

SHARED = "several processes hold the socket: any of them may have written"
HANDED_OVER = "the process that connected does not hold the socket any more"
CONNECTOR_EXITED = "the process that connected has exited, another holds its socket"
CONTESTED = "more than one process or image called connect on the socket"
EXEC_CHANGED = "the process executed another program after it connected"
EXEC_UNKNOWN = "whether the process executed another program after it connected is not known"
SCANNED = "found by who holds the socket now, not by who connected it"
NO_HOLDER = "no process was found that holds the socket: hidden from us, or in flight between two"
UNEXAMINED = "other holders of the socket were not looked for"


class TcpPeers:
    """Answers who is at the other end of connections that we accepted. Safe for several threads."""

    def __init__(self, recorder: Recorder) -> None:
        """``recorder`` stays its owner's. Raises OSError where the kernel has no sock_diag."""
        self._recorder = recorder
        self._diag = Diag()
        self._lock = threading.Lock()
        self._recent: OrderedDict[tuple[int, int], Holder] = OrderedDict()

    def close(self) -> None:
        """Close the netlink socket. Idempotent."""
        self._diag.close()

    def uid(self, accepted: socket.socket) -> int:
        """Whose socket the other end is: one question to the kernel. Raises EvidenceError; see ``Diag.client``."""
        return self._diag.client(accepted).uid

    def lookup(self, accepted: socket.socket) -> TcpPeer:
        """Who connected, at once; without a recorder's word this scans unless a recent peer has the socket.

        Raises:
            EvidenceError: PEER_GONE, FOREIGN_NAMESPACE, UNATTESTABLE; see ``Diag.client``.
        """
        found = self._diag.client(accepted)
        connection = self._recorder.connection(found.cookie)
        if connection is not None:
            return self._recorded(found, connection)
        near = self._among_recent(found)
        if near is not None:
            return _held(found, (near,), examined=False)
        return self._scan(found)

    def examine(self, peer: TcpPeer) -> TcpPeer:
        """The same peer with every holder that can be found; takes milliseconds."""
        found = Found(cookie=peer.cookie, uid=peer.uid, inode=peer.inode, state=0)
        scanned = self._scan(found)
        return scanned if peer.source != "recorder" else _with_holders(peer, scanned.holders)

    def _recorded(self, found: Found, connection: Connection) -> TcpPeer:
        record = self._recorder.process(connection.key)
        reasons = [UNEXAMINED]
        changed = None
        if record is not None and (record.counter_exact or record.exec_counter != connection.exec_counter):
            changed = record.exec_counter != connection.exec_counter
        if changed is not False:
            reasons.append(EXEC_CHANGED if changed else EXEC_UNKNOWN)
        exited = record is not None and record.exited_ns is not None
        if exited:
            reasons.append(CONNECTOR_EXITED)
        if connection.contested:
            reasons.append(CONTESTED)
        return TcpPeer(
            cookie=found.cookie,
            inode=found.inode,
            uid=found.uid,
            source="recorder",
            key=connection.key,
            candidates=(connection.key,),
            holders=(),
            examined=False,
            shared=True if exited or connection.contested else None,
            exec_changed=changed,
            reasons=tuple(reasons),
        )

    def _among_recent(self, found: Found) -> Holder | None:
        """A recent peer of this uid that has the socket: the very connection first, then the latest ones."""
        with self._lock:
            same = self._recent.get((found.uid, found.cookie))
            latest = [each for (uid, _), each in reversed(self._recent.items()) if uid == found.uid]
        if same is not None and still_holds(same, found.inode, found.cookie):
            return same
        for pid in list(dict.fromkeys(each.key.pid for each in latest))[:_FIRST]:
            near = holder(pid, found.inode, found.cookie)
            if near is not None:
                self._remember(found, near)
                return near
        return None

    def _scan(self, found: Found) -> TcpPeer:
        holders = scan(found.inode, found.cookie, found.uid) or scan(found.inode, found.cookie, None)
        for each in holders:
            self._remember(found, each)
        return _held(found, holders, examined=True)

    def _remember(self, found: Found, near: Holder) -> None:
        with self._lock:
            self._recent[found.uid, found.cookie] = near
            self._recent.move_to_end((found.uid, found.cookie))
            while len(self._recent) > RECENT:
                self._recent.popitem(last=False)


def _held(found: Found, holders: tuple[Holder, ...], *, examined: bool) -> TcpPeer:
    """A peer that is known only by its holders."""
    keys = tuple(each.key for each in holders)
    reasons = [SCANNED, EXEC_UNKNOWN] if keys else [NO_HOLDER]
    if len(keys) > 1:
        reasons.append(SHARED)
    if not examined:
        reasons.append(UNEXAMINED)
    return TcpPeer(
        cookie=found.cookie,
        inode=found.inode,
        uid=found.uid,
        source="scan" if keys else "none",
        key=keys[0] if len(keys) == 1 else None,
        candidates=keys,
        holders=keys,
        examined=examined,
        shared=len(keys) > 1 if examined and keys else None,
        exec_changed=None,
        reasons=tuple(reasons),
    )


def _with_holders(peer: TcpPeer, holders: tuple[ProcessKey, ...]) -> TcpPeer:
    """A recorded peer after its holders were looked for."""
    reasons = [reason for reason in peer.reasons if reason != UNEXAMINED]
    others = tuple(key for key in holders if peer.key is None or not _same(key, peer.key))
    if not holders:
        reasons.append(NO_HOLDER)
    elif len(others) == len(holders) and CONNECTOR_EXITED not in reasons:
        reasons.append(HANDED_OVER)
    if len(holders) > 1:
        reasons.append(SHARED)
    connector = () if peer.key is None else (peer.key,)
    return msgspec.structs.replace(
        peer,
        candidates=connector + others,
        holders=holders,
        examined=True,
        shared=True if others or peer.shared else (False if holders else None),
        reasons=tuple(reasons),
    )


def _same(cut: ProcessKey, key: ProcessKey) -> bool:
    """Whether a key whose start time is cut to the tick names the process of ``key``."""
    return cut.pid == key.pid and cut.start_ns == key.start_ns - key.start_ns % TICK_NS
