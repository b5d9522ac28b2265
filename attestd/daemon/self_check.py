"""Does the decision path still decide? Asked again and again; the service manager is told only while it does.

One check sends synthetic calls along the real path and leaves nothing behind: 1 this process, over a socket pair, is
the caller; evidence is collected and appraised by the real rooms. 2 A call of it is parsed, decided by the engine in
force and would be recorded; the log must be able to take a record, and none is written. 3 The same call by another
writer must be refused, whatever the policy says, and so must a caller of level 0. 4 Under the shipped policy alone
calls with and without a grant come to the answers that are known (``known_answers``). What a check is not: a judgement
of the world. A full disk, or a policy that errs, makes attestd refuse, which is its duty and nothing that a restart
cures.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time

import msgspec

from attestd.appraisal.model import AttestationResult
from attestd.audit.log import AuditLogFile
from attestd.audit.protocol import Entry
from attestd.daemon.app import Daemon
from attestd.daemon.known_answers import KNOWN, grants_of, ordinary
from attestd.daemon.paths import policy_directory
from attestd.daemon.policy import shipped_engine
from attestd.daemon.sessions import SessionCaller
from attestd.decision.engine import Engine
from attestd.decision.model import Deny, ServerFacts, ToolFacts
from attestd.enforcement.clock import MessageClock
from attestd.errors import AttestdError, Cause
from attestd.evidence.model import Evidence
from attestd.grants.model import Grant
from attestd.mediation import Attested, Forward, Mediator, Outcome, Refuse, attest
from attestd.wire.classify import classify
from attestd.wire.model import CallRequest, Era, Limits
from attestd.wire.parse import parse_message

SERVER = "attestd-self-check"
_NAMES = 64
"""Different names that are asked for in turn: the engine remembers decisions, and shall be asked all the same."""


class SelfCheckError(AttestdError):
    """The decision path does not do what it must; only a restart can help."""

    code = "self_check"


class WrongDecisionError(SelfCheckError):
    """It answers, and wrongly: nobody should be answered any more."""

    code = "wrong_decision"


class _Desk:
    """Implements ``sessions.Desk`` over an engine: these grants, nothing used up, nothing put on a list."""

    grants_version = 0

    def __init__(self, engine: Engine, generation: int, grants: tuple[Grant, ...]) -> None:
        self.engine = engine
        self.generation = generation
        self.tools: dict[tuple[str, int], dict[str, ToolFacts]] = {}
        self._grants = grants

    def own_grants(self, result: AttestationResult, server: str) -> tuple[Grant, ...]:
        del result, server
        return self._grants

    def use_grants(self, grants: tuple[str, ...], session: str, now_ns: int) -> bool:
        del grants, session, now_ns
        return False

    def pend(self, caller: SessionCaller, method: str, name: str, deny: Deny, now_ns: int) -> str | None:
        del caller, method, name, deny, now_ns
        return None


class _Unwritten:
    """Implements ``audit.protocol.AuditLog``: refuses exactly when the log would, and writes nothing."""

    def __init__(self, log: AuditLogFile) -> None:
        self._log = log
        self.records = 0

    def append(self, entry: Entry, time_ns: int) -> int:
        del entry, time_ns
        self._log.require_open()
        self.records += 1
        return self.records

    def caller(self, body: bytes, time_ns: int) -> str:
        del time_ns
        self._log.require_open()
        return hashlib.sha256(body).hexdigest()

    def sync_now(self) -> None:
        self._log.require_open()

    def digest_arguments(self, canonical: bytes) -> str:
        return self._log.digest_arguments(canonical)


class SelfCheck:
    """Of one daemon. Runs on the loop's thread, so that a loop that hangs is seen as well."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._shipped = shipped_engine(policy_directory(), daemon.host_id)
        self._asked = 0

    def run(self) -> str:
        """Check once; one line on the state of the service. Raises SelfCheckError."""
        # 1 who calls
        ours, theirs = socket.socketpair()
        with ours, theirs:
            kernel = self._daemon.kernel
            try:
                attested = attest(kernel, ours.fileno(), kernel.peer(ours.fileno()), self._daemon.appraiser)
            except (AttestdError, OSError) as error:
                raise SelfCheckError(f"cannot attest this process itself: {error}") from error
            try:
                self._decisions(attested)
            finally:
                attested.watch.close()
        return self._state()

    def _decisions(self, attested: Attested) -> None:
        # 2 what is decided
        evidence, result, engine = attested.evidence, attested.result, self._daemon.engine
        known = self._call(attested, evidence, _at(result, max(1, result.level)), engine)
        if not isinstance(known, Forward | Refuse):
            raise WrongDecisionError(f"cannot trust decisions: a call came to {type(known).__name__}")
        if isinstance(known, Refuse) and known.refusal.cause in {Cause.INTERNAL, Cause.AUDIT_UNAVAILABLE}:
            raise SelfCheckError(f"cannot decide: {known.refusal.text}")
        # 3 what must be refused whatever the policy says
        for what, level, writer in (("a caller of level 0", 0, os.getpid()), ("another writer", 1, 1)):
            outcome = self._call(attested, evidence, _at(result, level), engine, writer_pid=writer)
            if not isinstance(outcome, Refuse):
                raise WrongDecisionError(f"cannot trust decisions: {what} came to {_said(outcome)}, not to Refuse")
        # 4 what is known
        evidence, caller = ordinary(evidence, result)
        for question in KNOWN:
            grants = grants_of(question, caller, SERVER, time.time_ns())
            outcome = self._call(attested, evidence, caller, self._shipped, grants)
            wanted = "Forward" if question.cause is None else f"Refuse ({question.cause.value})"
            if _said(outcome) != wanted:
                raise WrongDecisionError(
                    f"cannot trust decisions: {question.what} came to {_said(outcome)}, not to {wanted}"
                )
        self._shipped.forget()

    def _call(
        self,
        attested: Attested,
        evidence: Evidence,
        result: AttestationResult,
        engine: Engine,
        grants: tuple[Grant, ...] = (),
        *,
        writer_pid: int = 0,
    ) -> Outcome:
        self._asked += 1
        caller = SessionCaller(
            desk=_Desk(engine, self._daemon.generation, grants),
            server=ServerFacts(name=SERVER, transport="stdio"),
            session=SERVER,
            evidence=evidence,
            result=result,
            digest="",
            watch=attested.watch,
            now_ns=time.time_ns(),
        )
        mediator = Mediator(caller, _Unwritten(self._daemon.audit))
        name = f"check-{self._asked % _NAMES}"
        limits = self._daemon.settings.limits.wire
        return mediator.request(
            lambda: _parsed(name, limits),
            writer_pid=writer_pid or os.getpid(),
            place=lambda _: None,
            proven=lambda _: True,
            clock=MessageClock(),
        )

    def _state(self) -> str:
        daemon = self._daemon
        served = f"{len(daemon.fronts)} servers, {len(daemon.sessions)} sessions"
        trouble = daemon.audit.last_error
        return served if trouble is None else f"{served}; every call is refused: {trouble.message}"


def _at(result: AttestationResult, level: int) -> AttestationResult:
    return msgspec.structs.replace(result, level=level)


def _said(outcome: Outcome) -> str:
    """An outcome in words."""
    return f"Refuse ({outcome.refusal.cause.value})" if isinstance(outcome, Refuse) else type(outcome).__name__


def _parsed(name: str, limits: Limits) -> CallRequest:
    """Step 3 of a call, from bytes as a client sends them."""
    line = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"%s","arguments":{}}}' % name.encode()
    return classify(parse_message(line, limits), "2025-06-18", Era.LEGACY)
