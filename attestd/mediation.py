"""The path of one call, from accept to audit. This file is the procedure; the rooms below it do the parts.

Once per connection (``attest``):
  0  The kernel's word on the peer, taken at accept by the listener; limits per uid are applied there, before anything
     costly.
  1  Collect evidence on the peer and its ancestors, race-free, and the watch that keeps it true.
  2  Appraise it: who is the accountable client, its digests, its level. Level 0 is refused outright.
Every message of the client (``Mediator.request``):
  3  Parse and classify: bytes become one strictly parsed request, or a WireError. Client bytes are never forwarded.
  4  Still the same process? The writer is the attested peer, the image is unchanged, the chain unbroken; and an
     effectful request is not older than the attestation.
  5  Decide every target of the request. The verdict starts at Deny; Permit is something that the engine returned.
  6  Record the decision. Nothing happens whose record could not be written.
  7  Forward the request, serialised again, or answer with a refusal that says what to do.
Every message of the server (``Mediator.allows``, ``server_request``, ``result``):
  8  Only answers to this caller's requests, lists cut down to its grants, server requests gated; recorded.

Rules. Time is a parameter, read once per message by the caller. An unexpected exception inside steps 3 to 7 is our
bug: it yields Deny(internal), never a forward. There is no check of ``clientInfo``: it is a claim, shown and
recorded, not evidence.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from typing import Protocol

import msgspec

from attestd.appraisal.appraiser import Appraiser
from attestd.appraisal.model import AttestationResult, LinkClass
from attestd.audit.protocol import AuditLog, Entry
from attestd.audit.refusals import SINGLY, Refusals
from attestd.decision.model import Deny, Permit, Verdict
from attestd.errors import AttestdError, AuditUnavailableError, Cause
from attestd.evidence.model import Evidence, Peer
from attestd.evidence.protocol import Kernel, Watch
from attestd.wire.model import CallRequest, Kind, Message, Refusal, Target, WireError
from attestd.wire.refusal import refusal_text
from attestd.wire.serialise import to_bytes


class Clock(Protocol):
    """The time of one message: read once, by the caller of a step."""

    now_ns: int
    """Wall clock, ns since the epoch."""

    def elapsed_ns(self) -> int:
        """Monotonic time since the message was read, for the recorded latency."""


class Attested(msgspec.Struct, frozen=True, kw_only=True):
    """What steps 1 and 2 give."""

    evidence: Evidence
    result: AttestationResult
    watch: Watch

    @property
    def relayed(self) -> bool:
        """Whether the peer is our shim, so that older bytes may wait in its standard input."""
        return self.result.classes[0] is LinkClass.RELAY

    @property
    def proven(self) -> bool:
        """Whether the recorder proves that nothing is older than the attested images, so that no challenge is due."""
        return self.result.accountable <= self.evidence.proven_upto


def attest(kernel: Kernel, sock_fd: int, peer: Peer, appraiser: Appraiser) -> Attested:
    """Steps 1 and 2 for the peer of a connected socket. Blocks (it hashes). Raises EvidenceError."""
    # 1 collect evidence
    collected = kernel.collect(sock_fd, peer)
    evidence = collected.evidence
    try:
        # 2 appraise; a relay brings its standard input along, so whoever can write to that is evidence too
        result = appraiser.appraise(evidence)
        if result.classes[0] is LinkClass.RELAY:
            evidence = msgspec.structs.replace(evidence, input=kernel.input_holders(evidence.peer.pid))
            result = appraiser.appraise(evidence)
        collected.watch.pin_accountable(result.accountable)
    except BaseException:
        collected.watch.close()
        raise
    return Attested(evidence=evidence, result=result, watch=collected.watch)


class Caller(Protocol):
    """One attested caller on one server, as the steps of a message see it. Implemented by the composition root."""

    result: AttestationResult
    digest: str
    """Digest of the ``caller`` record in the audit log."""
    server: str
    session: str
    mode: str

    @property
    def generation(self) -> int:
        """Of the policy that decides now."""

    def verify(self, writer_pid: int) -> Cause | None:
        """Step 4: see ``Watch.verify``."""

    def decide(self, target: Target, request: CallRequest | None, now_ns: int, calls: int | None = None) -> Verdict:
        """Step 5 for one target, as after ``calls`` calls. Never raises for anything that a client sent."""

    def basis(self, now_ns: int) -> Hashable:
        """What decisions rest on now: another value when a grant or the policy came, changed or ended."""

    def pend(self, method: str, name: str, deny: Deny, now_ns: int) -> str | None:
        """Put the refused wish on the list for approval; the code, or None where approval cannot help."""

    def permitted(self, permit: Permit, now_ns: int) -> bool:
        """Count a use of the determining grants. True if that used one of them up."""


class Forward(msgspec.Struct, frozen=True, kw_only=True):
    """Step 7: send this request on."""

    request: CallRequest
    decision: str
    spent: bool = False
    """The call used its grant up: that the grant is gone now does not end it."""


class Refuse(msgspec.Struct, frozen=True, kw_only=True):
    """Step 7: answer (unless it was a notification) with this refusal; ``end`` says that the session is over."""

    refusal: Refusal
    request_id: str | int | None
    answer: bool
    end: bool = False


class Malformed(msgspec.Struct, frozen=True, kw_only=True):
    """Step 3 failed: answer with a JSON-RPC error."""

    error: WireError
    decision: str


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Permitted, but not yet proven to come from the attested image: wait for the proof (nothing was forwarded)."""

    request: CallRequest


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A response of the client, written by the attested peer; the session matches it with what is outstanding."""

    message: Message


Outcome = Reply | Forward | Refuse | Malformed | Hold

TRANSIENT = frozenset(
    {Cause.UNPROVEN, Cause.LIMIT_REQUESTS, Cause.SERVER_UNAVAILABLE, Cause.SHUTTING_DOWN, Cause.AUDIT_UNAVAILABLE}
)
"""Refusals after which the same request may succeed without anybody's approval."""
APPROVABLE = frozenset(
    {
        Cause.NO_GRANT,
        Cause.OUT_OF_SCOPE,
        Cause.LAUNCHER,
        Cause.INLINE,
        Cause.SEARCH_PATH,
        Cause.EXPIRED,
        Cause.SERVER_REQUEST,
    }
)
"""Refusals that an approval can lift; the others get no code."""
OF_GRANTS = frozenset({*APPROVABLE, Cause.LEVEL_TOO_LOW}) - {Cause.SERVER_REQUEST}
"""Refusals for want of a grant: a call that used up its own is not ended by them."""
REACHED = "the server may have done it"
"""Said of a request that was passed on before it was refused."""
ENDING = frozenset(
    {
        Cause.WRITER_MISMATCH,
        Cause.IMAGE_CHANGED,
        Cause.CHAIN_CHANGED,
        Cause.PEER_GONE,
        Cause.TRACED,
        Cause.FOREIGN_NAMESPACE,
        Cause.INCONSISTENT,
    }
)
"""Causes that end the session: the attestation no longer describes who is there."""


class Mediator:
    """Steps 3 to 8 for one session. Its only state is the count of its decisions, which numbers them."""

    def __init__(self, caller: Caller, audit: AuditLog, *, refusals: int = SINGLY) -> None:
        """``refusals``: how many that are alike are recorded one by one in a minute."""
        self._caller = caller
        self._audit = audit
        self._refusals = Refusals(audit, refusals)
        self._decisions = 0

    def request(  # noqa: PLR0911 - one numbered procedure, one return for each way it can end
        self,
        parse: Callable[[], CallRequest | Message],
        *,
        writer_pid: int,
        place: Callable[[CallRequest], tuple[Cause, str] | None],
        proven: Callable[[CallRequest], bool],
        clock: Clock,
    ) -> Outcome:
        """Steps 3 to 7 for one message of the client.

        ``parse`` is step 3 (a closure, so that its failure is caught here like any other). ``place`` says why a
        permitted message is out of place all the same (what it names is not this caller's, or there is no room);
        ``proven`` whether an effectful request is known to be younger than the attestation.
        """
        request: CallRequest | None = None
        try:
            # 3 parse
            parsed = parse()
            # 4 still the same process?
            cause = self._caller.verify(writer_pid)
            if isinstance(parsed, Message):
                return Reply(message=parsed) if cause is None else self._stray(parsed, cause, clock, writer_pid)
            request = parsed
            if cause is not None:
                return self._refuse(request, Deny(cause=cause), clock, writer_pid)
            # 5 decide
            verdict = self._decide(request, clock.now_ns)
            if not isinstance(verdict, Permit):
                return self._refuse(request, verdict, clock, writer_pid)
            misplaced = place(request)
            if misplaced is not None:
                return self._refuse(request, Deny(cause=misplaced[0], detail=misplaced[1]), clock, writer_pid)
            if request.effectful and not proven(request):
                return Hold(request=request)
            # 6 record
            decision = self._record(request, verdict, clock, writer_pid)
            spent = self._caller.permitted(verdict, clock.now_ns)
            # 7 forward
            return Forward(request=request, decision=decision, spent=spent)
        except WireError as error:
            return self._malformed(error, clock, writer_pid)
        except AuditUnavailableError:
            return self._unrecorded(request)
        except Exception as error:  # noqa: BLE001 - one of the two places where the unexpected becomes Deny
            return self._failed(request, error, clock, writer_pid)

    def stray(self, message: Message, cause: Cause, clock: Clock) -> Outcome:
        """Record that a response or notification of the client was dropped, and why."""
        return self._stray(message, cause, clock, 0)

    def refuse(
        self, request: CallRequest, cause: Cause, detail: str, clock: Clock, *, reached: bool = False
    ) -> Outcome:
        """Refuse a parsed request for a reason that the session found (unproven, limits, no back end), recorded.

        ``reached``: the server has it and may have done it, so that nobody should simply send it again.
        """
        return self._late(request, Deny(cause=cause, detail=detail), clock, reached=reached)

    def settle(self, now_ns: int, *, end: bool = False) -> int:
        """Record the refusals that were only counted, if it is time; how many cannot be recorded now."""
        with contextlib.suppress(AuditUnavailableError):
            self._refusals.settle(now_ns, end=end)
        return self._refusals.unwritten() if end else 0

    def basis(self, now_ns: int) -> Hashable:
        """What decisions rest on now; when it differs, what is in flight is decided again."""
        return self._caller.basis(now_ns)

    def recalled(self, request: CallRequest, clock: Clock, *, calls: int, spent: bool) -> tuple[Deny, Outcome] | None:
        """Step 5 again for a request in flight, as after ``calls`` calls: why and how it is refused now, if it is."""
        try:
            verdict = self._decide(request, clock.now_ns, calls)
        except Exception as error:  # noqa: BLE001 - as in ``request``: the unexpected becomes Deny
            verdict = Deny(cause=Cause.INTERNAL, detail=f"{type(error).__name__}: {error}"[:256])
        if isinstance(verdict, Permit) or (spent and verdict.cause in OF_GRANTS):
            return None
        detail = verdict.detail if verdict.detail and not verdict.plain else "the grant has ended"
        deny = msgspec.structs.replace(verdict, detail=f"{detail}; the call was under way", plain=False)
        return deny, self._late(request, deny, clock, reached=True)

    def ending(self) -> Cause | None:
        """Step 4 without a message: why the session must end now, if it must."""
        return self._caller.verify(0)

    def allows(self, target: Target, now_ns: int) -> bool:
        """Step 8, lists: whether the caller may use this item. Not recorded: the list itself was."""
        return isinstance(self._caller.decide(target, None, now_ns), Permit)

    def server_request(self, target: Target, method: str, clock: Clock) -> bool:
        """Step 8: whether a request of the server may reach this client; recorded either way. Fails closed."""
        verdict = self._caller.decide(target, None, clock.now_ns)
        try:
            entry = self._entry("hop", method, target.name, verdict, clock, 0)
            if isinstance(verdict, Deny):
                self._refusals.note(entry, clock.now_ns)
            else:
                self._audit.append(entry, clock.now_ns)
                self._caller.permitted(verdict, clock.now_ns)
                return True
        except AttestdError:  # it cannot be recorded, or the grant was used up meanwhile
            return False
        self._caller.pend(method, target.name, verdict, clock.now_ns)
        return False

    def result(
        self, decision: str, method: str, *, verdict: str, size: int, started_ns: int, clock: Clock, cause: str = ""
    ) -> None:
        """Step 8: record what came back for a forwarded request; ``cause``: why it was not shown.

        Raises AuditUnavailableError.
        """
        now_ns, by = clock.now_ns, self._caller
        detail: dict[str, str | int | bool] = {"bytes": size}
        self._audit.append(
            Entry(  # by position, see there
                "result", decision, by.session, by.server, method, "", by.digest, verdict, cause, (), 0, "", "",
                now_ns - started_ns, -1, 0, detail,
            ),
            now_ns,
        )  # fmt: skip

    def _decide(self, request: CallRequest, now_ns: int, calls: int | None = None) -> Verdict:
        """Every target must be permitted; the permit names what determined each of them."""
        targets = request.targets
        if len(targets) == 1:  # as most requests have
            return self._caller.decide(targets[0], request, now_ns, calls)
        verdict: Verdict = Deny(cause=Cause.NO_GRANT)
        for target in targets:
            found = self._caller.decide(target, request, now_ns, calls)
            if not isinstance(found, Permit):
                return found
            verdict = found if isinstance(verdict, Deny) else _both(verdict, found)
        return verdict

    def _record(self, request: CallRequest, verdict: Verdict, clock: Clock, writer_pid: int) -> str:
        arguments = ""
        if request.effectful:
            params = request.message.params
            arguments = self._audit.digest_arguments(to_bytes(params.get("arguments", params)))
        entry = self._entry("decision", request.method, _name(request), verdict, clock, writer_pid, arguments=arguments)
        if isinstance(verdict, Deny):
            return self._refusals.note(entry, clock.now_ns)
        self._audit.append(entry, clock.now_ns)
        return entry.id

    def _entry(  # noqa: PLR0917 - the fields of a record, on the hot path
        self,
        kind: str,
        method: str,
        name: str,
        verdict: Verdict,
        clock: Clock,
        writer_pid: int,
        *,
        arguments: str = "",
    ) -> Entry:
        self._decisions += 1
        caller = self._caller
        said, cause = "permit", ""
        detail: dict[str, str | int | bool] = {}
        if isinstance(verdict, Deny):
            said, cause = "deny", verdict.cause.value
            if verdict.detail:
                detail["why"] = verdict.detail
        return Entry(  # by position, see there
            kind, f"{caller.session}.{self._decisions}", caller.session, caller.server, method[:256], name[:1024],
            caller.digest, said, cause, verdict.policies, caller.generation, caller.mode, arguments,
            clock.elapsed_ns(), caller.result.uid, writer_pid, detail,
        )  # fmt: skip

    def _late(self, request: CallRequest, deny: Deny, clock: Clock, *, reached: bool) -> Outcome:
        """A refusal of a request that had been permitted."""
        try:
            return self._refuse(request, deny, clock, 0, reached=reached)
        except AuditUnavailableError:
            detail = deny.detail if deny.cause is Cause.AUDIT_UNAVAILABLE else ""
            said = REACHED if reached and request.effectful else ""
            return self._unrecorded(request, detail or said, reached=reached)

    def _refuse(
        self, request: CallRequest, deny: Deny, clock: Clock, writer_pid: int, *, reached: bool = False
    ) -> Refuse:
        decision = self._record(request, deny, clock, writer_pid)
        code = None
        name = _name(request)
        if deny.cause in APPROVABLE:
            code = self._caller.pend(request.method, name, deny, clock.now_ns)
        return self._refusal(request, deny.cause, "" if deny.plain else deny.detail, decision, code, reached=reached)

    def _refusal(
        self, request: CallRequest, cause: Cause, detail: str, decision: str, code: str | None, *, reached: bool = False
    ) -> Refuse:
        result = self._caller.result
        name = _name(request)
        text = refusal_text(
            cause=cause,
            method=request.method,
            name=name,
            server=self._caller.server,
            caller=_short(result),
            detail=detail,
            code=code,
            decision=decision,
        )
        refusal = Refusal(
            cause=cause,
            text=text,
            retry=(code is not None or cause in TRANSIENT) and not (reached and request.effectful),
            server=self._caller.server,
            method=request.method,
            name=name,
            decision=decision,
            code=code,
            program=result.program,
            level=result.level,
            display=result.display,
        )
        answer = request.message.kind is Kind.REQUEST
        return Refuse(refusal=refusal, request_id=request.message.id, answer=answer, end=cause in ENDING)

    def _stray(self, message: Message, cause: Cause, clock: Clock, writer_pid: int) -> Refuse:
        what = message.method or f"response to {message.id!r}"[:80]
        entry = self._entry("decision", what, "", Deny(cause=cause), clock, writer_pid)
        with contextlib.suppress(AuditUnavailableError):  # nothing is forwarded, so nothing is lost but this note
            self._refusals.note(entry, clock.now_ns)
        result = self._caller.result
        refusal = Refusal(
            cause=cause, text="", retry=False, server=self._caller.server, method=what, name="", decision=entry.id,
            program=result.program, level=result.level, display=result.display,
        )  # fmt: skip
        return Refuse(refusal=refusal, request_id=None, answer=False, end=cause in ENDING)

    def _malformed(self, error: WireError, clock: Clock, writer_pid: int) -> Outcome:
        entry = self._entry("decision", "", "", Deny(cause=error.cause, detail=error.message[:256]), clock, writer_pid)
        try:
            return Malformed(error=error, decision=self._refusals.note(entry, clock.now_ns))
        except AuditUnavailableError:
            return Malformed(error=error, decision="")

    def _unrecorded(self, request: CallRequest | None, detail: str = "", *, reached: bool = False) -> Outcome:
        if request is None:
            return Malformed(error=WireError(Cause.AUDIT_UNAVAILABLE, "the audit log cannot be written"), decision="")
        return self._refusal(request, Cause.AUDIT_UNAVAILABLE, detail, "", None, reached=reached)

    def _failed(self, request: CallRequest | None, error: Exception, clock: Clock, writer_pid: int) -> Outcome:
        detail = f"{type(error).__name__}: {error}"[:256]
        if request is None:
            return self._malformed(WireError(Cause.INTERNAL, detail, rpc_code=-32603), clock, writer_pid)
        try:
            return self._refuse(request, Deny(cause=Cause.INTERNAL, detail=detail), clock, writer_pid)
        except AuditUnavailableError:
            return self._unrecorded(request)


def _name(request: CallRequest) -> str:
    """What the message names first; a message without a target is refused and named by nothing."""
    return request.targets[0].name if request.targets else ""


def _both(one: Permit, other: Permit) -> Permit:
    """What two permits determined together, so that no use goes uncounted."""
    return Permit(
        policies=tuple(sorted({*one.policies, *other.policies})),
        grants=tuple(sorted({*one.grants, *other.grants})),
        cached=one.cached and other.cached,
    )


def _short(result: AttestationResult) -> str:
    """The caller in a refusal: ``Claude Code 2.1.328 (L1, sha256 ab12cd34…, via zsh)``, from the fixed rendering."""
    via = "".join(f", {part}" for part in result.display.split(" | ")[1:] if part.startswith("via "))
    return f"{result.title} (L{result.level}, sha256 {result.program[:8]}…{via})"
