"""Live sessions: what mediation needs to know of one caller, and what people are shown of it.

``SessionCaller`` implements ``mediation.Caller``. It links the caller's own grants when it connects and again
whenever grants or policy change (the engine itself leaves out those that have run out); a decision never sees a stale
set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from datetime import datetime
from typing import Protocol

import msgspec

from attestd.appraisal.model import AttestationResult
from attestd.decision.engine import Engine
from attestd.decision.model import Deny, Permit, RequestContext, ServerFacts, ToolFacts, Verdict
from attestd.decision.subject import Subject
from attestd.enforcement.link import Attached
from attestd.enforcement.session import Session
from attestd.errors import Cause
from attestd.evidence.model import Evidence, Peer
from attestd.evidence.protocol import Watch
from attestd.grants.match import match
from attestd.grants.model import Grant
from attestd.grants.runs import runs
from attestd.wire.methods import QUESTIONS
from attestd.wire.model import CallRequest, Target

HOUR_NS = 3_600_000_000_000
ARGV_WORDS = 16
ARGV_LETTERS = 256


class Desk(Protocol):
    """The part of the daemon that a caller's decisions need."""

    @property
    def engine(self) -> Engine:
        """Of the active generation."""

    grants_version: int
    """Changes with every grant, revocation, renewal and policy change."""
    generation: int
    tools: dict[tuple[str, int], dict[str, ToolFacts]]
    """By server and the uid that it served, then tool: from the server's own list."""

    def own_grants(self, result: AttestationResult, server: str) -> tuple[Grant, ...]:
        """The caller's own grants on this server, ended ones too."""

    def use_grants(self, grants: tuple[str, ...], session: str, now_ns: int) -> bool:
        """Count a use; True if it used up a ``once`` grant. Raises AttestdError: then the effect must not happen."""

    def pend(self, caller: SessionCaller, method: str, name: str, deny: Deny, now_ns: int) -> str | None:
        """Put a refused wish on the list."""


class SessionCaller:
    """One attested caller on one server."""

    def __init__(
        self,
        *,
        desk: Desk,
        server: ServerFacts,
        session: str,
        evidence: Evidence,
        result: AttestationResult,
        digest: str,
        watch: Watch,
        now_ns: int,
        pidfd: int = -1,
    ) -> None:
        self.result = result
        self.digest = digest
        self.server = server.name
        self.session = session
        self.pidfd = pidfd
        """Of the peer, valid while the session lives; -1 where the platform has none."""
        self.mode = "enforce"
        self.evidence = slim(evidence)
        self.runs = runs(evidence, result)
        self.revision: Callable[[], str | None] = lambda: None
        """The negotiated protocol version, once the session can tell."""
        self.calls: Callable[[], int] = lambda: 0
        self._desk = desk
        self._facts = server
        self.verify = watch.verify
        """Step 4."""
        self._version = -1
        self._subject: Subject
        self._link(now_ns)

    @property
    def generation(self) -> int:
        """Of the policy that decides now."""
        return self._desk.generation

    def decide(self, target: Target, request: CallRequest | None, now_ns: int, calls: int | None = None) -> Verdict:
        """Step 5 for one target."""
        del request  # raw arguments never enter a decision
        desk = self._desk
        if self._version != desk.grants_version:
            self._link(now_ns)
        tool = None
        if target.kind == "tool" and (tools := desk.tools.get((self.server, self.result.uid))) is not None:
            tool = tools.get(target.name)
        engine = desk.engine
        remembered = engine.remembered(self._subject, self._facts, target, tool, now_ns)
        if remembered is not None:
            return remembered
        return engine.decide(self._subject, self._facts, target, tool, self.context(now_ns, calls))

    def basis(self, now_ns: int) -> Hashable:
        """The linked grants that are in force now, under the policy that is."""
        if self._version != self._desk.grants_version:
            self._link(now_ns)
        return self._desk.engine.current(self._subject, now_ns).key

    def accepts(self, method: str) -> bool:
        """Whether the grants of the caller accept this request of the server, as of now; not recorded."""
        target = Target(action=QUESTIONS[method], kind="server", name="")
        return isinstance(self.decide(target, None, time.time_ns()), Permit)

    def context(self, now_ns: int, calls: int | None = None) -> RequestContext:
        """The typed context; hour and weekday in UTC, Monday is 0. ``calls``: instead of those so far."""
        hours = now_ns // HOUR_NS
        return RequestContext(
            protocol_version=self.revision() or "",
            transport=self._facts.transport,
            hour=hours % 24,
            weekday=(hours // 24 + 3) % 7,
            now_ns=now_ns,
            args_sha256="",
            args_size=0,
            calls_in_session=self.calls() if calls is None else calls,
        )

    def pend(self, method: str, name: str, deny: Deny, now_ns: int) -> str | None:
        """The approval code of a refused wish."""
        return self._desk.pend(self, method, name, deny, now_ns)

    def permitted(self, permit: Permit, now_ns: int) -> bool:
        """Count the use of the determining grants."""
        return bool(permit.grants) and self._desk.use_grants(permit.grants, self.session, now_ns)

    @property
    def subject(self) -> Subject:
        """The linked caller, for explanations."""
        return self._subject

    def _link(self, now_ns: int) -> None:
        self._version = self._desk.grants_version
        found = match(self.result, self.server, self._desk.own_grants(self.result, self.server), now_ns)
        self._subject = self._desk.engine.subject(self.result, self.evidence, found)


class Channel(Attached, Protocol):
    """What carries a session: a connection, or HTTP requests."""

    @property
    def session(self) -> Session:
        """The session."""

    def tick(self) -> None:
        """The periodic look."""

    def grants_changed(self) -> None:
        """Grants or policy are not what they were."""

    def close(self, cause: Cause, text: str) -> None:
        """End from outside."""


class SessionInfo(msgspec.Struct, kw_only=True):
    """One live session, for ``ps`` and for whoever must end it."""

    id: str
    server: str
    connection: Channel
    caller: SessionCaller
    settle: Callable[[int], int]
    """Record the refusals that were only counted; how many could not be."""
    peer: Peer
    since: datetime


def slim(evidence: Evidence) -> Evidence:
    """The evidence with argument lists cut short: a session keeps it for as long as it lives."""
    links = tuple(
        msgspec.structs.replace(link, argv=tuple(word[:ARGV_LETTERS] for word in link.argv[:ARGV_WORDS]))
        for link in evidence.chain
    )
    return msgspec.structs.replace(evidence, chain=links)
