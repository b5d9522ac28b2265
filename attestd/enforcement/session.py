"""One session as a state machine without I/O: what arrives goes in, what must be done comes out.

Lines of the client and messages of the server are events; effects are values that the connection carries out in
order. The session owns the bookkeeping that mediation needs and must not have: what is outstanding in either
direction, the era, the proof (docs/adr/0007), and the state. It never reads a clock; every event brings its own.

Rules: nothing is forwarded that ``Mediator.request`` did not return as Forward; a response of the client goes to the
server only if it answers a request of the server that was shown to this client; a message of the server reaches the
client only if it belongs to something that this client asked for. A refused message that would show the server's
existence says nothing more than its refusal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from attestd.enforcement.bindings import Bindings, Owner
from attestd.enforcement.effects import (
    ABSENT,
    DRAIN_NS,
    HELD_NS,
    TRANSITIONS,
    Effect,
    End,
    Held,
    Outstanding,
    State,
    ToClient,
    ToServer,
    awaited,
    cancel,
    crowded,
    no,
    raiser,
    reply,
    unanswered,
    unshown,
    whole,
    without_echo,
)
from attestd.enforcement.proof import Proof
from attestd.errors import AuditUnavailableError, Cause
from attestd.mediation import Clock, Forward, Hold, Malformed, Mediator, Outcome, Refuse, Reply
from attestd.wire.classify import classify
from attestd.wire.era import era_of
from attestd.wire.framing import Line
from attestd.wire.lists import filter_list
from attestd.wire.methods import CHALLENGED, QUESTIONS, Finder, Method, revision_of, server_notification, server_request
from attestd.wire.model import REFUSED, CallRequest, Era, Json, Kind, Limits, ListKind, Message, Target, WireError
from attestd.wire.parse import BATCH_REVISION, INVALID_REQUEST, PARSE_ERROR, parse_message, split_batch
from attestd.wire.refusal import error_line, input_required_line, ping_line, refuse, result_line
from attestd.wire.serialise import message_line, to_line
from attestd.wire.server import ResultHead, ServerMessage, forward, result_of
from attestd.wire.uris import canonical

ANSWERED_WITH_NULL = frozenset({PARSE_ERROR, INVALID_REQUEST})
"""Errors of JSON-RPC that are answered although the message told no id: it may have been a request."""


class Session:
    """One client connection on one server."""

    def __init__(
        self,
        *,
        mediator: Mediator,
        proof: Proof,
        bindings: Bindings,
        owner: Owner,
        limits: Limits,
        shared: bool,
        learn: Callable[[ListKind, dict[str, Any]], None],
    ) -> None:
        """``learn(kind, result)`` is told of every list as the server sent it (tool definitions)."""
        self.state = State.OPEN
        self.era = Era.UNKNOWN
        self.revision: str | None = None
        self.client_name: str | None = None
        self.calls = 0
        self.denials = 0
        self.outstanding: dict[str | int, Outstanding] = {}
        self._asked: dict[str | int, Json] = {}
        self._unshown: deque[ServerMessage] = deque()
        self._held: deque[Held] = deque()
        self._held_bytes = 0
        self._mediator = mediator
        self._proof = proof
        self._bindings = bindings
        self._owner = owner
        self._limits = limits
        self._shared = shared
        self._learn = learn
        self._listens_changes = False
        self._drained_by_ns = 0

    # -- the client's side ------------------------------------------------------------------------------------------

    def client_line(self, line: Line | WireError, writer_pid: int, clock: Clock) -> list[Effect]:
        """One line of the client (or the framer's complaint), written by ``writer_pid``."""
        effects: list[Effect] = []
        if self.state is not State.OPEN:
            return effects
        if isinstance(line, WireError):
            self._run(raiser(line), None, writer_pid, clock, effects)
        elif line.data[:1] == b"[" and self.revision == BATCH_REVISION:
            self._batch(line, writer_pid, clock, effects)
        else:
            self._run(lambda: self._parse(line.data), line, writer_pid, clock, effects)
        return effects

    def foreign_writer(self, writer_pid: int, clock: Clock) -> list[Effect]:
        """Bytes of a process that is not the attested peer arrived, complete line or not: the session is over."""
        effects: list[Effect] = []
        if self.state is State.OPEN:
            self._run(
                raiser(WireError(Cause.WRITER_MISMATCH, f"process {writer_pid} wrote")),
                None,
                writer_pid,
                clock,
                effects,
            )
            self._end(Cause.WRITER_MISMATCH.value, f"process {writer_pid} wrote to an attested connection", effects)
        return effects

    def client_closed(self, clock: Clock) -> list[Effect]:
        """End of the client's stream: answer what is outstanding, then end."""
        self.state = TRANSITIONS[self.state, "client_closed"]
        self._drained_by_ns = clock.now_ns + DRAIN_NS
        effects: list[Effect] = []
        while self._held:  # no proof can follow any more
            self._drop_held(self._held.popleft(), clock, effects)
        self._settle(effects)
        return effects

    def tick(self, clock: Clock) -> list[Effect]:
        """Look without a message: ends the session if the processes changed, gives up what waited too long."""
        effects: list[Effect] = []
        if self.state is State.ENDED:
            return effects
        cause = self._mediator.ending()
        if cause is not None:
            self._end(cause.value, "the attested process changed", effects)
            return effects
        if self.state is State.DRAINING and clock.now_ns >= self._drained_by_ns:
            self._end("", "the client closed the connection and the server did not answer in time", effects)
            return effects
        while self._held and self._held[0].deadline_ns <= clock.now_ns:
            self._drop_held(self._held.popleft(), clock, effects)
        return effects

    def grants_changed(self) -> list[Effect]:
        """What the caller may use has changed: a legacy client that was told of change notifications gets one."""
        if self.state is not State.OPEN or not self._listens_changes or self.era is not Era.LEGACY:
            return []
        return [ToClient((to_line({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}),))]

    # -- the server's side ------------------------------------------------------------------------------------------

    def server_message(self, message: ServerMessage, clock: Clock) -> list[Effect]:
        """Step 8 for one message of the server that is meant for this session."""
        effects: list[Effect] = []
        if self.state is State.ENDED:
            return effects
        try:
            if message.kind in (Kind.RESULT, Kind.ERROR):
                self._server_response(message, clock, effects)
            elif message.kind is Kind.REQUEST:
                self._server_request(message, clock, effects)
            else:
                self._server_notification(message, clock, effects)
        except AuditUnavailableError:
            self._end(Cause.AUDIT_UNAVAILABLE.value, "the audit log cannot be written", effects)
        self._settle(effects)
        return effects

    def server_malformed(self, request_id: str | int, error: WireError, clock: Clock) -> list[Effect]:
        """The server's answer to this request is not MCP, or will not come: the request is refused."""
        effects: list[Effect] = []
        entry = None if self.state is State.ENDED else self.outstanding.pop(request_id, None)
        if entry is not None and not entry.cancelled:
            self._refused(unanswered(self._mediator, entry.request, error, clock), effects)
        self._settle(effects)
        return effects

    def server_failed(self, cause: Cause, text: str, clock: Clock) -> list[Effect]:
        """The back end could not be opened: what waits for it is refused, and the next request tries again."""
        effects: list[Effect] = []
        if self.state is not State.ENDED:
            self._refuse_outstanding(cause, text, clock, effects)
            self._settle(effects)
        return effects

    def server_gone(self, cause: Cause, text: str, clock: Clock) -> list[Effect]:
        """The back end ended or cannot be used: everything outstanding is refused, then the session ends."""
        effects: list[Effect] = []
        if self.state is State.ENDED:
            return effects
        self._refuse_outstanding(cause, text, clock, effects)
        self._end(cause.value, text, effects)
        return effects

    # -- steps 3 to 7 -----------------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> CallRequest | Message:
        message = parse_message(data, self._limits)
        return self._classified(message)

    def _classified(self, message: Message) -> CallRequest | Message:
        if message.kind in (Kind.RESULT, Kind.ERROR):
            return message
        return classify(message, self.revision, self.era)

    def _batch(self, line: Line, writer_pid: int, clock: Clock, effects: list[Effect]) -> None:
        try:
            messages = split_batch(line.data, self.revision, self._limits)
        except WireError as error:
            messages = (error,)
        for message in messages:
            parse = raiser(message) if isinstance(message, WireError) else partial(self._classified, message)
            self._run(parse, line, writer_pid, clock, effects)

    def _run(
        self,
        parse: Callable[[], CallRequest | Message],
        line: Line | None,
        writer_pid: int,
        clock: Clock,
        effects: list[Effect],
    ) -> None:
        start = line.start if line is not None else 0

        def proven(request: CallRequest) -> bool:
            return self._proof.holds(start) or self._proof.echoed(request.request_state, start)

        outcome = self._mediator.request(
            parse, writer_pid=writer_pid, place=self._misplaced, proven=proven, clock=clock
        )
        match outcome:
            case Forward():
                self._forward(outcome, clock, effects)
            case Reply(message=message):
                self._client_response(message, line, clock, effects)
            case Hold(request=request):
                self._hold(request, 0 if line is None else len(line.data), clock, effects)
            case _:
                self._refused(outcome, effects)

    def _forward(self, outcome: Forward, clock: Clock, effects: list[Effect]) -> None:
        request = outcome.request
        message = request.message
        if message.kind is Kind.REQUEST and message.id is not None:
            self.calls += 1
            self.outstanding[message.id] = Outstanding(request, outcome.decision, clock.now_ns)
            if request.client_name is not None:
                self.client_name = request.client_name
            if request.method == "initialize":
                self._challenge(effects)
            if request.request_state is not None and request.request_state == self._proof.secret:
                effects.append(ToServer(without_echo(message)))
                return
        if request.cancels is not None:
            cancel(self.outstanding, request.cancels)
        effects.append(ToServer(message.body, message_line(message)))

    def _misplaced(self, request: CallRequest) -> tuple[Cause, str] | None:
        """Why a permitted message must not be forwarded: it names what is not there, or there is no room."""
        misplaced = self._crowded(request) if request.message.kind is Kind.REQUEST else self._stale(request)
        if misplaced is not None:
            return misplaced
        if not all(self._bindings.owns("task", task, self._owner) for task in request.task_ids):
            return Cause.NOT_FOUND, "no such task"
        state = request.request_state
        if state is not None and state != self._proof.secret and not self._bindings.owns("state", state, self._owner):
            return Cause.NOT_FOUND, "no such request state"
        return None

    def _crowded(self, request: CallRequest) -> tuple[Cause, str] | None:
        if request.message.id in self.outstanding:
            return Cause.MALFORMED, "a request with this id is still open"
        if crowded(self.outstanding, self._limits.open_requests):
            return Cause.LIMIT_REQUESTS, f"{self._limits.open_requests} requests are open on this connection"
        if self._shared and request.shared_effect:
            return Cause.SHARED_STATE, "the server is shared, and this would change it for its other callers"
        return None

    def _stale(self, request: CallRequest) -> tuple[Cause, str] | None:
        """A notification about something that is not outstanding."""
        if request.cancels is not None and request.cancels not in self.outstanding:
            return Cause.NOT_OUTSTANDING, ""
        if request.method == "notifications/progress" and request.progress_token not in self._asked.values():
            return Cause.NOT_OUTSTANDING, ""
        return None

    def _hold(self, request: CallRequest, size: int, clock: Clock, effects: list[Effect]) -> None:
        message = request.message
        modern = self.era is Era.MODERN or (self.era is Era.UNKNOWN and era_of(message) is Era.MODERN)
        if modern and request.method in CHALLENGED and not request.retry:
            state = self._proof.echo()
            if state is not None and message.id is not None:
                self._mediator.refuse(request, Cause.UNPROVEN, "the client was asked to send it again", clock)
                effects.append(reply((input_required_line(message.id, state),), message.id))
                return
        held = Held(request, size, clock.now_ns + HELD_NS)
        if modern or not self._proof.pending or self._held_bytes + size > self._limits.held_bytes:
            self._drop_held(held, clock, effects, counted=False)
            return
        self._held.append(held)
        self._held_bytes += size
        self._challenge(effects)

    def _drop_held(self, held: Held, clock: Clock, effects: list[Effect], *, counted: bool = True) -> None:
        if counted:
            self._held_bytes -= held.size
        detail = "it may have been written before attestd knew the program; send it again"
        self._refused(self._mediator.refuse(held.request, Cause.UNPROVEN, detail, clock), effects)

    def _challenge(self, effects: list[Effect]) -> None:
        challenge = self._proof.challenge()
        if challenge is not None:
            effects.append(ToClient((ping_line(challenge),)))

    def _client_response(self, message: Message, line: Line | None, clock: Clock, effects: list[Effect]) -> None:
        if self._proof.answered(message.id, 0 if line is None else line.end):
            while self._held:
                self._drop_held(self._held.popleft(), clock, effects)
            while self._unshown:
                effects.append(ToClient(tuple(forward(self._unshown.popleft()))))
            return
        if message.id is None or message.id not in self._asked:
            if message.id != self._proof.secret:
                self._mediator.stray(message, Cause.NOT_OUTSTANDING, clock)
            return
        if not self._proof.holds(0 if line is None else line.start):
            self._mediator.stray(message, Cause.UNPROVEN, clock)
            return
        del self._asked[message.id]
        effects.append(ToServer(message.body, message_line(message)))

    def _refused(self, outcome: Outcome, effects: list[Effect]) -> None:
        self.denials += 1
        match outcome:
            case Refuse(refusal=refusal, request_id=request_id, answer=answer, end=end):
                if answer and request_id is not None:
                    effects.append(reply((refuse(request_id, refusal),), request_id, REFUSED))
                if end:
                    self._end(refusal.cause.value, refusal.text, effects)
            case Malformed(error=error) if error.request_id is None and error.rpc_code not in ANSWERED_WITH_NULL:
                pass  # a notification: it was recorded, and nobody waits for an answer
            case Malformed(error=error, decision=decision):
                data = {"cause": error.cause.value, "decision": decision, **(error.data or {})}
                text = error_line(error.request_id, error.rpc_code, error.message, data)
                effects.append(reply((text,), error.request_id, error.rpc_code))
            case _:
                msg = f"not a refusal: {outcome!r}"
                raise TypeError(msg)

    # -- step 8 -----------------------------------------------------------------------------------------------------

    def _server_response(self, message: ServerMessage, clock: Clock, effects: list[Effect]) -> None:
        entry = self.outstanding.pop(message.id, None) if message.id is not None else None
        if entry is None:
            return
        request, head = entry.request, message.head
        if head is not None:
            cause = self._result_refused(request, head, clock)
            if cause is not None:
                self._refused(self._mediator.refuse(request, cause[0], cause[1], clock), effects)
                return
        try:
            chunks = self._rendered(request, message, clock)
            self._mediator.result(
                entry.decision,
                request.method,
                verdict="error" if head is None or head.is_error else "ok",
                size=sum(map(len, chunks)),
                started_ns=entry.started_ns,
                clock=clock,
            )
        except (WireError, AuditUnavailableError) as error:
            self._refused(self._mediator.refuse(request, *unshown(error), clock), effects)
        else:
            effects.append(reply(chunks, message.id, message.error["code"] if message.kind is Kind.ERROR else 0))

    def _result_refused(self, request: CallRequest, head: ResultHead, clock: Clock) -> tuple[Cause, str] | None:
        """Bind what the result hands out, learn the era from it; say why it may not be shown."""
        for method in head.questions:
            action = QUESTIONS.get(method)
            if action is None or not self._mediator.server_request(whole(action), method, clock):
                return Cause.SERVER_REQUEST, f"the server's answer asks for {method}"
        if head.request_state is not None:
            self._bindings.bind("state", head.request_state, self._owner, sole=False)
        if head.task_id is not None and not self._bindings.bind("task", head.task_id, self._owner, sole=self._shared):
            return Cause.NOT_FOUND, "the server handed out somebody else's task"
        if request.method == "initialize":
            self.era, self.revision = Era.LEGACY, head.protocol_version
            tools = head.capabilities.get("tools") if isinstance(head.capabilities, dict) else None
            self._listens_changes = isinstance(tools, dict) and tools.get("listChanged") is True
        elif era_of(request.message) is Era.MODERN and self.era is Era.UNKNOWN:
            self.era, self.revision = Era.MODERN, request.revision
        return None

    def _rendered(self, request: CallRequest, message: ServerMessage, clock: Clock) -> tuple[bytes | memoryview, ...]:
        if message.head is None or request.lists is None or message.id is None:
            return tuple(forward(message))
        result = result_of(message, self._limits)
        self._learn(request.lists, result)

        def allowed(target: Target) -> bool:
            if target.kind == "task":
                return self._bindings.owns("task", target.name, self._owner)
            return self._mediator.allows(target, clock.now_ns)

        return (result_line(message.id, filter_list(request.lists, result, allowed, self.era).result),)

    def _server_request(self, message: ServerMessage, clock: Clock, effects: list[Effect]) -> None:
        if message.id is None or message.method is None:
            return
        row = self._server_row(server_request, message.method)
        if (
            row is None
            or self.state is not State.OPEN  # nobody could answer any more
            or self.era is Era.MODERN
            or message.id in self._asked
            or len(self._asked) >= self._limits.open_requests
        ):
            effects.append(no(message.id, -32601, f"attestd does not pass {message.method[:64]} to this client"))
            return
        if row.finder is Finder.TASK and not self._bindings.owns(
            "task", str(message.params.get("taskId")), self._owner
        ):
            effects.append(no(message.id, -32602, "no such task"))
            return
        if row.action != "pass" and not self._mediator.server_request(whole(row.action), message.method, clock):
            effects.append(
                no(message.id, REFUSED, f"attestd refused {message.method}: no grant of the caller accepts it")
            )
            return
        meta = message.params.get("_meta")
        self._asked[message.id] = meta.get("progressToken") if isinstance(meta, dict) else None
        if self._proof.pending:
            self._unshown.append(message)
        else:
            effects.append(ToClient(tuple(forward(message))))

    def _server_notification(self, message: ServerMessage, clock: Clock, effects: list[Effect]) -> None:
        row = self._server_row(server_notification, message.method or "")
        if row is None or not self._concerns(row, message.params, clock):
            return
        for method in message.head.questions if message.head is not None else ():
            action = QUESTIONS.get(method)
            if action is None or not self._mediator.server_request(whole(action), method, clock):
                return
        effects.append(ToClient(tuple(forward(message))))

    def _concerns(self, row: Method, params: dict[str, Any], clock: Clock) -> bool:
        """Whether a notification of the server is about something of this caller."""
        match row.finder:
            case Finder.PROGRESS:
                token = params.get("progressToken")
                return any(o.request.progress_token == token for o in self.outstanding.values()) and token is not None
            case Finder.REQUEST:
                wanted = params.get("requestId")
                return isinstance(wanted, str | int) and self._asked.pop(wanted, ABSENT) is not ABSENT
            case Finder.TASK:
                return self._bindings.owns("task", str(params.get("taskId")), self._owner)
            case Finder.RESOURCE:
                return self._may_read(params.get("uri"), clock)
            case _:
                return row.action != "elicit" or self._mediator.allows(whole(row.action), clock.now_ns)

    def _may_read(self, uri: Json, clock: Clock) -> bool:
        try:
            target = Target(action="read_resource", kind="resource", name=canonical(uri))
        except WireError:
            return False
        return self._mediator.allows(target, clock.now_ns)

    def _server_row(self, find: Callable[..., Method], name: str) -> Method | None:
        try:
            return find(name, revision=revision_of(self.revision), era=self.era)
        except WireError:
            return None

    def _refuse_outstanding(self, cause: Cause, text: str, clock: Clock, effects: list[Effect]) -> None:
        for entry in list(self.outstanding.values()):
            self._refused(self._mediator.refuse(entry.request, cause, text, clock), effects)
        self.outstanding.clear()

    def _settle(self, effects: list[Effect]) -> None:
        if self.state is State.DRAINING and not awaited(self.outstanding):
            self._end("", "the client closed the connection", effects)

    def _end(self, cause: str, text: str, effects: list[Effect]) -> None:
        if self.state is not State.ENDED:
            self.state = TRANSITIONS[self.state, "end"]
            effects.append(End(cause, text))
