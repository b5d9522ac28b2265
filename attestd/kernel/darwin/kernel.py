"""The macOS implementation of ``attestd.evidence.protocol.Kernel``: the one object that the daemon holds.

The kernel names the running image by its signature, so an executable cannot be forged as on Linux
(``exe_forgeable`` is False) and there is no recorder. It does not tell whether a process executed another program
between its connect and our accept, so nothing is ever proven older or younger without a challenge.
"""

from __future__ import annotations

import hashlib
import os
import time

from attestd.errors import Cause, EvidenceError
from attestd.evidence.model import Evidence, InputHolders, Peer
from attestd.evidence.protocol import Collected, Feature
from attestd.kernel.darwin import chain, features, holders
from attestd.kernel.darwin.files import FileReader
from attestd.kernel.darwin.libsystem import Functions, System, load
from attestd.kernel.darwin.peer import read_peer
from attestd.kernel.darwin.reading import gone
from attestd.kernel.darwin.watch import DarwinWatch

_NO_RECORDER = "macOS needs no recorder to name an image, and has none that proves what ran before"


def boot_id(system: System) -> str:
    """The kernel's random name of this boot, a UUID in lower case. Raises OSError."""
    return system.setting(b"kern.bootsessionuuid").decode("ascii", "replace").lower()


def host_id(functions: Functions | None = None) -> str | None:
    """A stable name of this machine: 32 hex digits of a hash of its UUID; None if it has none."""
    try:
        secret = System(functions or load()).host_uuid()
    except OSError:
        return None
    return hashlib.sha256(b"attestd host v1\n" + secret).hexdigest()[:32]


def own_image() -> str:
    """The executable that we ourselves run: Python of a framework starts another one than ``sys.executable``."""
    return System(load()).path(os.getpid())


class DarwinKernel:
    """Implements ``Kernel``. Probes the machine once, when it is made; safe for several threads afterwards."""

    def __init__(self, functions: Functions | None = None) -> None:
        self._system = System(functions or load())
        self._files = FileReader(self._system)
        self._features = features.probe(self._system)
        self._boot_id = boot_id(self._system)

    def peer(self, sock_fd: int) -> Peer:
        """See the protocol."""
        return read_peer(self._system, sock_fd)

    def collect(self, sock_fd: int, peer: Peer) -> Collected:
        """See the protocol. The socket is asked again, and must still name the image that was seen."""
        found = read_peer(self._system, sock_fd)
        if (found.pid, found.pid_version, found.uid) != (peer.pid, peer.pid_version, peer.uid):
            raise EvidenceError(
                Cause.INCONSISTENT,
                f"cannot attest the peer: got process {found.pid} version {found.pid_version}, "
                f"expected {peer.pid} version {peer.pid_version} as at accept",
            )
        return self._collected(found, sock_fd)

    def collect_pid(self, pid: int) -> Collected:
        """See the protocol."""
        try:
            short = self._system.short(pid)
        except ProcessLookupError as error:
            raise gone(pid) from error
        named = Peer(pid=pid, uid=short.pbsi_uid, gid=short.pbsi_gid, groups=(), security_label=None, source="pid")
        return self._collected(named)

    def input_holders(self, pid: int) -> InputHolders:
        """See the protocol. Raises EvidenceError(PEER_GONE)."""
        return holders.input_holders(self._system, pid)

    def features(self) -> tuple[Feature, ...]:
        """See the protocol."""
        return self._features

    def examine(self) -> tuple[Feature, ...]:
        """See the protocol: there is nothing more to probe here."""
        return self._features

    def close(self) -> None:
        """Nothing is held between collections."""

    def _collected(self, named: Peer, sock_fd: int | None = None) -> Collected:
        links, end = chain.walk(self._system, self._files, named.pid)
        if named.pid_version is not None and links[0].unique.version != named.pid_version:
            raise EvidenceError(
                Cause.INCONSISTENT, f"cannot attest process {named.pid}: it executed another program since accept"
            )
        try:
            watch = DarwinWatch(self._system, links, sock_fd)
        except ProcessLookupError as error:
            raise gone(named.pid) from error
        evidence = Evidence(
            peer=named,
            chain=tuple(observed.link for observed in links),
            end=end,
            boot_id=self._boot_id,
            recorder="absent",
            recorder_reason=_NO_RECORDER,
            exe_forgeable=False,
            collected_ns=time.time_ns(),
            proven_reason="macOS does not tell what a process executed before it was seen",
        )
        return Collected(evidence=evidence, watch=watch)
