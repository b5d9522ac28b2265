"""What a message may name: for a client what is its own, for a server what this client asked for. Pure.

Both directions read the session's tables of open requests and open questions, and change neither, but for a question
that the server itself takes back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attestd.enforcement.bindings import Bindings, Owner
from attestd.enforcement.effects import Outstanding, crowded, listens, whole
from attestd.enforcement.questions import Questions
from attestd.errors import Cause
from attestd.mediation import Clock, Mediator
from attestd.wire.lookalike import META, META_SUBSCRIPTION
from attestd.wire.methods import Finder, Method, revision_of
from attestd.wire.model import CallRequest, Era, Json, Kind, Limits, Target, WireError
from attestd.wire.uris import canonical

_REQUEST = Kind.REQUEST


class Belonging:
    """Of one session."""

    def __init__(
        self,
        *,
        mediator: Mediator,
        bindings: Bindings,
        owner: Owner,
        limits: Limits,
        shared: bool,
        secret: str,
        outstanding: Mapping[str | int, Outstanding],
        questions: Questions,
    ) -> None:
        """``secret``: the challenge, which is nobody's request state. The two tables are the session's own."""
        self._mediator = mediator
        self._bindings = bindings
        self._owner = owner
        self._limits = limits
        self._shared = shared
        self._secret = secret
        self._outstanding = outstanding
        self._questions = questions

    def misplaced(self, request: CallRequest) -> tuple[Cause, str] | None:
        """Why a permitted message must not be forwarded: it names what is not there, or there is no room."""
        misplaced = self._crowded(request) if request.message.kind is _REQUEST else self._stale(request)
        if misplaced is not None:
            return misplaced
        if request.task_ids and not all(self._bindings.owns("task", task, self._owner) for task in request.task_ids):
            return Cause.NOT_FOUND, "no such task"
        state = request.request_state
        if state is not None and state != self._secret and not self._bindings.owns("state", state, self._owner):
            return Cause.NOT_FOUND, "no such request state"
        return None

    def _crowded(self, request: CallRequest) -> tuple[Cause, str] | None:
        if request.message.id in self._outstanding:
            return Cause.MALFORMED, "a request with this id is still open"
        if crowded(self._outstanding, self._limits.open_requests):
            return Cause.LIMIT_REQUESTS, f"{self._limits.open_requests} requests are open on this connection"
        if self._shared and request.shared_effect:
            return Cause.SHARED_STATE, "the server is shared, and this would change it for its other callers"
        return None

    def _stale(self, request: CallRequest) -> tuple[Cause, str] | None:
        """A notification about something that is not outstanding."""
        if request.cancels is not None and request.cancels not in self._outstanding:
            return Cause.NOT_OUTSTANDING, ""
        if request.method == "notifications/progress" and not self._questions.awaits(request.progress_token):
            return Cause.NOT_OUTSTANDING, ""
        return None

    def concerns(self, row: Method, params: dict[str, Any], clock: Clock) -> bool:
        """Whether a notification of the server is about something of this caller."""
        meta = params.get(META)
        if isinstance(meta, dict) and META_SUBSCRIPTION in meta and not listens(self._outstanding, meta):
            return False
        match row.finder:
            case Finder.PROGRESS:
                token = params.get("progressToken")
                return token is not None and any(
                    o.request.progress_token == token and o.withdrawn is None for o in self._outstanding.values()
                )
            case Finder.REQUEST:
                wanted = params.get("requestId")
                return isinstance(wanted, str | int) and self._questions.close(wanted)
            case Finder.TASK:
                return self._bindings.owns("task", str(params.get("taskId")), self._owner)
            case Finder.RESOURCE:
                return self._may_read(params.get("uri"), clock)
            case _:
                return self.accepts(row.action, clock)

    def _may_read(self, uri: Json, clock: Clock) -> bool:
        try:
            target = Target(action="read_resource", kind="resource", name=canonical(uri))
        except WireError:
            return False
        return self._mediator.allows(target, clock.now_ns)

    def accepts(self, action: str, clock: Clock) -> bool:
        """Whether the caller may have this of the server as a whole."""
        return self._mediator.allows(whole(action), clock.now_ns)


def living(find: Callable[..., Method], name: str, revision: str | None, era: Era) -> Method | None:
    """The row of a server's method, or None where the negotiated revision does not have it."""
    try:
        return find(name, revision=revision_of(revision), era=era)
    except WireError:
        return None
