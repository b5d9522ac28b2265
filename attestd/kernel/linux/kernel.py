"""The Linux implementation of ``attestd.evidence.protocol.Kernel``: the one object that the daemon holds."""

from __future__ import annotations

import hashlib
import os
import sys
import time

from msgspec import UNSET

from attestd.errors import Cause, EvidenceError
from attestd.evidence.model import Evidence, InputHolders, Peer
from attestd.evidence.protocol import AbsentRecorder, Collected, Feature
from attestd.evidence.recorder import Recorder
from attestd.evidence.tcp import TcpPeer
from attestd.kernel.linux import chain, features, holders, proven
from attestd.kernel.linux.files import FileReader
from attestd.kernel.linux.labels import OwnNamespaces
from attestd.kernel.linux.origins import Origins
from attestd.kernel.linux.peer import read_peer
from attestd.kernel.linux.process import gone
from attestd.kernel.linux.reading import Sources
from attestd.kernel.linux.table import Observed, ProcessTable
from attestd.kernel.linux.tcp.attest import TcpAttestation, is_tcp
from attestd.kernel.linux.watch import LinuxWatch

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

_MACHINE_ID_FILES = ("/etc/machine-id", "/var/lib/dbus/machine-id")


def boot_id() -> str:
    """The kernel's random name of this boot, a UUID. Raises OSError."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def host_id() -> str | None:
    """A stable name of this machine: 32 hex digits of a hash of its machine id; None if it has none."""
    for path in _MACHINE_ID_FILES:
        try:
            with open(path, "rb") as file:
                secret = file.read().strip()
        except OSError:
            continue
        if secret:
            return hashlib.sha256(b"attestd host v1\n" + secret).hexdigest()[:32]
    return None


class LinuxKernel:
    """Implements ``Kernel``. Probes the machine once, when it is made; safe for several threads afterwards."""

    def __init__(self, recorder: Recorder | None = None, *, table_limit: int | None = None) -> None:
        self._recorder = recorder or AbsentRecorder()
        self._tcp = TcpAttestation(self._recorder)
        self._features = features.probe()
        present = {feature.name: feature.present for feature in self._features}
        self._exe_forgeable = not present["exe_not_forgeable"]
        self.files = FileReader(frozen_executables=present["executable_frozen"])
        self.origins = Origins()
        self._boot_id = boot_id()
        self._table = ProcessTable(Sources(self.files, self.origins, OwnNamespaces.read(), self._recorder), table_limit)

    def peer(self, sock_fd: int) -> Peer:
        """See the protocol."""
        if is_tcp(sock_fd):
            return self._tcp.peer(sock_fd)
        found, pidfd = read_peer(sock_fd)
        os.close(pidfd)
        return found

    def collect(self, sock_fd: int, peer: Peer) -> Collected:
        """See the protocol. The socket is asked again, and must still name the peer that was seen."""
        if is_tcp(sock_fd):
            tcp, named, pidfd = self._tcp.find(sock_fd, peer)
            try:
                return self._collected(named, pidfd, sock_fd, tcp)
            finally:
                os.close(pidfd)
        found, pidfd = read_peer(sock_fd)
        try:
            if (found.pid, found.uid) != (peer.pid, peer.uid):
                raise EvidenceError(
                    Cause.INCONSISTENT,
                    f"cannot attest the peer: got process {found.pid}, expected {peer.pid} as at accept",
                )
            return self._collected(found, pidfd, sock_fd)
        finally:
            os.close(pidfd)

    def collect_pid(self, pid: int) -> Collected:
        """See the protocol."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise gone(pid) from error
        try:
            owner = os.stat(f"/proc/{pid}")
            named = Peer(pid=pid, uid=owner.st_uid, gid=owner.st_gid, groups=(), security_label=None, source="pid")
            return self._collected(named, pidfd)
        except FileNotFoundError as error:
            raise gone(pid) from error
        finally:
            os.close(pidfd)

    def input_holders(self, pid: int) -> InputHolders:
        """See the protocol. Raises EvidenceError(PEER_GONE)."""
        return holders.input_holders(pid)

    def features(self) -> tuple[Feature, ...]:
        """See the protocol."""
        return self._features

    def close(self) -> None:
        """Forget every process; watches that were handed out stay valid."""
        self._table.close()
        self._tcp.close()

    def _collected(self, named: Peer, pidfd: int, sock_fd: int | None = None, tcp: TcpPeer | None = None) -> Collected:
        state, reason = self._recorder.state()
        links, end = chain.walk(self._table, named.pid, pidfd)
        try:
            if tcp is not None:
                self._tcp.confirm(tcp, links[0])
            proof = self._proof(links, sock_fd, tcp) if state == "on" else proven.NOTHING
            evidence = Evidence(
                peer=named,
                chain=tuple(observed.link for observed in links),
                end=end,
                boot_id=self._boot_id,
                recorder=state,
                recorder_reason=reason,
                exe_forgeable=self._exe_forgeable,
                collected_ns=time.time_ns(),
                proven_upto=proof.index,
                proven_reason=proof.reason,
                tcp=UNSET if tcp is None else tcp,
            )
            return Collected(evidence=evidence, watch=LinuxWatch(links, self._recorder))
        except BaseException:
            chain.release(links)
            raise

    def _proof(self, links: list[Observed], sock_fd: int | None, tcp: TcpPeer | None) -> proven.Proven:
        if tcp is not None:
            return proven.upto(links, self._recorder, tcp.cookie)
        return proven.upto(links, self._recorder, proven.unix_cookie(sock_fd))
