"""Explaining decisions: one that was recorded, and one that has not happened."""

from __future__ import annotations

import time

import msgspec

from attestd.appraisal.model import AttestationResult
from attestd.audit.model import Record
from attestd.control import messages as m
from attestd.control import replies as r
from attestd.control.times import utc
from attestd.daemon.app import Daemon
from attestd.daemon.views import identity
from attestd.decision.explain import Explanation, explain
from attestd.decision.model import Deny, RequestContext, ServerFacts
from attestd.errors import NothingToDoError, UsageError
from attestd.evidence.model import Evidence
from attestd.grants.match import match
from attestd.wire.methods import CLIENT_NOTIFICATIONS, CLIENT_REQUESTS, SERVER_REQUESTS, Finder
from attestd.wire.model import Target
from attestd.wire.uris import is_template

ROWS = {row.name: row for row in (*CLIENT_NOTIFICATIONS, *SERVER_REQUESTS, *CLIENT_REQUESTS)}
KINDS = {Finder.TOOL: "tool", Finder.PROMPT: "prompt", Finder.RESOURCE: "resource", Finder.FILTER: "resource"}
HOUR_NS = 3_600_000_000_000


class _Body(msgspec.Struct):
    result: AttestationResult
    evidence: Evidence


def recorded(daemon: Daemon, record: Record, body: bytes) -> r.Explanation:
    """A decision of the log, decided again with what is in force now; the recorded verdict stays the answer."""
    try:
        caller = msgspec.json.decode(body, type=_Body)
    except msgspec.DecodeError:
        raise NothingToDoError(f"cannot explain {record.id}: the caller's record is missing from the log") from None
    target = target_of(record.method, record.name)
    found = _explain(daemon, caller.evidence, caller.result, server=record.server, target=target, now_ns=record.time_ns)
    why = str(record.detail.get("why", ""))
    notes = (
        () if record.generation == daemon.generation else ("the policy has changed since; clauses are those of now",)
    )
    return r.Explanation(
        decision=record.id,
        time=utc(record.time_ns),
        verdict=record.verdict,
        cause=record.cause,
        detail=why or (found.verdict.detail if isinstance(found.verdict, Deny) else ""),
        caller=identity(caller.result),
        server=record.server,
        method=record.method,
        name=record.name,
        policies=record.policies,
        grants=tuple(p for p in record.policies if p.startswith("grant:")),
        generation=record.generation,
        mode=record.mode,
        inputs=_inputs(caller.result, target),
        clauses=_clauses(found),
        changes=(*notes, *found.remedies),
    )


def imagined(daemon: Daemon, evidence: Evidence, result: AttestationResult, request: m.Why) -> r.Explanation:
    """A call that has not happened: nothing is recorded, used up or put on the list."""
    named = [
        (kind, name)
        for kind, name in (("tool", request.tool), ("resource", request.resource), ("prompt", request.prompt))
        if name
    ]
    if len(named) > 1:
        raise UsageError("cannot explain more than one of tool, resource and prompt", hint="ask once for each")
    method = (
        {"tool": "tools/call", "resource": "resources/read", "prompt": "prompts/get"}[named[0][0]]
        if named
        else "initialize"
    )
    name = named[0][1] if named else ""
    target = target_of(method, name)
    found = _explain(daemon, evidence, result, server=request.server, target=target, now_ns=time.time_ns())
    verdict = found.verdict
    return r.Explanation(
        decision="",
        time=None,
        verdict="deny" if isinstance(verdict, Deny) else "permit",
        cause=verdict.cause.value if isinstance(verdict, Deny) else "",
        detail=verdict.detail if isinstance(verdict, Deny) else "",
        caller=identity(result),
        server=request.server,
        method=method,
        name=name,
        policies=verdict.policies,
        grants=tuple(p for p in verdict.policies if p.startswith("grant:")),
        generation=daemon.generation,
        mode="enforce",
        inputs=_inputs(result, target),
        clauses=_clauses(found),
        changes=found.remedies,
    )


def target_of(method: str, name: str) -> Target:
    """The target of a recorded method and name; the whole server where it named nothing."""
    row = ROWS.get(method)
    if row is None:
        return Target(action="pass", kind="server", name="")
    kind = KINDS.get(row.finder, "server")
    if row.finder is Finder.REFERENCE:
        kind = "template" if is_template(name) else "resource" if ":" in name else "prompt"
    return Target(action=row.action, kind=kind if name else "server", name=name if kind != "server" else "")


def _explain(
    daemon: Daemon, evidence: Evidence, result: AttestationResult, *, server: str, target: Target, now_ns: int
) -> Explanation:
    front = daemon.fronts.get(server)
    transport = front.settings.transport if front is not None else "stdio"
    own = match(result, server, daemon.own_grants(result, server), now_ns)
    hours = now_ns // HOUR_NS
    return explain(
        daemon.engine,
        daemon.engine.subject(result, evidence, own),
        server=ServerFacts(name=server, transport=transport),
        target=target,
        tool=daemon.tools.get((server, result.uid), {}).get(target.name),
        context=RequestContext(
            protocol_version="",
            transport=transport,
            hour=hours % 24,
            weekday=(hours // 24 + 3) % 7,
            now_ns=now_ns,
            args_sha256="",
            args_size=0,
            calls_in_session=0,
        ),
    )


def _inputs(result: AttestationResult, target: Target) -> dict[str, str | int | bool]:
    return {
        "action": target.action,
        "kind": result.kind.value,
        "level": result.level,
        "inline": result.inline,
        "launchers": ", ".join(launcher.display for launcher in result.launchers),
        "program": result.program,
        "chain": result.chain,
        "uid": result.uid,
    }


def _clauses(found: Explanation) -> tuple[r.Clause, ...]:
    clauses = [r.Clause(id=d.id, text=d.message or d.text, holds=True) for d in found.determining]
    clauses += [
        r.Clause(id=g.id, text=g.failed or f"{g.display} holds and names the target", holds=not g.failed)
        for g in found.grants
    ]
    clauses += [
        r.Clause(id=p.id, text=f"first condition that does not hold: {p.failed}", holds=False) for p in found.permits
    ]
    return tuple(clauses)
