"""What mediation knows of one caller."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from attestd.daemon.sessions import ARGV_LETTERS, ARGV_WORDS, SessionCaller, slim
from attestd.decision.engine import Engine
from attestd.decision.model import Deny, Permit, ServerFacts, ToolFacts
from attestd.errors import Cause
from attestd.grants.model import Grant
from attestd.wire.model import Target
from tests.fakes.kernel import FakeWatch
from tests.support.policies import make_engine, serve, tool
from tests.support.results import NOW, make_evidence, make_grant, make_link, make_result


class Desk:
    """Implements ``sessions.Desk``."""

    def __init__(self, engine: Engine, *grants: Grant) -> None:
        self.engine = engine
        self.grants_version = 0
        self.generation = 1
        self.tools: dict[tuple[str, int], dict[str, ToolFacts]] = {}
        self.grants = list(grants)
        self.used: list[tuple[tuple[str, ...], str, int]] = []
        self.pended: list[Any] = []
        self.linked = 0

    def own_grants(self, result: Any, server: str) -> tuple[Grant, ...]:
        del result
        self.linked += 1
        return tuple(g for g in self.grants if g.object.server == server)

    def use_grants(self, grants: tuple[str, ...], session: str, now_ns: int) -> bool:
        self.used.append((grants, session, now_ns))
        return grants == ("once",)

    def pend(self, caller: SessionCaller, method: str, name: str, deny: Deny, now_ns: int) -> str | None:
        self.pended.append((caller, method, name, deny, now_ns))
        return "CODE"


def caller_at(desk: Desk, watch: FakeWatch | None = None) -> SessionCaller:
    """The plain caller on ``time``."""
    return SessionCaller(
        desk=desk,
        server=ServerFacts(name="time", transport="stdio"),
        session="s1",
        evidence=make_evidence(),
        result=make_result(),
        digest="d",
        watch=watch or FakeWatch(),
        now_ns=NOW,
    )


@pytest.fixture(name="engine", scope="module")
def _engine() -> Engine:
    return make_engine()


def test_own_grants_decide(engine: Engine):
    """The granted tool is permitted, another is not; lists and connections need a grant for the server only."""
    caller = caller_at(Desk(engine, make_grant()))
    assert isinstance(caller.decide(tool("get"), None, NOW), Permit)
    refused = caller.decide(tool("other"), None, NOW)
    assert isinstance(refused, Deny)
    assert refused.cause is Cause.OUT_OF_SCOPE
    assert isinstance(caller.decide(serve("list_tools"), None, NOW), Permit)


def test_grants_are_linked_anew_when_they_change(engine: Engine):
    """No decision sees a stale set, and without a change nothing is linked again."""
    desk = Desk(engine)
    caller = caller_at(desk)
    assert isinstance(caller.decide(tool("get"), None, NOW), Deny)
    assert desk.linked == 1
    desk.grants.append(make_grant())
    assert isinstance(caller.decide(tool("get"), None, NOW), Deny)
    desk.grants_version += 1
    assert isinstance(caller.decide(tool("get"), None, NOW), Permit)
    assert desk.linked == 2
    desk.grants.clear()
    desk.grants_version += 1
    assert isinstance(caller.decide(tool("get"), None, NOW), Deny)


def test_the_basis_changes_with_what_decisions_rest_on(engine: Engine):
    """With a grant, a revocation, a policy and the end of a grant in time; with nothing else."""
    end = NOW + 1_000_000_000
    desk = Desk(engine, make_grant(), make_grant(id="g2", tools=("other",), lifetime="until", until_ns=end))
    caller = caller_at(desk)
    first = caller.basis(NOW)
    assert caller.basis(end - 1) == first
    expired = caller.basis(end)
    assert expired != first
    assert caller.basis(end + 1) == expired
    desk.grants.pop()
    desk.grants_version += 1
    revoked = caller.basis(NOW)
    assert revoked not in {first, expired}
    desk.engine = make_engine('@id("no")\nforbid (principal, action, resource);')
    desk.grants_version += 1
    assert caller.basis(NOW) != revoked


def test_a_decision_as_after_fewer_calls():
    """A policy that counts calls sees the number that it is told, and else that of the session."""
    desk = Desk(
        make_engine('@id("few")\nforbid (principal, action, resource) when { context.calls_in_session >= 3 };'),
        make_grant(),
    )
    caller = caller_at(desk)
    caller.calls = lambda: 3
    assert isinstance(caller.decide(tool("get"), None, NOW), Deny)
    assert isinstance(caller.decide(tool("get"), None, NOW, 2), Permit)


def test_a_new_policy_prepares_the_caller_again(engine: Engine):
    """After a reload the subject belongs to the new engine."""
    desk = Desk(engine, make_grant())
    caller = caller_at(desk)
    desk.engine = make_engine('@id("no")\nforbid (principal, action, resource);')
    desk.grants_version += 1
    verdict = caller.decide(tool("get"), None, NOW)
    assert isinstance(verdict, Deny)
    assert verdict.cause is Cause.POLICY_FORBID


def test_facts_of_the_tool_enter(engine: Engine):
    """What the server's own list said of the tool is what policies read."""
    del engine
    desk = Desk(
        make_engine(
            '@id("careful")\nforbid (principal, action == Action::"call_tool", resource) when { resource.destructiveHint };'
        ),
        make_grant(),
    )
    caller = caller_at(desk)
    assert isinstance(caller.decide(tool("get"), None, NOW), Deny)
    desk.tools["time", caller.result.uid + 1] = {"get": ToolFacts(destructive=False)}
    assert isinstance(caller.decide(tool("get"), None, NOW), Deny), "what another user's back end said"
    desk.tools["time", caller.result.uid] = {"get": ToolFacts(destructive=False)}
    assert isinstance(caller.decide(tool("get"), None, NOW), Permit)
    assert isinstance(caller.decide(Target(action="get_prompt", kind="prompt", name="get"), None, NOW), Deny)


def test_the_context_is_typed_and_in_utc(engine: Engine):
    """Hour and weekday of a known moment, revision and calls of the session."""
    caller = caller_at(Desk(engine))
    caller.revision = lambda: "2025-11-25"
    caller.calls = lambda: 7
    context = caller.context(1_763_647_200_000_000_000)  # Thursday 2025-11-20 14:00 UTC
    assert (context.hour, context.weekday) == (14, 3)
    assert (context.protocol_version, context.calls_in_session, context.transport) == ("2025-11-25", 7, "stdio")


def test_uses_and_wishes_reach_the_desk(engine: Engine):
    """A permit with grants is counted, one without is not; a wish gives its code."""
    desk = Desk(engine)
    caller = caller_at(desk)
    assert caller.permitted(Permit(policies=("p",)), NOW) is False
    assert caller.permitted(Permit(policies=("p",), grants=("g1",)), NOW) is False
    assert caller.permitted(Permit(policies=("p",), grants=("once",)), NOW) is True
    desk.used.pop()
    assert desk.used == [(("g1",), "s1", NOW)]
    deny = Deny(cause=Cause.NO_GRANT)
    assert caller.pend("tools/call", "x", deny, NOW) == "CODE"
    assert desk.pended == [(caller, "tools/call", "x", deny, NOW)]


def test_the_watch_is_asked(engine: Engine):
    """Step 4 is the watch's word; the generation is the desk's."""
    watch = FakeWatch()
    desk = Desk(engine)
    caller = caller_at(desk, watch)
    assert caller.verify(1) is None
    watch.found = Cause.TRACED
    assert caller.verify(1) is Cause.TRACED
    desk.generation = 5
    assert caller.generation == 5


def test_kept_evidence_is_slim():
    """Long command lines are cut, everything else stays."""
    link = msgspec.structs.replace(make_link(), argv=("x" * 5000,) * 50)
    evidence = msgspec.structs.replace(make_evidence(), chain=(link,))
    kept = slim(evidence)
    assert kept.chain[0].argv == ("x" * ARGV_LETTERS,) * ARGV_WORDS
    assert msgspec.structs.replace(kept.chain[0], argv=()) == msgspec.structs.replace(link, argv=())
