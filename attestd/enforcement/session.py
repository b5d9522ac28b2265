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

import contextlib
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

from attestd.enforcement.belonging import Belonging, living
from attestd.enforcement.bindings import Bindings, Owner
from attestd.enforcement.effects import (
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
    Withdraw,
    at_cursor,
    awaited,
    cancel,
    cancelled,
    last_page,
    no,
    raiser,
    reply,
    told,
    unanswered,
    unshown,
    whole,
    withdraw,
    without_echo,
)
from attestd.enforcement.proof import Proof
from attestd.enforcement.questions import Questions
from attestd.errors import AuditUnavailableError, Cause
from attestd.mediation import Clock, Forward, Hold, Mediator, Outcome, Refuse, Reply
from attestd.wire.classify import classify
from attestd.wire.era import era_of
from attestd.wire.framing import Line
from attestd.wire.lists import filter_list
from attestd.wire.methods import CHALLENGED, QUESTIONS, Finder, server_notification, server_request
from attestd.wire.model import REFUSED, CallRequest, Era, Kind, Limits, ListKind, Message, Target, WireError
from attestd.wire.parse import BATCH_REVISION, parse_message, split_batch
from attestd.wire.refusal import input_required_line, ping_line, result_line
from attestd.wire.serialise import message_line, to_line
from attestd.wire.server import ResultHead, ServerMessage, forward, parse_server_line, result_of

_OPEN, _DRAINING, _ENDED = State.OPEN, State.DRAINING, State.ENDED  # names are found faster than members
_REQUEST, _ANSWERS, _UNKNOWN = Kind.REQUEST, (Kind.RESULT, Kind.ERROR), Era.UNKNOWN

Parse = Callable[[], CallRequest | Message]
"""Step 3 of one message. Raises WireError."""


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
        self._questions = Questions()
        self._basis: Hashable = None
        self._held: deque[Held] = deque()
        self._held_bytes = 0
        self._mediator = mediator
        self._proof = proof
        self._bindings = bindings
        self._owner = owner
        self._limits = limits
        self._shared = shared
        self._learn = learn
        self._belonging = Belonging(
            mediator=mediator,
            bindings=bindings,
            owner=owner,
            limits=limits,
            shared=shared,
            secret=proof.secret,
            outstanding=self.outstanding,
            questions=self._questions,
        )
        self._listens_changes = False
        self._drained_by_ns = 0

    # -- the client's side ------------------------------------------------------------------------------------------

    def client_line(self, line: Line | WireError, writer_pid: int, clock: Clock) -> list[Effect]:
        """One line of the client (or the framer's complaint), written by ``writer_pid``."""
        effects: list[Effect] = []
        if self.state is not _OPEN:
            return effects
        if isinstance(line, WireError):
            self._run(raiser(line), None, writer_pid, clock, effects)
        elif self.revision == BATCH_REVISION and line.data[:1] == b"[":
            self._batch(line, writer_pid, clock, effects)
        elif line.message is None:
            self._run(partial(self._parse, line.data), line, writer_pid, clock, effects)
        else:
            self._run(partial(self._classified, line.message), line, writer_pid, clock, effects)
        return effects

    def foreign_writer(self, writer_pid: int, clock: Clock) -> list[Effect]:
        """Bytes of a process that is not the attested peer arrived, complete line or not: the session is over."""
        effects: list[Effect] = []
        if self.state is State.OPEN:
            wrote = raiser(WireError(Cause.WRITER_MISMATCH, f"process {writer_pid} wrote"))
            self._run(wrote, None, writer_pid, clock, effects)
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
        self._mediator.settle(clock.now_ns)
        cause = self._mediator.ending()
        if cause is not None:
            self._end(cause.value, "the attested process changed", effects)
            return effects
        if self.state is State.DRAINING and clock.now_ns >= self._drained_by_ns:
            self._end("", "the client closed the connection and the server did not answer in time", effects)
            return effects
        while self._held and self._held[0].deadline_ns <= clock.now_ns:
            self._drop_held(self._held.popleft(), clock, effects)
        self._reconsider(clock, effects)
        return effects

    def grants_changed(self, clock: Clock) -> list[Effect]:
        """Grants changed: end what is in flight without one, and tell a legacy client that was promised to be told."""
        effects: list[Effect] = []
        if self.state is not State.ENDED:
            self._reconsider(clock, effects)
        if self.state is State.OPEN and self._listens_changes and self.era is Era.LEGACY:
            effects.append(ToClient((to_line({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}),)))
        return effects

    def unsent(self, request_id: str | int) -> None:
        """A withdrawn request never went to the server: no answer will come."""
        self.outstanding.pop(request_id, None)

    def _reconsider(self, clock: Clock, effects: list[Effect]) -> None:
        """Decide again what is in flight, if what decisions rest on is not what it was."""
        if not self.outstanding and not self._questions:
            return
        basis = self._mediator.basis(clock.now_ns)
        if basis == self._basis:
            return
        self._basis = basis
        for request_id, entry in list(self.outstanding.items()):
            if entry.withdrawn is None:
                self._recall(request_id, entry, clock, effects)
        accepted = partial(self._belonging.accepts, clock=clock)
        for message_id, method, shown in self._questions.recall(accepted):
            effects.append(no(message_id, REFUSED, f"attestd took back {method}: no grant of the caller accepts it"))
            if shown:
                effects.append(ToClient((to_line(cancelled(message_id, "no grant accepts it any more")),)))
        self._settle(effects)

    def _recall(self, request_id: str | int, entry: Outstanding, clock: Clock, effects: list[Effect]) -> None:
        found = self._mediator.recalled(entry.request, clock, calls=entry.calls, spent=entry.spent)
        if found is None:
            return
        deny, refusal = found
        if not entry.cancelled:
            self._refused(refusal, effects)
            if entry.request.method != "initialize":  # which the specification forbids to cancel
                effects.append(Withdraw(request_id))
        self.outstanding[request_id] = withdraw(entry, deny.cause)

    # -- the server's side ------------------------------------------------------------------------------------------

    def server_message(self, message: ServerMessage, clock: Clock) -> list[Effect]:
        """Step 8 for one message of the server that is meant for this session."""
        effects: list[Effect] = []
        if self.state is _ENDED:
            return effects
        try:
            if message.kind in _ANSWERS:
                self._server_response(message, clock, effects)
            elif message.kind is _REQUEST:
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
            self._refuse_outstanding(cause, text, clock, effects, reached=False)
            self._settle(effects)
        return effects

    def server_gone(self, cause: Cause, text: str, clock: Clock) -> list[Effect]:
        """The back end ended or cannot be used: everything outstanding is refused, then the session ends."""
        effects: list[Effect] = []
        if self.state is State.ENDED:
            return effects
        self._refuse_outstanding(cause, text, clock, effects, reached=True)
        self._end(cause.value, text, effects)
        return effects

    # -- steps 3 to 7 -----------------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> CallRequest | Message:
        return self._classified(parse_message(data, self._limits))

    def _classified(self, message: Message) -> CallRequest | Message:
        if message.kind in _ANSWERS:
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

    def _run(self, parse: Parse, line: Line | None, writer_pid: int, clock: Clock, effects: list[Effect]) -> None:
        start = line.start if line is not None else 0

        def proven(request: CallRequest) -> bool:
            return self._proof.holds(start) or self._proof.echoed(request.request_state, start)

        outcome = self._mediator.request(
            parse, writer_pid=writer_pid, place=self._belonging.misplaced, proven=proven, clock=clock
        )
        match outcome:
            case Forward():
                self._forward(outcome, start, clock, effects)
            case Reply(message=message):
                self._client_response(message, line, clock, effects)
            case Hold(request=request):
                self._hold(request, 0 if line is None else len(line.data), clock, effects)
            case _:
                self._refused(outcome, effects)

    def _forward(self, outcome: Forward, start: int, clock: Clock, effects: list[Effect]) -> None:
        request = outcome.request
        message = request.message
        if message.kind is _REQUEST and message.id is not None:
            self.outstanding[message.id] = Outstanding(
                request, outcome.decision, clock.now_ns, self.calls, outcome.spent
            )
            self.calls += 1
            if request.client_name is not None:
                self.client_name = request.client_name
            if request.method == "initialize":
                self._challenge(effects)
            if request.request_state is not None and request.request_state == self._proof.secret:
                effects.append(ToServer(without_echo(message)))
                return
            turned, cursor = (False, "") if request.lists is None else self._proof.turned(request.cursor, start)
            if turned and request.lists is not None:
                if cursor:
                    effects.append(ToServer(at_cursor(message, cursor)))
                else:  # the server's list ended a page ago
                    line = result_line(message.id, last_page(request.lists)).rstrip()
                    self._server_response(parse_server_line(line, self._limits), clock, effects)
                return
        if request.cancels is not None:
            cancel(self.outstanding, request.cancels)
        effects.append(ToServer(message.body, message_line(message)))

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
            effects += [ToClient(forward(question)) for question in self._questions.show()]
            return
        if message.id is None or message.id not in self._questions:
            if message.id != self._proof.secret:
                self._mediator.stray(message, Cause.NOT_OUTSTANDING, clock)
            return
        if not self._proof.holds(0 if line is None else line.start):
            self._mediator.stray(message, Cause.UNPROVEN, clock)
            return
        self._questions.close(message.id)
        effects.append(ToServer(message.body, message_line(message)))

    def _refused(self, outcome: Outcome, effects: list[Effect]) -> None:
        self.denials += 1
        answer = told(outcome)
        if answer is not None:
            effects.append(answer)
        if isinstance(outcome, Refuse) and outcome.end:
            self._end(outcome.refusal.cause.value, outcome.refusal.text, effects)

    # -- step 8 -----------------------------------------------------------------------------------------------------

    def _server_response(self, message: ServerMessage, clock: Clock, effects: list[Effect]) -> None:
        entry = self.outstanding.pop(message.id, None) if message.id is not None else None
        if entry is None:
            return
        request, head = entry.request, message.head
        if entry.withdrawn is not None:
            with contextlib.suppress(AuditUnavailableError):  # nothing is shown, and the refusal is on record
                self._came_back(entry, message, forward(message), clock)
            return
        if head is not None:
            cause = self._result_refused(request, head, clock)
            if cause is not None:
                self._refused(self._mediator.refuse(request, *cause, clock, reached=True), effects)
                return
        try:
            chunks = self._rendered(request, message, clock)
            self._came_back(entry, message, chunks, clock)
        except (WireError, AuditUnavailableError) as error:
            self._refused(self._mediator.refuse(request, *unshown(error), clock, reached=True), effects)
        else:
            effects.append(reply(chunks, message.id, 0 if message.error is None else message.error["code"]))

    def _came_back(
        self, entry: Outstanding, message: ServerMessage, chunks: tuple[bytes | memoryview, ...], clock: Clock
    ) -> None:
        self._mediator.result(
            entry.decision,
            entry.request.method,
            verdict="error" if message.head is None or message.head.is_error else "ok",
            size=sum(map(len, chunks)),
            started_ns=entry.started_ns,
            clock=clock,
            cause="" if entry.withdrawn is None else entry.withdrawn.value,
        )

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
        elif self.era is _UNKNOWN and era_of(request.message) is Era.MODERN:
            self.era, self.revision = Era.MODERN, request.revision
        return None

    def _rendered(self, request: CallRequest, message: ServerMessage, clock: Clock) -> tuple[bytes | memoryview, ...]:
        if message.head is None or request.lists is None or message.id is None:
            return forward(message)
        result = result_of(message, self._limits)
        self._learn(request.lists, result)

        def allowed(target: Target) -> bool:
            if target.kind == "task":
                return self._bindings.owns("task", target.name, self._owner)
            return self._mediator.allows(target, clock.now_ns)

        shown = filter_list(request.lists, result, allowed, self.era).result
        more = self._proof.more(shown.get("nextCursor")) if self.era is Era.MODERN else None
        return (result_line(message.id, shown if more is None else {**shown, "nextCursor": more}),)

    def _server_request(self, message: ServerMessage, clock: Clock, effects: list[Effect]) -> None:
        if message.id is None or message.method is None:
            return
        row = living(server_request, message.method, self.revision, self.era)
        if (
            row is None
            or self.state is not State.OPEN  # nobody could answer any more
            or self.era is Era.MODERN
            or message.id in self._questions
            or len(self._questions) >= self._limits.open_requests
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
        self._questions.ask(message, row, shown=not self._proof.pending)
        if not self._proof.pending:
            effects.append(ToClient(forward(message)))

    def _server_notification(self, message: ServerMessage, clock: Clock, effects: list[Effect]) -> None:
        row = living(server_notification, message.method or "", self.revision, self.era)
        if row is None or not self._belonging.concerns(row, message.params, clock):
            return
        for method in message.head.questions if message.head is not None else ():
            action = QUESTIONS.get(method)
            if action is None or not self._mediator.server_request(whole(action), method, clock):
                return
        effects.append(ToClient(forward(message)))

    def _refuse_outstanding(
        self, cause: Cause, text: str, clock: Clock, effects: list[Effect], *, reached: bool
    ) -> None:
        for entry in list(self.outstanding.values()):
            if entry.withdrawn is None:
                self._refused(self._mediator.refuse(entry.request, cause, text, clock, reached=reached), effects)
        self.outstanding.clear()

    def _settle(self, effects: list[Effect]) -> None:
        if self.state is _DRAINING and not awaited(self.outstanding):
            self._end("", "the client closed the connection", effects)

    def _end(self, cause: str, text: str, effects: list[Effect]) -> None:
        if self.state is not State.ENDED:
            self.state = TRANSITIONS[self.state, "end"]
            effects.append(End(cause, text))
