"""What the daemon answers on the control socket: implements ``control.service.Service``.

Each method looks things up in the daemon and turns them into replies; the acts are in ``approvals`` and ``app``. A
user sees what is that user's; root sees all.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import msgspec

from attestd import __version__
from attestd.appraisal.model import AttestationResult
from attestd.audit.protocol import Entry
from attestd.audit.query import Filters, Row, query, tail
from attestd.audit.verify import verify
from attestd.control import messages as m
from attestd.control import replies as r
from attestd.control.service import ControlCaller
from attestd.control.times import nanoseconds
from attestd.control.usermode import NOT_PROTECTED
from attestd.daemon import explanations, views
from attestd.daemon.app import Daemon
from attestd.daemon.approvals import Approver
from attestd.daemon.config import (
    BackPeer,
    ServerSettings,
    remove_server,
    server_file,
    validate_server,
    write_server,
)
from attestd.daemon.doctor import checks
from attestd.enforcement.workers import TooSlowError
from attestd.errors import Cause, ConfigurationError, EvidenceError, NothingToDoError, NotPermittedError
from attestd.evidence.model import Evidence
from attestd.grants.approve import Options, approve, notes
from attestd.grants.difference import difference
from attestd.grants.match import ended

Caller = ControlCaller[AttestationResult]
FOLLOW_S = 0.3
BATCH = 256
T = TypeVar("T")


class Answers:
    """One daemon's answers."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def authorize_approver(self, caller: Caller, request: m.AnyRequest) -> None:
        """Refuse and record whoever has no right to decide."""
        if caller.how:
            return
        what = type(request).__name__
        code = getattr(request, "pending", "")
        self._daemon.refusals.note(
            Entry(
                kind="admin",
                id=str(code)[:64],
                method=what,
                verdict="deny",
                cause=Cause.NOT_APPROVER.value,
                uid=caller.uid,
                pid=caller.pid,
                detail={"by": caller.display[:512], "why": caller.why_not[:256]},
            )
        )
        raise NotPermittedError(
            f"cannot take this from {caller.display or f'pid {caller.pid}'}: {caller.why_not}",
            hint="do it yourself: attestctl from a shell in a terminal, or as root",
        )

    async def status(self, caller: Caller, request: m.GetStatus) -> r.Status:
        """How the daemon is."""
        del caller, request
        daemon = self._daemon
        head = daemon.audit.head()
        state, reason = daemon.recorder.state()
        counts = self._counts()
        servers = tuple(
            r.ServerState(name=name, transport=front.settings.transport, state=views.state(front, counts.get(name, 0)))
            for name, front in sorted(daemon.fronts.items())
        )
        return r.Status(
            mode=daemon.mode,
            version=__version__,
            pid=os.getpid(),
            uptime_s=int(time.time() - daemon.started),
            recorder=r.RecorderState(state=state, reason=reason),
            servers=servers,
            sessions=len(daemon.sessions),
            policy=r.PolicyState(generation=daemon.generation, mode="enforce"),
            audit=r.AuditState(records=head.size, head=head.root),
            approvers=daemon.settings.approval.approvers,
            errors=tuple(r.Trouble(time=when, message=text) for when, text in daemon.errors),
            not_protected=NOT_PROTECTED if daemon.paths.user_mode else (),
            seals=views.seals(daemon.seals),
            note=daemon.settings.note,
        )

    async def doctor(self, caller: Caller, request: m.RunDoctor) -> Sequence[r.Check]:
        """Every check; the kernel is probed in a thread, for that takes a while."""
        del caller, request
        daemon = self._daemon
        try:
            found = await daemon.workers.run(
                daemon.kernel.examine, seconds=daemon.settings.limits.attest_seconds, late=lambda _found: None
            )
        except TooSlowError:
            daemon.trouble("the kernel's features could not be probed in time")
            found = daemon.kernel.features()
        return checks(daemon, found)

    async def inspect(self, caller: Caller, request: m.Inspect) -> r.Inspection:
        """Evidence and result, collected anew."""
        evidence, result = await self._look(caller, request.pid)
        return views.inspection(evidence, result)

    async def ps(self, caller: Caller, request: m.ListSessions) -> Sequence[r.Session]:
        """Live sessions."""
        del request
        infos = sorted(self._daemon.sessions.values(), key=lambda info: info.since)
        return [views.session(info) for info in infos if caller.uid in (0, info.peer.uid)]

    # -- approving --------------------------------------------------------------------------------------------------

    async def pending(self, caller: Caller, request: m.ListPending) -> Sequence[r.Pending]:
        """What waits."""
        del request
        approvals = self._daemon.approvals
        entries = approvals.waiting(_approver(caller).sees)
        return [views.pending(entry, approvals.context(entry.code), approvals.client_name(entry)) for entry in entries]

    async def pending_show(self, caller: Caller, request: m.ShowPending) -> r.PendingDetail:
        """One waiting request and what these terms would grant."""
        approvals, approver = self._daemon.approvals, _approver(caller)
        entry = approvals.find(request.pending, approver)
        options = _options(request.terms)
        proposed = approve(entry, options, grant_id="", now_ns=time.time_ns(), approved_by="", how="")
        result = msgspec.json.decode(entry.identity, type=AttestationResult)
        last = approvals.store.index.predecessor(result, entry.server)
        return r.PendingDetail(
            pending=views.pending(entry, approvals.context(entry.code), approvals.client_name(entry)),
            proposed=views.grant(proposed),
            notes=notes(entry, options, proposed),
            difference=difference(last, proposed),
            last_approved=None if last is None else views.grant(last),
        )

    async def approve(self, caller: Caller, request: m.Approve) -> r.Grant:
        """Make the grant, if it still is what was shown."""
        approvals, approver = self._daemon.approvals, _approver(caller)
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
        entry = self._daemon.approvals.deny(request.pending, _approver(caller), always=request.always)
        return r.Denied(code=entry.code, always=request.always, server=entry.server, display=entry.display)

    async def grants(self, caller: Caller, request: m.ListGrants) -> Sequence[r.Grant]:
        """Grants that match."""
        store, sees, now_ns = self._daemon.approvals.store, _approver(caller).sees, time.time_ns()
        store.flush()
        found = store.everything() if request.ended else tuple(g for g in store.index if ended(g, now_ns) is None)
        unused_before = None if request.unused_s is None else now_ns - request.unused_s * 1_000_000_000
        wanted = [
            grant
            for grant in found
            if (sees is None or grant.subject.uid == sees)
            and (request.server is None or grant.object.server == request.server)
            and (unused_before is None or max(grant.last_used_ns or 0, grant.created_ns) <= unused_before)
        ]
        return [views.grant(grant) for grant in sorted(wanted, key=lambda grant: grant.created_ns)]

    async def grants_show(self, caller: Caller, request: m.ShowGrant) -> r.Grant:
        """One grant."""
        self._daemon.approvals.store.flush()
        return views.grant(self._daemon.approvals.grant(request.grant, _approver(caller)))

    async def grants_revoke(self, caller: Caller, request: m.RevokeGrants) -> Sequence[r.Grant]:
        """End grants."""
        revoked = self._daemon.approvals.revoke(request.grants, _approver(caller))
        now_ns = time.time_ns()
        return [views.grant(msgspec.structs.replace(grant, revoked_ns=now_ns)) for grant in revoked]

    async def grants_renew(self, caller: Caller, request: m.RenewGrant) -> r.Grant:
        """Another end in time."""
        return views.grant(self._daemon.approvals.renew(request.grant, request.lifetime, _approver(caller)))

    # -- servers ----------------------------------------------------------------------------------------------------

    async def servers(self, caller: Caller, request: m.ListServers) -> Sequence[r.Server]:
        """The registry."""
        del caller, request
        return [self._server(name) for name in sorted(self._daemon.fronts)]

    async def servers_show(self, caller: Caller, request: m.ShowServer) -> r.Server:
        """One server."""
        del caller
        return self._server(request.name)

    async def servers_add(self, caller: Caller, request: m.AddServer) -> r.Server:
        """Register a server, in its file and at once."""
        daemon = self._daemon
        settings = ServerSettings(
            name=request.name,
            transport=request.transport,
            command=request.command,
            env=dict(request.env),
            socket=request.path or "",
            url=request.url or "",
            token_file=request.token_file or "",
            header_files=dict(request.header_files),
            ca_file=request.ca_file or "",
            peer=BackPeer(program=request.program),
            run_as=request.run_as,
            shared=request.shared,
        )
        validate_server(settings, Path("the new server"), daemon.paths.sockets, user_mode=daemon.paths.user_mode)
        if request.name in daemon.fronts:
            raise ConfigurationError(
                f"cannot add the server {request.name!r}: there is one of that name",
                hint=f"remove it first: attestctl servers remove {request.name}",
            )
        self._act(
            caller,
            "server.add",
            request.name,
            {"transport": request.transport, "command": (request.url or " ".join(request.command))[:512]},
        )
        daemon.approvals.store.drop_pins(request.name)
        path = write_server(daemon.paths.servers, settings)
        try:
            daemon.open_front(settings)
        except ConfigurationError:
            path.unlink(missing_ok=True)
            raise
        return self._server(request.name)

    async def servers_trust(self, caller: Caller, request: m.TrustServer) -> r.Server:
        """Forget the pinned program; the next one that answers is pinned."""
        daemon = self._daemon
        found = self._server(request.name)
        self._act(caller, "server.trust", request.name, {})
        if not daemon.approvals.store.drop_pins(request.name):
            raise NothingToDoError(f"cannot forget the program of {request.name!r}: none was pinned")
        return found

    async def servers_seal(self, caller: Caller, request: m.SealServer) -> r.Server:
        """Close its port to everybody else."""
        daemon = self._daemon
        seal = daemon.seals.wanted(daemon.server(request.name).settings, "refuse" if request.refuse else "redirect")
        self._act(caller, "server.seal", request.name, {"port": seal.port, "direct": seal.how})
        daemon.seals.seal(seal)
        return self._server(request.name)

    async def servers_unseal(self, caller: Caller, request: m.UnsealServer) -> r.Server:
        """Open it to everybody."""
        daemon = self._daemon
        seal = daemon.seals.find(request.name)
        if seal is None:
            raise NothingToDoError(f"cannot unseal {request.name!r}: it is not sealed")
        self._act(caller, "server.unseal", request.name, {"port": seal.port})
        daemon.seals.unseal(request.name)
        if request.name not in daemon.fronts:
            return r.Server(name=request.name, transport="http", state="not registered")
        return self._server(request.name)

    async def servers_remove(self, caller: Caller, request: m.RemoveServer) -> r.Server:
        """Take a server out; its sessions end."""
        daemon = self._daemon
        removed = self._server(request.name)
        if daemon.seals.find(request.name) is not None:
            raise ConfigurationError(
                f"cannot remove the server {request.name!r}: it is sealed, and nobody could reach it any more",
                hint=f"open it first: attestctl servers unseal {request.name}",
            )
        self._act(caller, "server.remove", request.name, {})
        remove_server(daemon.paths.servers, request.name)
        daemon.close_front(request.name, Cause.SHUTTING_DOWN, "the server was removed")
        return removed

    # -- decisions and log ------------------------------------------------------------------------------------------

    async def explain(self, caller: Caller, request: m.Explain) -> r.Explanation:
        """One recorded decision again."""
        filters = Filters(kinds=("decision", "hop"), id=request.decision)
        rows = await self._in_thread(lambda: tail(self._daemon.paths.audit, 1, filters))
        if not rows or (caller.uid not in (0, rows[0].record.uid)):
            raise NothingToDoError(
                f"cannot find the decision {request.decision!r}", hint="list them with: attestctl audit tail"
            )
        bodies = Filters(kinds=("caller",), id=rows[0].record.caller)
        callers = await self._in_thread(lambda: tail(self._daemon.paths.audit, 1, bodies))
        return explanations.recorded(self._daemon, rows[0].record, callers[0].record.body if callers else b"")

    async def why(self, caller: Caller, request: m.Why) -> r.Explanation:
        """A call that has not happened."""
        evidence, result = await self._look(caller, request.pid)
        return explanations.imagined(self._daemon, evidence, result, request)

    async def audit_tail(self, caller: Caller, request: m.TailAudit) -> AsyncIterator[r.Record]:
        """The last records, and with ``follow`` each new one."""
        del caller
        directory = self._daemon.paths.audit
        seen = self._daemon.audit.head().size - 1  # before reading: what is appended meanwhile is followed
        rows = await self._in_thread(lambda: tail(directory, request.lines))
        for row in rows:
            yield views.record(row)
            seen = max(seen, row.record.seq)
        while request.follow:
            await asyncio.sleep(FOLLOW_S)
            missing = self._daemon.audit.head().size - 1 - seen
            if missing <= 0:
                continue
            fresh = await self._in_thread(lambda missing=missing: tail(directory, missing))  # type: ignore[misc]
            if fresh and fresh[0].record.seq > seen + 1 and self._daemon.audit.head().size - 1 - seen > missing:
                continue  # more was appended meanwhile, and stands where the oldest of these should
            for row in fresh:
                if row.record.seq > seen:
                    seen = row.record.seq
                    yield views.record(row)

    async def audit_query(self, caller: Caller, request: m.QueryAudit) -> AsyncIterator[r.Record]:
        """Matching records."""
        del caller
        filters = Filters(
            kinds=() if request.kind is None else (request.kind,),
            server=request.server or "",
            verdict=request.verdict or "",
            cause=request.cause or "",
            caller=request.caller or "",
            since_ns=None if request.since is None else nanoseconds(request.since),
            until_ns=None if request.until is None else nanoseconds(request.until),
            id=request.id or "",
            session=request.session or "",
        )
        rows = (row for row in query(self._daemon.paths.audit, filters) if _also(row, request))
        left = request.limit
        while True:
            batch = await self._in_thread(lambda: list(islice(rows, BATCH)))
            for row in batch if left is None else batch[:left]:
                yield views.record(row)
            left = None if left is None else left - len(batch)
            if len(batch) < BATCH or (left is not None and left <= 0):
                return

    async def audit_verify(self, caller: Caller, request: m.VerifyAudit) -> AsyncIterator[r.Progress | r.Verification]:
        """Check the whole log against the running daemon's own head."""
        del caller, request
        daemon = self._daemon
        head = daemon.audit.head()
        done = 0

        def progress(count: int) -> None:
            nonlocal done
            done = count

        work = asyncio.ensure_future(
            self._in_thread(lambda: verify(daemon.paths.audit, external_head=head, progress=progress))
        )
        while not work.done():
            await asyncio.wait((work,), timeout=0.5)
            yield r.Progress(done=done, total=head.size, what="records")
        yield views.verification(await work)

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
                late=lambda late: late.watch.close() if late is not None else None,
            )
        except EvidenceError as error:
            if error.cause is Cause.PEER_GONE:
                raise NothingToDoError(f"cannot find pid {pid}: there is no such process") from error
            raise
        collected.watch.close()
        evidence = collected.evidence
        if caller.uid not in (0, evidence.peer.uid):
            raise NothingToDoError(f"cannot find pid {pid}: there is no such process")
        return evidence, daemon.appraiser.appraise(evidence)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await self._daemon.loop.run_in_executor(None, work)

    def _server(self, name: str) -> r.Server:
        front = self._daemon.fronts.get(name)
        if front is None:
            raise NothingToDoError(f"cannot find the server {name!r}", hint="list them with: attestctl servers list")
        seal = self._daemon.seals.find(name)
        sealed = "" if seal is None else self._daemon.seals.state(seal)
        path = server_file(self._daemon.paths.servers, name)
        return views.server(front, path, self._counts().get(name, 0), sealed)

    def _counts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for info in self._daemon.sessions.values():
            counts[info.server] = counts.get(info.server, 0) + 1
        return counts

    def _act(self, caller: Caller, method: str, server: str, detail: dict[str, str | int | bool]) -> None:
        """Record an act of administration before it happens. Raises AuditUnavailableError."""
        approver = _approver(caller)
        self._daemon.audit.append(
            Entry(
                kind="admin",
                method=method,
                server=server,
                verdict="ok",
                uid=approver.uid,
                pid=approver.pid,
                detail={**detail, "by": approver.display[:512], "how": approver.how},
            ),
            time.time_ns(),
        )


def _approver(caller: Caller) -> Approver:
    return Approver(uid=caller.uid, pid=caller.pid, display=caller.display, how=caller.how)


def _options(terms: m.Terms) -> Options:
    return msgspec.convert(terms, Options, from_attributes=True)


def _also(row: Row, request: m.QueryAudit) -> bool:
    record = row.record
    return (
        (request.method is None or record.method == request.method)
        and (request.name is None or record.name == request.name)
        and (request.pid is None or record.pid == request.pid)
    )
