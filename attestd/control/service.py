"""What the daemon must be able to answer: one method per request (``routes.ROUTES``).

Rules for an implementation
- Every method runs in the daemon's event loop and must not block it; long work belongs in a thread.
- A refusal is an ``AttestdError``; its code, message, hint and exit code reach the caller as they are. Any other
  exception is our bug: the caller is told ``internal`` (exit 8), the connection ends, the daemon goes on.
- What a caller may not see does not exist for it: NothingToDoError (exit 9), with the same text as for what never
  existed.
- ``authorize`` is called before each request, so no method needs to remember it. It may wait (polkit asks for a
  password); afterwards the server proves again that the caller is still the attested process. Methods get the caller
  that it returns.
- The server has already checked that the caller may speak at all (own uid or root, in user mode), that the writer of
  the request is the attested peer, and that its image and chain are unchanged.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from attestd.control import messages as m
from attestd.control import replies as r

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlCaller(Generic[ResultT]):
    """Who asks. Generic, as this room lies below appraisal: the daemon has ``ControlCaller[AttestationResult]``."""

    uid: int
    """The kernel's word at connect."""
    pid: int
    result: ResultT | None
    """None: evidence could not be collected; such a caller never approves."""
    how: str
    """By what right it may approve: root | clean-chain | approver | polkit, or empty: it may not, or not yet."""
    display: str = ""
    """The caller's line, for the audit and ``approved_by``."""
    why_not: str = ""
    """One clause for a person where ``how`` is empty, e.g. ``node (pid 812) is among its ancestors``."""
    asks: bool = False
    """It may approve once its user's password was given: polkit may be asked."""
    start: int = 0
    """When the process started, clock ticks since boot."""
    pidfd: int = -1
    """The process; valid as long as the connection."""
    everyone: bool = False
    """It was given the right to manage for this request."""

    @property
    def sees(self) -> int | None:
        """Whose things exist for it; None: everybody's."""
        return None if self.uid == 0 or self.everyone else self.uid


class Service(Protocol[ResultT]):
    """The daemon, as the control socket sees it."""

    async def authorize(self, caller: ControlCaller[ResultT], request: m.AnyRequest) -> ControlCaller[ResultT]:
        """The caller with the right that ``request`` needs. Records the refusal and raises NotPermittedError.

        AgentNeededError: nobody can ask the person for the password yet; that is not a refusal.
        """

    async def status(self, caller: ControlCaller[ResultT], request: m.GetStatus) -> r.Status:
        """How the daemon is. ``not_protected`` is ``usermode.NOT_PROTECTED`` in user mode."""

    async def doctor(self, caller: ControlCaller[ResultT], request: m.RunDoctor) -> Sequence[r.Check]:
        """Every check that needs the daemon's eyes, in a fixed order."""

    async def inspect(self, caller: ControlCaller[ResultT], request: m.Inspect) -> r.Inspection:
        """Collect and appraise anew.

        Raises EvidenceError; NothingToDoError for a pid that does not exist or is not the caller's to see.
        """

    async def ps(self, caller: ControlCaller[ResultT], request: m.ListSessions) -> Sequence[r.Session]:
        """Live sessions, oldest first."""

    async def pending(self, caller: ControlCaller[ResultT], request: m.ListPending) -> Sequence[r.Pending]:
        """Waiting clients, newest last."""

    async def pending_show(self, caller: ControlCaller[ResultT], request: m.ShowPending) -> r.PendingDetail:
        """One of them, and what the terms would grant (as ``approve`` would, its errors too); nothing is changed.

        A wrong, used or expired code is NothingToDoError and counts against guessing.
        """

    async def approve(self, caller: ControlCaller[ResultT], request: m.Approve) -> r.Grant:
        """Make the grant: first the audit record, then the row. The code is used up only on success.

        Raises NothingToDoError (code), UsageError (terms that do not fit), NotPermittedError (what no
        terms can grant; terms that by now mean another grant than ``shown``).
        """

    async def deny(self, caller: ControlCaller[ResultT], request: m.Deny) -> r.Denied:
        """Drop the entry."""

    async def grants(self, caller: ControlCaller[ResultT], request: m.ListGrants) -> Sequence[r.Grant]:
        """Grants that match, oldest first."""

    async def grants_show(self, caller: ControlCaller[ResultT], request: m.ShowGrant) -> r.Grant:
        """One grant. Raises NothingToDoError."""

    async def grants_revoke(self, caller: ControlCaller[ResultT], request: m.RevokeGrants) -> Sequence[r.Grant]:
        """The revoked grants. Raises NothingToDoError if one is unknown; then none was revoked."""

    async def grants_renew(self, caller: ControlCaller[ResultT], request: m.RenewGrant) -> r.Grant:
        """The grant with its new lifetime. Raises NothingToDoError."""

    async def servers(self, caller: ControlCaller[ResultT], request: m.ListServers) -> Sequence[r.Server]:
        """The registry, by name."""

    async def servers_show(self, caller: ControlCaller[ResultT], request: m.ShowServer) -> r.Server:
        """One server. Raises NothingToDoError."""

    async def servers_add(self, caller: ControlCaller[ResultT], request: m.AddServer) -> r.Server:
        """The new server. Raises ConfigurationError (name taken or malformed, fields of another transport)."""

    async def servers_trust(self, caller: ControlCaller[ResultT], request: m.TrustServer) -> r.Server:
        """The server. Raises NothingToDoError if there is none of that name, or nothing was pinned."""

    async def servers_seal(self, caller: ControlCaller[ResultT], request: m.SealServer) -> r.Server:
        """The server, sealed. Raises NothingToDoError, ConfigurationError (no port here), SealError."""

    async def servers_unseal(self, caller: ControlCaller[ResultT], request: m.UnsealServer) -> r.Server:
        """The server, open. Raises NothingToDoError, SealError."""

    async def servers_remove(self, caller: ControlCaller[ResultT], request: m.RemoveServer) -> r.Server:
        """The server as it was. Raises NothingToDoError, ConfigurationError (it is sealed)."""

    async def explain(self, caller: ControlCaller[ResultT], request: m.Explain) -> r.Explanation:
        """From the audit record. Raises NothingToDoError."""

    async def why(self, caller: ControlCaller[ResultT], request: m.Why) -> r.Explanation:
        """Decide without effect: no record of a call, no ``once`` grant used up, no pending entry made."""

    def audit_tail(self, caller: ControlCaller[ResultT], request: m.TailAudit) -> AsyncIterator[r.Record]:
        """The last records, then with ``follow`` each new one. Closed by the server when the client goes."""

    def audit_query(self, caller: ControlCaller[ResultT], request: m.QueryAudit) -> AsyncIterator[r.Record]:
        """Matching records, oldest first, in bounded memory."""

    def audit_verify(
        self, caller: ControlCaller[ResultT], request: m.VerifyAudit
    ) -> AsyncIterator[r.Progress | r.Verification]:
        """Progress at least once a second, then one Verification; a broken log is ``ok`` False, not an error."""

    async def reload(self, caller: ControlCaller[ResultT], request: m.Reload) -> r.Reloaded:
        """Raises ConfigurationError or PolicyInvalidError; then nothing changed."""
