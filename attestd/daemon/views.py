"""From the daemon's values to the replies of the control protocol. Nothing is decided or looked up here.

``sees`` is the uid whose things exist for whoever is answered, None for everybody's. Of a process in a chain that is
neither that user's nor root's, it is said that it is there and whose it is, and nothing that the user could not see.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from attestd.appraisal.model import AttestationResult
from attestd.audit.findings import Report
from attestd.audit.query import Row
from attestd.control import replies as r
from attestd.control.times import utc
from attestd.daemon.app import Front
from attestd.daemon.seals import Seals
from attestd.daemon.sessions import SessionInfo
from attestd.evidence.model import Evidence, FileFacts, Link, Origin
from attestd.evidence.model import Script as ScriptFacts
from attestd.grants.approve import warnings
from attestd.grants.model import Grant, Pending


def identity(result: AttestationResult) -> r.Identity:
    """An attestation result."""
    return msgspec.convert(result, r.Identity, from_attributes=True)


def inspection(evidence: Evidence, result: AttestationResult, sees: int | None = None) -> r.Inspection:
    """Evidence and result of one process."""
    return r.Inspection(
        peer=r.Peer(pid=evidence.peer.pid, uid=evidence.peer.uid, gid=evidence.peer.gid),
        chain=links(evidence, result, sees),
        accountable=result.accountable,
        identity=identity(result),
        end=evidence.end,
        recorder=r.RecorderState(state=evidence.recorder, reason=evidence.recorder_reason),
    )


def links(evidence: Evidence, result: AttestationResult, sees: int | None = None) -> tuple[r.Link, ...]:
    """The chain."""
    return tuple(
        (_foreign if _hidden(link, sees) else _link)(link, cls)
        for link, cls in zip(evidence.chain, result.classes, strict=True)
    )


def pending(
    entry: Pending, evidence: Evidence | None, client_name: str | None = None, sees: int | None = None
) -> r.Pending:
    """A waiting request; ``evidence`` while it is remembered."""
    result = msgspec.json.decode(entry.identity, type=AttestationResult)
    return r.Pending(
        code=entry.code,
        caller=identity(result),
        server=entry.server,
        wants=tuple(r.Want(method=w.method, name=w.name, count=w.count) for w in entry.wants),
        cause=entry.cause,
        first_seen=utc(entry.first_ns),
        last_seen=utc(entry.last_ns),
        expires=utc(entry.expires_ns),
        count=entry.count,
        client_name=client_name,
        chain=links(evidence, result, sees)
        if evidence is not None and len(evidence.chain) == len(result.classes)
        else (),
        accountable=result.accountable,
    )


def grant(found: Grant) -> r.Grant:
    """A grant."""
    return r.Grant(
        id=found.id,
        subject=msgspec.convert(found.subject, r.Subject, from_attributes=True),
        object=msgspec.convert(found.object, r.Object, from_attributes=True),
        min_level=found.min_level,
        lifetime=found.lifetime.kind,
        expires=None if found.lifetime.until_ns is None else utc(found.lifetime.until_ns),
        hits=found.hits,
        last_used=None if found.last_used_ns is None else utc(found.last_used_ns),
        approved_by=found.approved_by,
        origin=found.origin,
        how=found.how,
        display=found.display,
        created=utc(found.created_ns),
        revoked=None if found.revoked_ns is None else utc(found.revoked_ns),
        key=found.lifetime.key,
        warnings=warnings(found),
    )


def server(front: Front, path: Path, sessions: int, sealed: str = "", sees: int | None = None) -> r.Server:
    """A server of the registry; of its environment only the names."""
    settings, image = front.settings, front.image
    detail = front.trouble if _tried_for(front, sees) else ""
    if not detail and image is not None and sees in {None, image.uid}:
        detail = image.describe
    return r.Server(
        name=settings.name,
        transport=settings.transport,
        state=state(front, sessions, sees),
        command=settings.command,
        path=settings.socket or None,
        url=settings.url or None,
        env=tuple(sorted(settings.env)),
        run_as=settings.run_as,
        shared=settings.shared,
        socket=str(front.path),
        sessions=sessions,
        origin=str(path),
        detail=detail,
        owner=front.owner,
        sealed=sealed,
    )


def seals(found: Seals) -> tuple[r.SealState, ...]:
    """What is, or should be, sealed."""
    return tuple(r.SealState(server=s.server, port=s.port, state=found.state(s)) for s in found.seals)


def state(front: Front, sessions: int, sees: int | None = None) -> str:
    """The word for a server.

    ready: nothing wrong so far; serving: sessions are open; failed: the last attempt to reach its back end failed.
    """
    if front.trouble and _tried_for(front, sees):
        return "failed"
    return "serving" if sessions else "ready"


def _tried_for(front: Front, sees: int | None) -> bool:
    return sees is None or sees in {front.owner, front.trouble_uid}


def session(info: SessionInfo, sees: int | None = None) -> r.Session:
    """One live session."""
    result, chain = info.caller.result, info.caller.evidence.chain
    ancestors = tuple(
        r.Ancestor(
            pid=link.pid, start=link.start_ticks, cls=cls.value, title="" if _hidden(link, sees) else _title(link)
        )
        for link, cls in zip(chain, result.classes, strict=True)
    )
    return r.Session(
        session=info.id,
        server=info.server,
        caller=identity(result),
        pid=info.peer.pid,
        since=info.since,
        calls=info.connection.session.calls,
        denials=info.connection.session.denials,
        ancestors=tuple(reversed(ancestors)),
        client_name=info.connection.session.client_name,
    )


def record(row: Row) -> r.Record:
    """One audit record."""
    found = row.record
    fields = {name: getattr(found, name) for name in found.__struct_fields__ if name not in ("time_ns", "body")}
    return r.Record(time=utc(found.time_ns), display=row.caller.display, **fields)


def verification(report: Report) -> r.Verification:
    """What verification found."""
    return r.Verification(
        ok=report.ok,
        records=report.records,
        segments=report.segments,
        head=report.head.root,
        problems=tuple(
            r.Problem(what=p.what, record=p.seq, segment=str(p.segment), offset=p.offset) for p in report.problems
        ),
    )


def _title(link: Link) -> str:
    if link.script is not None and link.script.file is not None:
        return Path(link.script.file.path).name
    return Path(link.exe.path).name if link.exe is not None else link.comm


def _hidden(link: Link, sees: int | None) -> bool:
    return sees is not None and not {0, sees} >= set(link.uids)


def _foreign(link: Link, cls: str) -> r.Link:
    uid = next((uid for uid in link.uids if uid != 0), 0)
    return r.Link(pid=link.pid, start=link.start_ticks, uid=uid, cls=str(cls), exe=None, script=None, origin=None)


def _link(link: Link, cls: str) -> r.Link:
    script = link.script
    return r.Link(
        pid=link.pid,
        start=link.start_ticks,
        uid=link.uids[0],
        cls=str(cls),
        exe=_executable(link.exe),
        script=None if script is None else _script(script),
        origin=_origin(script.origin if script is not None and script.origin is not None else link.origin),
        comm=link.comm,
        argv=link.argv,
        tty=link.tty,
        posture=link.posture,
        gaps=link.gaps,
        tracer_pid=link.tracer_pid,
        recorded=link.recorded,
        dead=link.dead,
    )


def _executable(exe: FileFacts | None) -> r.Executable | None:
    if exe is None:
        return None
    return r.Executable(
        path=exe.path, sha256=exe.sha256, owner_uid=exe.owner_uid, writable=exe.writable, deleted=exe.deleted
    )


def _script(script: ScriptFacts) -> r.Script:
    path = script.file.path if script.file is not None else None
    return r.Script(kind=script.kind, path=path, sha256=script.sha256, name=script.name)


def _origin(origin: Origin | None) -> r.Origin | None:
    return None if origin is None else msgspec.convert(origin, r.Origin, from_attributes=True)
