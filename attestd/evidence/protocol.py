"""The doors that evidence comes through.

``attestd.kernel`` implements them; nothing above knows which platform answers.

``collect`` may block (it hashes): it is called in a worker thread. ``Watch.verify`` runs on every message and must
not block.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from attestd.errors import Cause
from attestd.evidence.model import Evidence, InputHolders, Peer
from attestd.evidence.recorder import Connection, ExecEvent, Losses, ProcessKey, ProcessRecord


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """One probed kernel feature, for ``doctor`` and ``status``."""

    name: str
    present: bool
    detail: str
    remedy: str = ""
    """How to get it."""
    cost: str = ""
    """What its absence costs."""
    group: str = "kernel"
    """kernel | recorder | tcp | signature: what it is for."""
    known: bool = True
    """False: it could not be probed; ``detail`` says why."""


class Watch(Protocol):
    """Holds the attested processes by descriptors that cannot be reused, for as long as a session lives."""

    def verify(self, writer_pid: int) -> Cause | None:
        """Say whether the attestation still describes who is there.

        None if ``writer_pid`` is the peer, and peer and accountable client are alive, unchanged, untraced and still in
        one chain; else the cause. Costs at most 15 µs. ``writer_pid`` 0 means: no message, only look.
        """

    def exit_fds(self) -> tuple[int, ...]:
        """Pidfds that become readable when the peer, the first, or the accountable client exits; owned by the watch."""

    def pin_accountable(self, index: int) -> None:
        """Say which link of the chain is accountable, so that it is verified too; links beyond it are released."""

    def set_aside(self) -> None:
        """The peer, a relay, passes no bytes any more: ``verify`` may look at it less often than at every message."""

    def leave_connection(self) -> None:
        """What begins on the attested connection goes on over others, whoever ends which; each names its own writers.

        Nothing of that connection is kept, and ``verify`` asks nothing of it any more. Idempotent.
        """

    def close(self) -> None:
        """Release every descriptor. Idempotent."""


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence and the watch that keeps it true."""

    evidence: Evidence
    watch: Watch


class Kernel(Protocol):
    """The operating system, as far as attestation needs it."""

    def peer(self, sock_fd: int) -> Peer:
        """Step 0: cheap, no file system access. Raises EvidenceError(PEER_GONE | FOREIGN_NAMESPACE)."""

    def collect(self, sock_fd: int, peer: Peer) -> Collected:
        """Step 1 for the peer of a connected Unix socket. Raises EvidenceError."""

    def collect_pid(self, pid: int) -> Collected:
        """The same for a process by number (``inspect``, started servers). Raises EvidenceError."""

    def input_holders(self, pid: int) -> InputHolders:
        """Who else holds the other end of the standard input of ``pid``. May take milliseconds."""

    def features(self) -> tuple[Feature, ...]:
        """Every feature probed at start-up."""

    def examine(self) -> tuple[Feature, ...]:
        """Those, and what recorder, process events, TCP and signatures need, probed now. May take a second."""


class AbsentRecorder:
    """No recorder (``attestd.evidence.recorder.Recorder``): every question is answered with "not known"."""

    def __init__(self, reason: str = "the kernel recorder was not asked for") -> None:
        self._reason = reason

    def state(self) -> tuple[str, str]:
        """Always ``absent``."""
        return "absent", self._reason

    def process(self, key: ProcessKey) -> ProcessRecord | None:
        """Not known."""
        del key
        return None

    def exec_counter(self, key: ProcessKey) -> int | None:
        """Not known."""
        del key
        return None

    def lineage(self, key: ProcessKey, limit: int = 32) -> tuple[ProcessRecord, ...]:
        """Not known."""
        del key, limit
        return ()

    def exec_event(self, key: ProcessKey, exec_counter: int) -> ExecEvent | None:
        """Not known."""
        del key, exec_counter
        return None

    def connection(self, cookie: int) -> Connection | None:
        """Not known."""
        del cookie
        return None

    def losses(self) -> Losses:
        """Nothing is recorded, so nothing is lost."""
        return Losses(exec_events=0, fork_events=0, dirty_epochs=0)

    def close(self) -> None:
        """Nothing to give back."""
