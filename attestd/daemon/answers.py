"""What the daemon answers on the control socket: implements ``control.service.Service``.

Each method looks things up in the daemon and turns them into replies; the acts are in ``approvals`` and ``app``. A
user sees what is that user's; root, and whoever was given the right to manage, sees all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import msgspec

from attestd import __version__
from attestd.appraisal.model import AttestationResult
from attestd.control import messages as m
from attestd.control import replies as r
from attestd.control.systemmode import SYSTEM_NOT_PROTECTED
from attestd.control.usermode import NOT_PROTECTED
from attestd.daemon import explanations, views
from attestd.daemon.asked import Caller, approver_of
from attestd.daemon.audit_answers import AuditAnswers
from attestd.daemon.doctor import checks
from attestd.daemon.polkit_checks import polkit_checks
from attestd.daemon.registry import own_name, visible
from attestd.daemon.server_answers import ServerAnswers
from attestd.enforcement.workers import TooSlowError
from attestd.errors import Cause, EvidenceError, NothingToDoError, NotPermittedError
from attestd.evidence.model import Evidence
from attestd.grants.approve import Options, approve, notes
from attestd.grants.difference import difference
from attestd.grants.match import ended


class Answers(ServerAnswers, AuditAnswers):
    """One daemon's answers."""

    async def authorize(self, caller: Caller, request: m.AnyRequest) -> Caller:
        """Refuse and record whoever has no right to ask for this."""
        return await self._authorizing.authorize(caller, request)

    async def status(self, caller: Caller, request: m.GetStatus) -> r.Status:
        """How the daemon is. How long the log is says how much others do, so that is for administrators."""
        del request
        daemon, sees = self._daemon, self._sees(caller)
        head = daemon.audit.head()
        state, reason = daemon.recorder.state()
        counts = self._counts(sees)
        servers = tuple(
            r.ServerState(
                name=name,
                transport=front.settings.transport,
                state=views.state(front, counts.get(name, 0), sees),
            )
            for name, front in sorted(daemon.fronts.items())
            if visible(front.owner, sees)
        )
        return r.Status(
            mode=daemon.mode,
            version=__version__,
            pid=os.getpid(),
            uptime_s=int(time.time() - daemon.started),
            recorder=r.RecorderState(state=state, reason=reason),
            servers=servers,
            sessions=sum(counts.values()),
            policy=r.PolicyState(generation=daemon.generation, mode="enforce"),
            audit=r.AuditState(records=head.size, head=head.root) if sees is None else r.AuditState(records=0, head=""),
            approvers=daemon.settings.approval.approvers,
            errors=tuple(r.Trouble(time=when, message=text) for when, text in daemon.troubles.seen(sees)),
            not_protected=NOT_PROTECTED if daemon.paths.user_mode else SYSTEM_NOT_PROTECTED,
            seals=views.seals(daemon.seals),
            note=daemon.settings.note,
        )

    async def doctor(self, caller: Caller, request: m.RunDoctor) -> Sequence[r.Check]:
        """Every check; the kernel is probed in a thread, for that takes a while."""
        del request
        daemon = self._daemon
        try:
            found = await daemon.workers.run(
                daemon.kernel.examine,
                seconds=daemon.settings.limits.attest_seconds,
                late=lambda _found: None,
                owner=caller.uid,
            )
        except TooSlowError:
            daemon.trouble("the kernel's features could not be probed in time")
            found = daemon.kernel.features()
        return (*checks(daemon, found, self._sees(caller)), *await polkit_checks(daemon))

    async def inspect(self, caller: Caller, request: m.Inspect) -> r.Inspection:
        """Evidence and result, collected anew."""
        evidence, result = await self._look(caller, request.pid)
        return views.inspection(evidence, result, caller.sees)

    async def ps(self, caller: Caller, request: m.ListSessions) -> Sequence[r.Session]:
        """Live sessions."""
        del request
        infos = sorted(self._daemon.sessions.values(), key=lambda info: info.since)
        return [views.session(info, caller.sees) for info in infos if caller.sees in {None, info.peer.uid}]

    # -- approving --------------------------------------------------------------------------------------------------

    async def pending(self, caller: Caller, request: m.ListPending) -> Sequence[r.Pending]:
        """What waits."""
        del request
        approvals = self._daemon.approvals
        entries = approvals.waiting(approver_of(caller).sees)
        return [
            views.pending(entry, approvals.context(entry.code), approvals.client_name(entry), caller.sees)
            for entry in entries
        ]

    async def pending_show(self, caller: Caller, request: m.ShowPending) -> r.PendingDetail:
        """One waiting request and what these terms would grant."""
        approvals, approver = self._daemon.approvals, approver_of(caller)
        entry = approvals.find(request.pending, approver)
        options = _options(request.terms)
        proposed = approve(entry, options, grant_id="", now_ns=time.time_ns(), approved_by="", how="")
        result = msgspec.json.decode(entry.identity, type=AttestationResult)
        last = approvals.store.index.predecessor(result, entry.server)
        return r.PendingDetail(
            pending=views.pending(entry, approvals.context(entry.code), approvals.client_name(entry), caller.sees),
            proposed=views.grant(proposed),
            notes=notes(entry, options, proposed),
            difference=difference(last, proposed),
            last_approved=None if last is None else views.grant(last),
        )

    async def approve(self, caller: Caller, request: m.Approve) -> r.Grant:
        """Make the grant, if it still is what was shown."""
        approvals, approver = self._daemon.approvals, approver_of(caller)
        options = _options(request.terms)
        if request.shown:
            entry = approvals.find(request.pending, approver)
            now = approve(entry, options, grant_id="", now_ns=time.time_ns(), approved_by="", how="")
            if views.grant(now).terms != request.shown:
                raise NotPermittedError(
                    "cannot approve: the client, or another process of it, has asked for more since you were shown it",
                    hint=f"look again: attestctl approve {request.pending}",
                )
        return views.grant(approvals.approve(request.pending, options, approver))

    async def deny(self, caller: Caller, request: m.Deny) -> r.Denied:
        """Drop a waiting request."""
        entry = self._daemon.approvals.deny(request.pending, approver_of(caller), always=request.always)
        return r.Denied(code=entry.code, always=request.always, server=entry.server, display=entry.display)

    async def grants(self, caller: Caller, request: m.ListGrants) -> Sequence[r.Grant]:
        """Grants that match."""
        store, sees, now_ns = self._daemon.approvals.store, approver_of(caller).sees, time.time_ns()
        store.flush()
        found = store.everything() if request.ended else tuple(g for g in store.index if ended(g, now_ns) is None)
        unused_before = None if request.unused_s is None else now_ns - request.unused_s * 1_000_000_000
        wanted = [
            grant
            for grant in found
            if (sees is None or grant.subject.uid == sees)
            and (
                request.server is None or grant.object.server in {request.server, own_name(caller.uid, request.server)}
            )
            and (unused_before is None or max(grant.last_used_ns or 0, grant.created_ns) <= unused_before)
        ]
        return [views.grant(grant) for grant in sorted(wanted, key=lambda grant: grant.created_ns)]

    async def grants_show(self, caller: Caller, request: m.ShowGrant) -> r.Grant:
        """One grant."""
        self._daemon.approvals.store.flush()
        return views.grant(self._daemon.approvals.grant(request.grant, approver_of(caller)))

    async def grants_revoke(self, caller: Caller, request: m.RevokeGrants) -> Sequence[r.Grant]:
        """End grants."""
        revoked = self._daemon.approvals.revoke(request.grants, approver_of(caller))
        now_ns = time.time_ns()
        return [views.grant(msgspec.structs.replace(grant, revoked_ns=now_ns)) for grant in revoked]

    async def grants_renew(self, caller: Caller, request: m.RenewGrant) -> r.Grant:
        """Another end in time."""
        return views.grant(self._daemon.approvals.renew(request.grant, request.lifetime, approver_of(caller)))

    # -- the service ------------------------------------------------------------------------------------------------

    async def why(self, caller: Caller, request: m.Why) -> r.Explanation:
        """A call that has not happened."""
        front = self._front(caller, request.server)
        evidence, result = await self._look(caller, request.pid)
        asked = msgspec.structs.replace(request, server=front.settings.name)
        return explanations.imagined(self._daemon, evidence, result, asked)

    async def reload(self, caller: Caller, request: m.Reload) -> r.Reloaded:
        """Read everything again."""
        del request
        self._act(caller, "reload", "", {})
        return r.Reloaded(changes=self._daemon.reload(), generation=self._daemon.generation)

    # -- parts ------------------------------------------------------------------------------------------------------

    async def _look(self, caller: Caller, pid: int | None) -> tuple[Evidence, AttestationResult]:
        daemon = self._daemon
        pid = caller.pid if pid is None else pid
        try:
            collected = await daemon.workers.run(
                daemon.kernel.collect_pid,
                pid,
                seconds=daemon.settings.limits.attest_seconds,
                owner=caller.uid,
                late=lambda late: late.watch.close() if late is not None else None,
            )
        except EvidenceError as error:
            hidden = caller.sees is not None and pid != caller.pid  # what is said of another user's would tell of it
            if error.cause is Cause.PEER_GONE or hidden:
                raise NothingToDoError(f"cannot find pid {pid}: there is no such process") from error
            raise
        collected.watch.close()
        evidence = collected.evidence
        if caller.sees not in {None, evidence.peer.uid}:
            raise NothingToDoError(f"cannot find pid {pid}: there is no such process")
        return evidence, daemon.appraiser.appraise(evidence)


def _options(terms: m.Terms) -> Options:
    return msgspec.convert(terms, Options, from_attributes=True)
