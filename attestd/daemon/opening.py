"""A new session, wired: caller, decisions, proof and records. What carries its bytes is somebody else's business."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from attestd.audit.protocol import Entry
from attestd.daemon.sessions import Channel, SessionCaller, SessionInfo
from attestd.decision.model import ServerFacts
from attestd.enforcement.proof import Proof
from attestd.enforcement.session import Session
from attestd.evidence.model import Peer
from attestd.evidence.protocol import Watch
from attestd.mediation import Attested, Mediator

if TYPE_CHECKING:
    from attestd.daemon.app import Daemon, Front


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A session that is recorded and has no connection yet."""

    id: str
    session: Session
    caller: SessionCaller
    settle: Callable[[int], int]
    """Record the refusals that were only counted; how many could not be."""


def challenge() -> str:
    """A word that nobody can guess, which only the attested process is told."""
    return f"attestd-{secrets.token_hex(16)}"


def open_session(daemon: Daemon, front: Front, peer: Peer, attested: Attested, *, proof: Proof, watch: Watch) -> Opened:
    """Record a session and make it. Raises AuditUnavailableError."""
    settings, result, now_ns = front.settings, attested.result, time.time_ns()
    session_id = secrets.token_hex(6)
    digest = daemon.audit.caller(caller_body(attested), now_ns)
    entry = Entry(
        kind="session",
        id=session_id,
        session=session_id,
        server=settings.name,
        method="open",
        caller=digest,
        verdict="ok",
        uid=peer.uid,
        pid=peer.pid,
        detail={"level": result.level},
    )
    daemon.audit.append(entry, now_ns)
    caller = SessionCaller(
        desk=daemon,
        server=ServerFacts(name=settings.name, transport=settings.transport),
        session=session_id,
        evidence=attested.evidence,
        result=result,
        digest=digest,
        watch=watch,
        now_ns=now_ns,
        pidfd=next(iter(attested.watch.exit_fds()), -1),
    )
    mediator = Mediator(caller, daemon.audit, refusals=daemon.refusals.singly(peer.uid))
    session = Session(
        mediator=mediator,
        proof=proof,
        bindings=front.bindings,
        owner=(result.uid, result.program, result.chain),
        limits=daemon.settings.limits.wire,
        shared=settings.shared,
        learn=partial(daemon.learn, settings.name, result.uid),
    )
    caller.revision = lambda: session.revision
    caller.calls = lambda: session.calls
    return Opened(id=session_id, session=session, caller=caller, settle=partial(mediator.settle, end=True))


def closed(info: SessionInfo, channel: Channel, cause: str, text: str) -> Entry:
    """The record of the end of a session."""
    return Entry(
        kind="session",
        id=info.id,
        session=info.id,
        server=info.server,
        method="close",
        caller=info.caller.digest,
        verdict="end",
        cause=cause,
        uid=info.peer.uid,
        pid=info.peer.pid,
        detail={"why": text[:256], "calls": channel.session.calls, "denials": channel.session.denials},
    )


def caller_body(attested: Attested) -> bytes:
    """The content-addressed body of a ``caller`` record."""
    return msgspec.json.encode({"result": attested.result, "evidence": attested.evidence})
