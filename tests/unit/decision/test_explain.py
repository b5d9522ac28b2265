"""Decisions in words."""

from __future__ import annotations

from typing import Any

from attestd.decision.engine import Engine
from attestd.decision.explain import Explanation, explain
from attestd.decision.model import Deny, Permit, ToolFacts
from attestd.decision.subject import Subject
from attestd.errors import Cause
from attestd.wire.model import Target
from tests.support.policies import TIME, make_context, make_engine, make_subject, serve, tool
from tests.support.results import MINUTE, NOW, make_evidence, make_grant, make_link, make_result


def why(engine: Engine, subject: Subject, target: Target, **context: Any) -> Explanation:
    """Explain one decision on ``time``."""
    return explain(engine, subject, server=TIME, target=target, tool=ToolFacts(), context=make_context(**context))


def test_permit_names_the_grant():
    """A permit shows the grant that made it, and nothing that would have to change."""
    engine = make_engine()
    found = why(engine, make_subject(engine, make_grant()), tool("get"))
    assert isinstance(found.verdict, Permit)
    assert [(each.id, each.layer, each.text) for each in found.determining] == [
        ("grant:g1", "grants", "client.py, tools get")
    ]
    assert found.remedies == ()
    assert found.resource == "Tool get"
    assert found.generation == engine.generation


def test_forbid_shows_the_policy():
    """A forbid shows its layer, text and message, and which policy would have to change."""
    engine = make_engine(
        '@id("night") @message("not at night") forbid (principal, action, resource) when { context.hour < 6 };'
    )
    found = why(engine, make_subject(engine, make_grant()), tool("get"), hour=3)
    assert isinstance(found.verdict, Deny)
    (policy,) = found.determining
    assert (policy.id, policy.layer, policy.effect, policy.message) == (
        "host0/night",
        "host0",
        "forbid",
        "not at night",
    )
    assert "context.hour" in policy.text
    assert found.permits == ()
    assert found.remedies == ("change the policy: host0/night",)


def test_each_grant_with_its_first_failed_clause():
    """A deny lists the caller's own grants on this server: what each names, and the first clause that failed."""
    engine = make_engine()
    subject = make_subject(
        engine,
        make_grant(tools=("set",)),
        make_grant(id="g2", min_level=4),
        make_grant(id="g3", lifetime="until", until_ns=NOW + 1),
    )
    found = why(engine, subject, tool("get"), now_ns=NOW + MINUTE)
    assert [(line.id, line.holds, line.names_target, line.cause) for line in found.grants] == [
        ("g1", True, False, "out_of_scope"),
        ("g2", False, True, "level_too_low"),
        ("g3", False, True, "expired"),
    ]
    assert found.grants[0].failed == "it names tools set"
    assert "grant g2: assurance level 2, the grant needs 4" in found.remedies
    assert "grant g3: the grant has expired" in found.remedies


def test_first_false_conjunct_of_each_permit():
    """Each permit of the layers says where it stops: in its scope, or at its first false conjunct."""
    engine = make_engine(
        '@id("scope") permit (principal, action == Action::"get_prompt", resource);'
        '@id("group") permit (principal in Group::"team", action, resource);'
        '@id("kind") permit (principal, action, resource is Prompt);'
        '@id("some") permit (principal, action in [Action::"call_tool", Action::"get_prompt"], resource in MCP::"time")'
        " when { context.hour == 10 && resource has name && context.weekday > 4 && context.args_size > 99 };"
        '@id("not") permit (principal, action == Action::"call_tool", resource)'
        " when { true } unless { context.hour == 10 };"
        '@id("error") permit (principal, action == Action::"call_tool", resource)'
        " when { context.args_size * 9223372036854775807 > 5 };"
    )
    found = why(engine, make_subject(engine), tool("get"))
    failed = {line.id.removeprefix("host0/"): line.failed for line in found.permits}
    assert (failed["scope"], failed["group"], failed["kind"]) == ("scope", "scope", "scope")
    assert "context.weekday" in failed["some"]
    assert "args_size" not in failed["some"]
    assert failed["not"].startswith("!")
    assert "args_size" in failed["error"]


def test_no_grant_says_approve():
    """Without any grant the remedy is to approve the program."""
    engine = make_engine()
    found = why(engine, make_subject(engine), tool("get"))
    assert found.grants == ()
    assert found.remedies == ("approve this program for get",)
    assert why(engine, make_subject(engine), serve("connect")).remedies == ("approve this program for this server",)


def test_errors_are_shown():
    """A policy that errs is shown with its error."""
    engine = make_engine(
        '@id("s") forbid (principal, action, resource) when { context.args_size * 9223372036854775807 > 5 };'
    )
    found = why(engine, make_subject(engine, make_grant()), tool("get"))
    assert isinstance(found.verdict, Deny)
    assert found.verdict.cause is Cause.POLICY_ERROR
    assert "overflow" in found.errors[0]


def test_traced_and_level_zero():
    """Callers that nothing can permit are told so."""
    engine = make_engine()
    traced = make_subject(engine, make_grant(), evidence=make_evidence(make_link(tracer_pid=1)))
    assert why(engine, traced, tool("get")).remedies[0].startswith("detach the debugger")
    unknown = make_subject(engine, make_grant(), result=make_result(level=0))
    assert why(engine, unknown, tool("get")).remedies[0].startswith("nothing can permit")


def test_unknown_target_and_stale_subject():
    """What cannot be asked is still answered, without raising."""
    engine = make_engine()
    for subject, target in ((make_subject(engine), tool("")), (make_subject(make_engine()), tool("get"))):
        found = why(engine, subject, target)
        assert isinstance(found.verdict, Deny)
        assert found.verdict.cause is Cause.POLICY_ERROR
        assert found.determining == ()
