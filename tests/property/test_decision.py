"""Properties of deciding: remembered equals asked, nothing is permitted without its own grant, nothing raises."""

from __future__ import annotations

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attestd.decision.engine import Engine
from attestd.decision.model import Deny, Permit, RequestContext, ServerFacts, ToolFacts, Verdict
from attestd.decision.subject import Subject
from attestd.errors import Cause
from attestd.grants.globs import any_match
from attestd.grants.match import match
from attestd.grants.model import Grant
from attestd.wire.model import Target
from tests.support.policies import make_engine
from tests.support.results import MINUTE, NOW, OTHER, PROGRAM, make_evidence, make_grant, make_link, make_result

POLICIES = (
    '@id("night") forbid (principal, action in Action::"call", resource) when { context.hour < 6 };'
    '@id("many") forbid (principal, action, resource)'
    ' when { context.calls_in_session > 3 && context.transport == "http" };'
    '@id("read") permit (principal, action == Action::"call_tool", resource in MCP::"a")'
    " when { resource.readOnlyHint && principal.attest_level >= 2 };"
    '@id("err") forbid (principal, action == Action::"get_prompt", resource)'
    " when { context.args_size * 9223372036854775807 < 0 };"
)
REMEMBERING = make_engine(POLICIES)
FORGETTING = make_engine(
    POLICIES + '@id("never") forbid (principal, action, resource) when { context.now < datetime("1970-01-01") };'
)
"""The same policies and one that reads the time and never applies: every question is put to Cedar."""
PLAIN = make_engine()

NAMES = ("get", "get_all", "set", "*", "", "file:///a")
PATTERNS = ("get", "get*", "*", "=*", "s?t")


@st.composite
def grants(draw: st.DrawFn) -> Grant:
    """A grant of one of two programs on one of two servers."""
    lifetime = draw(st.sampled_from(["standing", "once", "until"]))
    return make_grant(
        id=f"g{draw(st.integers(0, 10**9))}",
        program=draw(st.sampled_from([PROGRAM, OTHER])),
        uid=draw(st.sampled_from([1000, 1001])),
        server=draw(st.sampled_from(["a", "b"])),
        tools=tuple(draw(st.lists(st.sampled_from(PATTERNS), max_size=2))),
        prompts=tuple(draw(st.lists(st.sampled_from(PATTERNS), max_size=2))),
        server_requests=tuple(draw(st.lists(st.just("roots/list"), max_size=1))),
        min_level=draw(st.integers(0, 5)),
        lifetime=lifetime,
        until_ns=NOW + draw(st.integers(-1, 3)) * MINUTE if lifetime == "until" else None,
    )


@st.composite
def questions(draw: st.DrawFn) -> tuple[ServerFacts, Target, ToolFacts | None, RequestContext]:
    """One question about one of two servers."""
    action, kind = draw(
        st.sampled_from(
            [("call_tool", "tool"), ("get_prompt", "prompt"), ("connect", "server"), ("list_roots", "server")]
        )
    )
    server = ServerFacts(name=draw(st.sampled_from(["a", "b"])), transport="stdio")
    facts = draw(st.sampled_from([None, ToolFacts(), ToolFacts(read_only=True)]))
    context = RequestContext(
        protocol_version=draw(st.sampled_from(["x", "y"])),
        transport=draw(st.sampled_from(["unix", "http"])),
        hour=draw(st.sampled_from([3, 10])),
        weekday=draw(st.integers(0, 6)),
        now_ns=NOW + draw(st.integers(0, 4)) * MINUTE,
        args_sha256="",
        args_size=draw(st.sampled_from([0, 1, 2])),
        calls_in_session=draw(st.sampled_from([1, 5])),
    )
    return server, Target(action=action, kind=kind, name=draw(st.sampled_from(NAMES))), facts, context


def prepared(engine: Engine, held: list[Grant], level: int, tracer: int, server: str) -> Subject:
    """The plain caller of this level, its grants on this server matched at NOW."""
    result = make_result(level=level)
    evidence = make_evidence(make_link(tracer_pid=tracer))
    return engine.subject(result, evidence, match(result, server, held, NOW))


def unmarked(verdict: Verdict) -> Verdict:
    """The verdict without the mark that it was remembered."""
    return msgspec.structs.replace(verdict, cached=False)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(grants(), max_size=4, unique_by=lambda grant: grant.id),
    st.integers(0, 4),
    st.sampled_from([0, 0, 0, 9]),
    st.lists(questions(), min_size=1, max_size=25),
)
def test_remembered_equals_asked(
    held: list[Grant],
    level: int,
    tracer: int,
    asked: list[tuple[ServerFacts, Target, ToolFacts | None, RequestContext]],
):
    """Whatever was asked before, a remembered verdict is the one that Cedar gives now."""
    assert REMEMBERING.caching
    assert not FORGETTING.caching
    pairs = {
        name: (prepared(REMEMBERING, held, level, tracer, name), prepared(FORGETTING, held, level, tracer, name))
        for name in ("a", "b")
    }
    for server, target, facts, context in [*asked, *asked]:
        remembering, forgetting = pairs[server.name]
        first = REMEMBERING.decide(remembering, server, target, facts, context)
        second = FORGETTING.decide(forgetting, server, target, facts, context)
        assert unmarked(first) == second


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(grants(), max_size=4, unique_by=lambda grant: grant.id), st.integers(0, 4), questions())
def test_a_permit_has_its_own_grant(
    held: list[Grant], level: int, question: tuple[ServerFacts, Target, ToolFacts | None, RequestContext]
):
    """Under the baseline alone a tool is permitted exactly if a grant says so, reckoned here without Cedar."""
    server, target, facts, context = question
    subject = prepared(PLAIN, held, level, 0, server.name)
    verdict = PLAIN.decide(subject, server, target, facts, context)
    expected = {
        grant.id
        for grant in held
        if grant.subject.uid == 1000
        and grant.subject.program == PROGRAM
        and grant.object.server == server.name
        and level >= 1
        and grant.min_level <= level
        and (grant.lifetime.until_ns is None or context.now_ns < grant.lifetime.until_ns)
        and (
            (target.kind == "server" and (target.action == "connect" or "roots/list" in grant.object.server_requests))
            or (target.kind == "tool" and any_match(grant.object.tools, target.name) and target.name != "")
            or (target.kind == "prompt" and any_match(grant.object.prompts, target.name) and target.name != "")
        )
    }
    assert isinstance(verdict, Permit) is bool(expected)
    if isinstance(verdict, Permit):
        assert set(verdict.policies) == {f"grant:{grant_id}" for grant_id in expected}


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=40) | st.text(alphabet=st.characters(categories=("Cs", "Cc", "Cf")), max_size=5),
    st.sampled_from([("call_tool", "tool"), ("read_resource", "resource"), ("get_prompt", "prompt"), ("x", "y")]),
    st.text(max_size=10),
)
def test_nothing_that_a_client_sends_raises(name: str, kind: tuple[str, str], version: str):
    """Any name and version gets a verdict, and a permit only for the one granted name."""
    result = make_result()
    subject = PLAIN.subject(result, make_evidence(), match(result, "a", [make_grant(server="a")], NOW))
    context = RequestContext(
        protocol_version=version,
        transport="unix",
        hour=1,
        weekday=1,
        now_ns=NOW,
        args_sha256="",
        args_size=0,
        calls_in_session=0,
    )
    server = ServerFacts(name="a", transport="stdio")
    verdict = PLAIN.decide(subject, server, Target(action=kind[0], kind=kind[1], name=name), None, context)
    if isinstance(verdict, Permit):
        assert (kind[1], name) == ("tool", "get")
    else:
        assert isinstance(verdict, Deny)
        assert verdict.cause in (Cause.OUT_OF_SCOPE, Cause.POLICY_ERROR)
