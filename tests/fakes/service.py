"""A control service with behaviour, held in memory: what is approved is granted, what is revoked is gone.

It implements ``attestd.control.service.Service`` and keeps its rules: codes are single use, what does not exist is
NothingToDoError, only callers with ``how`` approve. Every act of an administrator is appended to ``records``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from attestd.control import messages as m
from attestd.control import replies as r
from attestd.control.routes import Right, needed
from attestd.control.service import ControlCaller
from attestd.control.usermode import NOT_PROTECTED
from attestd.errors import AgentNeededError, ConfigurationError, NothingToDoError, NotPermittedError, UsageError
from tests.support.control_samples import EVIL, NOW, identity, link, pending, record

Caller = ControlCaller[str]


class FakeService:
    """One daemon's worth of state."""

    def __init__(self) -> None:
        launched = identity("claude", launchers=(r.Launcher(program="e" * 64, display="evil · sha256 eeeeeeee"),))
        self.waiting = {
            "7F3K-9QRT": pending("7F3K-9QRT", identity("client.py")),
            "EV1L-NAME": pending("EV1L-NAME", identity(EVIL), client_name=EVIL, tool=EVIL),
            "LNCH-2222": pending("LNCH-2222", launched),
            "CNCT-3333": pending("CNCT-3333", identity("new.py"), method="initialize", tool=""),
        }
        self.granted: dict[str, r.Grant] = {}
        self.registry = {
            "time": r.Server(name="time", transport="stdio", state="running", command=("mcp-server-time",))
        }
        self.records: list[r.Record] = []
        self.open: list[r.Session] = []
        self.checks = [
            r.Check(name="pidfd", status="ok", detail="SO_PEERPIDFD is there"),
            r.Check(name="user namespaces", status="warn", detail="anyone may make one", remedy="install the recorder"),
        ]
        self.problems: tuple[r.Problem, ...] = ()
        self.mode = "user"
        self.bug = False
        self.agent = False
        """Whether somebody can ask for passwords."""
        self.restless = False
        """Whoever is looked at wants more right afterwards."""
        self.closed_streams = 0
        self.changed = asyncio.Event()
        self._act("decision", "d-1", verdict="deny", cause="no_grant")
        self._grant(self._proposal("7F3K-9QRT", m.Terms(lifetime="8h")), "g-1")

    async def authorize(self, caller: Caller, request: m.AnyRequest) -> Caller:
        """Callers without a right are refused, and that is recorded."""
        if needed(request, system=self.mode == "system") is not Right.NONE and not caller.how:
            if caller.asks and not self.agent:
                raise AgentNeededError("cannot ask for the password: no agent is there")
            self._act("admin", type(request).__name__, verdict="deny", cause="not_approver")
            raise NotPermittedError(
                f"cannot take this from {caller.display or 'this caller'}: {caller.why_not}",
                hint="approve from a terminal of your own, or as root",
            )
        return caller

    async def status(self, caller: Caller, request: m.GetStatus) -> r.Status:
        """What has been counted so far."""
        del caller, request
        if self.bug:
            raise ZeroDivisionError("a bug")
        return r.Status(
            mode=self.mode,
            version="0.1.0",
            pid=4242,
            uptime_s=7260,
            recorder=r.RecorderState(state="absent", reason="not part of this version"),
            servers=tuple(
                r.ServerState(name=s.name, transport=s.transport, state=s.state) for s in self.registry.values()
            ),
            sessions=len(self.open),
            seals=tuple(
                r.SealState(server=s.name, port=8765, state=s.sealed) for s in self.registry.values() if s.sealed
            ),
            policy=r.PolicyState(generation=3, mode="enforce"),
            audit=r.AuditState(records=len(self.records), head="ab" * 32),
            errors=(r.Trouble(time=NOW, message="the server github did not start"),),
            not_protected=NOT_PROTECTED if self.mode == "user" else (),
        )

    async def doctor(self, caller: Caller, request: m.RunDoctor) -> Sequence[r.Check]:
        """The checks as they are set."""
        del caller, request
        return self.checks

    async def inspect(self, caller: Caller, request: m.Inspect) -> r.Inspection:
        """A chain of three; pid 1 is not to be seen."""
        if request.pid == 1:
            raise NothingToDoError("cannot find pid 1: there is no such process of yours")
        chain = (
            link(request.pid or caller.pid, "client.py", "host"),
            link(20, "zsh", "pass"),
            link(10, "ghostty", "edge"),
        )
        return r.Inspection(
            peer=r.Peer(pid=request.pid or caller.pid, uid=caller.uid, gid=0),
            chain=chain,
            accountable=0,
            identity=identity("client.py"),
            end="init",
        )

    async def ps(self, caller: Caller, request: m.ListSessions) -> Sequence[r.Session]:
        """Open sessions."""
        del caller, request
        return self.open

    async def pending(self, caller: Caller, request: m.ListPending) -> Sequence[r.Pending]:
        """Waiting clients."""
        del caller, request
        return tuple(self.waiting.values())

    async def pending_show(self, caller: Caller, request: m.ShowPending) -> r.PendingDetail:
        """One waiting client, and what the terms would grant."""
        del caller
        proposed = self._proposal(request.pending, request.terms)
        last = next((g for g in self.granted.values() if g.display == proposed.display), None)
        waiting = self._waiting(request.pending)
        if self.restless:
            more = (*waiting.wants, r.Want(method="tools/call", name="delete_all", count=1))
            self.waiting[waiting.code] = msgspec.structs.replace(waiting, wants=more)
        return r.PendingDetail(
            pending=waiting,
            proposed=proposed,
            notes=("the grant also holds when launched by evil",) if proposed.subject.launched_by else (),
            difference=("version: 2.1.327 -> 2.1.328",),
            last_approved=last,
        )

    async def approve(self, caller: Caller, request: m.Approve) -> r.Grant:
        """Grant it, once, if it still is what was shown."""
        proposed = self._proposal(request.pending, request.terms)
        if request.shown and request.shown != proposed.terms:
            raise NotPermittedError("cannot approve what has changed since it was shown")
        grant = self._grant(proposed, f"g-{len(self.granted) + 1}", approved_by=caller.display, how=caller.how)
        del self.waiting[grant.origin]
        self._act("admin", grant.id, verdict="ok")
        return grant

    async def deny(self, caller: Caller, request: m.Deny) -> r.Denied:
        """Drop it."""
        del caller
        waiting = self.waiting.pop(self._waiting(request.pending).code)
        return r.Denied(code=waiting.code, always=request.always, server=waiting.server, display=waiting.caller.display)

    async def grants(self, caller: Caller, request: m.ListGrants) -> Sequence[r.Grant]:
        """Grants that match."""
        del caller
        return [
            grant
            for grant in self.granted.values()
            if (request.ended or grant.revoked is None)
            and request.server in (None, grant.object.server)
            and (request.unused_s is None or grant.last_used is None)
        ]

    async def grants_show(self, caller: Caller, request: m.ShowGrant) -> r.Grant:
        """One grant."""
        del caller
        return self._granted(request.grant)

    async def grants_revoke(self, caller: Caller, request: m.RevokeGrants) -> Sequence[r.Grant]:
        """All of them or none."""
        del caller
        found = [self._granted(each) for each in request.grants]
        for grant in found:
            self.granted[grant.id] = msgspec.structs.replace(grant, revoked=NOW)
        return [self.granted[grant.id] for grant in found]

    async def grants_renew(self, caller: Caller, request: m.RenewGrant) -> r.Grant:
        """Another end."""
        del caller
        grant = self._granted(request.grant)
        self.granted[grant.id] = msgspec.structs.replace(
            grant, expires=NOW + timedelta(hours=int(request.lifetime[:-1]))
        )
        return self.granted[grant.id]

    async def servers(self, caller: Caller, request: m.ListServers) -> Sequence[r.Server]:
        """The registry."""
        del caller, request
        return tuple(self.registry.values())

    async def servers_show(self, caller: Caller, request: m.ShowServer) -> r.Server:
        """One server."""
        del caller
        if request.name not in self.registry:
            raise NothingToDoError(f"cannot find the server {request.name!r}", hint="see: attestctl servers list")
        return self.registry[request.name]

    async def servers_add(self, caller: Caller, request: m.AddServer) -> r.Server:
        """A name is taken once."""
        del caller
        if request.name in self.registry:
            raise ConfigurationError(f"cannot add the server {request.name!r}: the name is taken")
        self.registry[request.name] = r.Server(
            name=request.name,
            transport=request.transport,
            state="running",
            command=request.command,
            path=request.path,
            url=request.url,
            env=tuple(request.env),
            run_as=request.run_as,
            shared=request.shared,
            origin="control",
        )
        return self.registry[request.name]

    async def servers_trust(self, caller: Caller, request: m.TrustServer) -> r.Server:
        """It is there."""
        return await self.servers_show(caller, m.ShowServer(name=request.name))

    async def servers_seal(self, caller: Caller, request: m.SealServer) -> r.Server:
        """Redirected, or refused if that was asked for."""
        found = await self.servers_show(caller, m.ShowServer(name=request.name))
        if found.sealed:
            raise NothingToDoError(f"cannot seal {request.name!r}: it is sealed")
        sealed = "refused" if request.refuse else "redirected"
        self.registry[request.name] = msgspec.structs.replace(found, sealed=sealed)
        return self.registry[request.name]

    async def servers_unseal(self, caller: Caller, request: m.UnsealServer) -> r.Server:
        """Open."""
        found = await self.servers_show(caller, m.ShowServer(name=request.name))
        if not found.sealed:
            raise NothingToDoError(f"cannot unseal {request.name!r}: it is not sealed")
        self.registry[request.name] = msgspec.structs.replace(found, sealed="")
        return self.registry[request.name]

    async def servers_remove(self, caller: Caller, request: m.RemoveServer) -> r.Server:
        """Gone."""
        await self.servers_show(caller, m.ShowServer(name=request.name))
        return self.registry.pop(request.name)

    async def explain(self, caller: Caller, request: m.Explain) -> r.Explanation:
        """Only what was recorded."""
        if not any(each.id == request.decision and each.kind == "decision" for each in self.records):
            raise NothingToDoError(f"cannot find the decision {request.decision!r}")
        why = await self.why(caller, m.Why(server="time", tool="get_current_time"))
        return msgspec.structs.replace(why, decision=request.decision, time=NOW)

    async def why(self, caller: Caller, request: m.Why) -> r.Explanation:
        """A grant on the server permits."""
        del caller
        name = request.tool or request.resource or request.prompt or ""
        held = [g.id for g in self.granted.values() if g.object.server == request.server and g.revoked is None]
        return r.Explanation(
            decision="",
            time=None,
            verdict="permit" if held else "deny",
            cause="" if held else "no_grant",
            detail="" if held else "no grant for client.py",
            caller=identity("client.py"),
            server=request.server,
            method="tools/call",
            name=name,
            grants=tuple(held),
            inputs={"level": 1},
            clauses=(r.Clause(id="grant", text="a grant names the caller", holds=bool(held)),),
            changes=() if held else ("approve it with: attestctl approve 7F3K-9QRT",),
        )

    async def audit_tail(self, caller: Caller, request: m.TailAudit) -> AsyncIterator[r.Record]:
        """The last ones, then each new one."""
        del caller
        try:
            at = max(0, len(self.records) - request.lines)
            while True:
                for each in self.records[at:]:
                    yield each
                at = len(self.records)
                if not request.follow:
                    return
                self.changed.clear()
                await self.changed.wait()
        finally:
            self.closed_streams += 1

    async def audit_query(self, caller: Caller, request: m.QueryAudit) -> AsyncIterator[r.Record]:
        """Those that match."""
        del caller
        count = 0
        for each in self.records:
            if any(
                getattr(request, name) not in (None, getattr(each, name))
                for name in ("kind", "id", "session", "server", "method", "name", "verdict", "cause", "pid")
            ) or (request.since and each.time < request.since):
                continue
            count += 1
            yield each
            if count == request.limit:
                return

    async def audit_verify(self, caller: Caller, request: m.VerifyAudit) -> AsyncIterator[r.Progress | r.Verification]:
        """Progress, then the report."""
        del caller, request
        total = len(self.records)
        yield r.Progress(done=total // 2, total=total, what="records")
        yield r.Verification(ok=not self.problems, records=total, segments=1, head="ab" * 32, problems=self.problems)

    async def reload(self, caller: Caller, request: m.Reload) -> r.Reloaded:
        """The next generation."""
        del caller, request
        return r.Reloaded(generation=4, changes=("servers.d/time.toml: read again",))

    def _waiting(self, code: str) -> r.Pending:
        word = code.strip().replace("-", "").upper()
        for known, waiting in self.waiting.items():
            if known.replace("-", "") == word:
                return waiting
        raise NothingToDoError("cannot find a client with this code: it was used, has expired, or never was")

    def _granted(self, grant: str) -> r.Grant:
        if grant not in self.granted:
            raise NothingToDoError(f"cannot find the grant {grant!r}", hint="see: attestctl grants list")
        return self.granted[grant]

    def _proposal(self, code: str, terms: m.Terms) -> r.Grant:
        waiting = self._waiting(code)
        caller = waiting.caller
        if "nonsense" in terms.tools:
            raise UsageError("cannot grant the tool 'nonsense'")
        wanted = tuple(want.name for want in waiting.wants if want.method == "tools/call") or ("*",)
        present = tuple(each.program or "unreadable" for each in caller.launchers)
        timed = terms.lifetime[-1:] in ("m", "h")
        return r.Grant(
            id="",
            subject=r.Subject(
                uid=caller.uid,
                program_kind=terms.program,
                program=caller.program,
                launched_by=present if terms.launched_by is None else _resolved(terms.launched_by, present),
                inline=terms.inline or caller.inline,
            ),
            object=r.Object(server=waiting.server, tools=("*",) if terms.all_tools else terms.tools or wanted),
            min_level=terms.min_level,
            lifetime="until" if timed else terms.lifetime or "binary",
            expires=datetime.now(UTC) + timedelta(hours=1) if timed else None,
            hits=0,
            last_used=None,
            approved_by="",
            origin=waiting.code,
            display=caller.display,
        )

    def _grant(self, proposed: r.Grant, name: str, *, approved_by: str = "root", how: str = "root") -> r.Grant:
        self.granted[name] = msgspec.structs.replace(proposed, id=name, approved_by=approved_by, how=how, created=NOW)
        return self.granted[name]

    def _act(self, kind: str, name: str, *, verdict: str, cause: str = "") -> None:
        self.records.append(record(len(self.records), kind, name, verdict=verdict, cause=cause))
        self.changed.set()


def _resolved(words: tuple[str, ...], present: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(program for program in present if any(program.startswith(word) for word in words))
