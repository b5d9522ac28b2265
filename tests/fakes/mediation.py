"""A caller and an audit log with behaviour, for mediation and sessions without a daemon.

``ScriptedCaller`` implements ``mediation.Caller`` over a set of permitted targets; ``MemoryAudit`` implements
``audit.protocol.AuditLog`` in memory and can be full.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable

from attestd.appraisal.model import AttestationResult
from attestd.audit.protocol import Entry
from attestd.decision.model import Deny, Permit, Verdict
from attestd.errors import AuditUnavailableError, Cause
from attestd.wire.model import CallRequest, Target
from tests.support.results import make_result

PEER = 4242
CODE = "7F3K-9QRT"
SERVER_WIDE = frozenset({"connect", "pass", "list_tools", "list_resources", "list_prompts"})


class ScriptedCaller:
    """Permits the server as a whole (while ``admitted``) and the targets in ``allowed``: pairs of action and name."""

    server = "time"
    session = "s1"
    mode = "user"
    digest = "c0ffee"

    def __init__(self, *allowed: tuple[str, str], result: AttestationResult | None = None) -> None:
        self.result = make_result() if result is None else result
        self.allowed = set(allowed)
        self.admitted = True
        self.once: set[tuple[str, str]] = set()
        """Targets whose grant is used up by one use."""
        self.changed: Cause | None = None
        """What ``verify`` finds wrong with the processes."""
        self.pended: list[tuple[str, str, Cause]] = []
        self.used: list[tuple[str, ...]] = []
        self.broken: Exception | None = None
        self.asked = 0
        self.forbidden = False
        """A policy forbids everything."""
        self.decided_as_after: list[int] = []
        """The counts of calls with which requests in flight were decided again."""

    @property
    def generation(self) -> int:
        """Of the policy."""
        return 3

    def verify(self, writer_pid: int) -> Cause | None:
        """Only the peer writes."""
        return self.changed or (Cause.WRITER_MISMATCH if writer_pid not in (0, PEER) else None)

    def decide(self, target: Target, request: CallRequest | None, now_ns: int, calls: int | None = None) -> Verdict:
        """By the sets."""
        del request, now_ns
        if calls is not None:
            self.decided_as_after.append(calls)
        self.asked += 1
        if self.broken is not None:
            raise self.broken
        if self.forbidden:
            return Deny(cause=Cause.POLICY_FORBID, detail="a policy forbids it")
        pair = (target.action, target.name)
        if pair in self.allowed or (self.admitted and target.action in SERVER_WIDE):
            return Permit(policies=(f"grant:{target.name or 'server'}",), grants=(target.name,) if target.name else ())
        if not self.admitted:
            return Deny(cause=Cause.NO_GRANT, detail="no grant for this program on this server", plain=True)
        if target.action in ("create_message", "elicit", "list_roots"):
            return Deny(cause=Cause.SERVER_REQUEST, detail="no grant accepts it", plain=True)
        return Deny(cause=Cause.OUT_OF_SCOPE, detail=f"the grant does not name this {target.kind}")

    def pend(self, method: str, name: str, deny: Deny, now_ns: int) -> str | None:
        """Always the same code."""
        del now_ns
        self.pended.append((method, name, deny.cause))
        return CODE

    def basis(self, now_ns: int) -> Hashable:
        """The sets."""
        del now_ns
        return frozenset(self.allowed), self.admitted, self.forbidden

    def permitted(self, permit: Permit, now_ns: int) -> bool:
        """Counts, and uses up."""
        del now_ns
        self.used.append(permit.grants)
        spent = {pair for pair in self.once if pair[1] in permit.grants}
        self.allowed -= spent
        return bool(spent)


class MemoryAudit:
    """Keeps entries; ``full`` refuses every append, as a full disk does."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.full = False

    def append(self, entry: Entry, time_ns: int) -> int:
        """One more, unless full."""
        del time_ns
        if self.full:
            raise AuditUnavailableError("no space left")
        self.entries.append(entry)
        return len(self.entries) - 1

    def caller(self, body: bytes, time_ns: int) -> str:
        """Content-addressed."""
        digest = hashlib.sha256(body).hexdigest()
        self.append(Entry(kind="caller", id=digest, body=body), time_ns)
        return digest

    def sync_now(self) -> None:
        """Memory is always in sync."""
        if self.full:
            raise AuditUnavailableError("no space left")

    def digest_arguments(self, canonical: bytes) -> str:
        """Salted with a word."""
        return hashlib.sha256(b"salt" + canonical).hexdigest()

    def of(self, kind: str) -> list[Entry]:
        """Entries of one kind."""
        return [entry for entry in self.entries if entry.kind == kind]

    def causes(self) -> list[str]:
        """Causes of the denied decisions and hops, in order."""
        return [entry.cause for entry in self.entries if entry.verdict == "deny"]


class StoppedClock:
    """Implements ``mediation.Clock``; time passes when a test says so."""

    def __init__(self, now_ns: int = 1_763_000_000_000_000_000) -> None:
        self.now_ns = now_ns

    def elapsed_ns(self) -> int:
        """Always the same."""
        return 1500

    def later(self, nanoseconds: int) -> StoppedClock:
        """Another clock."""
        return StoppedClock(self.now_ns + nanoseconds)
