"""The decision cache and what its keys must hold."""

from __future__ import annotations

import json

import cedarpy
import pytest

from attestd.decision.cache import FIELDS, DecisionCache, context_reads, projection
from attestd.decision.model import Deny, Permit, RequestContext, ServerFacts, ToolFacts
from attestd.errors import Cause
from tests.support.policies import TIME, ask, make_context, make_engine, make_subject, tool
from tests.support.results import NOW, make_grant


def reads(condition: str) -> frozenset[str] | None:
    """What a policy with this condition reads of the context."""
    parsed = json.loads(cedarpy.policies_to_json_str(f"permit(principal,action,resource) when {{ {condition} }};"))
    return context_reads(parsed["staticPolicies"].values())


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("principal.traced", set()),
        ("context.hour < 6", {"hour"}),
        ('context["hour"] < 6', {"hour"}),
        ("context has hour && 1 + context.weekday > context.args_size", {"hour", "weekday", "args_size"}),
        ("[1, context.hour].contains({a: context.weekday}.a)", {"hour", "weekday"}),
        ("if context.hour > 1 then true else context.weekday > 2", {"hour", "weekday"}),
        ('context.transport like "u*"', {"transport"}),
        ('resource.name == "context.hour"', set()),
        ("!(principal has package) || context.args_size > 1", {"args_size"}),
        ('{"Var": 1, ".": 2} == {"Var": 1, ".": 2}', set()),
    ],
)
def test_reads(condition: str, expected: set[str]):
    """Exactly the attributes that are reached through the context are found, however deep."""
    assert reads(condition) == expected


@pytest.mark.parametrize(
    "condition",
    [
        "context == {a: 1}",
        "(if true then context else context).hour > 1",
        "[context].contains(context)",
        "{x: context}.x.hour > 1",
        '{".": context} == {a: 1}',
    ],
)
def test_context_as_a_whole(condition: str):
    """A context that is used as a value is read wholly."""
    assert reads(condition) is None


def test_unless_and_several_policies():
    """Conditions of both kinds and of all policies count."""
    text = (
        "permit(principal,action,resource) unless { context.hour > 1 };"
        "forbid(principal,action,resource) when { context.weekday > 1 };"
    )
    parsed = json.loads(cedarpy.policies_to_json_str(text))
    assert context_reads(parsed["staticPolicies"].values()) == {"hour", "weekday"}


def test_projection():
    """The projection has what is read and nothing else; whole contexts, the time and unknown names have none."""
    project = projection(frozenset({"hour", "args_size"}))
    assert project is not None
    assert project(make_context(hour=4, args_size=9, weekday=1)) == project(
        make_context(hour=4, args_size=9, weekday=2)
    )
    assert project(make_context(hour=4)) != project(make_context(hour=5))
    nothing = projection(frozenset())
    assert nothing is not None
    assert nothing(make_context(hour=1)) == nothing(make_context(hour=2))
    assert projection(None) is None
    assert projection(frozenset({"now"})) is None
    assert projection(frozenset({"task"})) is None


def test_every_context_attribute_has_its_field():
    """The table names every field of the request context, once."""
    assert sorted(FIELDS.values()) == sorted(RequestContext.__struct_fields__)


def test_capacity():
    """What all subjects have together is emptied before it grows; what a subject has goes with it."""
    cache = DecisionCache(capacity=4)
    one, two = cache.verdicts(1), cache.verdicts(2)
    for key in range(9):
        cache.put(one if key % 2 else two, key, Permit(policies=()))
        assert len(cache) <= 4
    assert two.keys() == {8}
    assert not one
    cache.put(one, "a", Permit(policies=()))
    del two
    assert len(cache) == 1
    for key in range(3):
        cache.put(one, key, Permit(policies=()))
    assert one.keys() == {"a", 0, 1, 2}  # there is room: it was counted again


def test_hits_are_marked_and_equal():
    """The second answer is the first, marked as remembered, for permits and denies."""
    engine = make_engine()
    subject = make_subject(engine, make_grant())
    for name in ("get", "set"):
        first, second = (ask(engine, subject, tool(name)) for _ in range(2))
        assert (first.cached, second.cached) == (False, True)
        assert first.policies == second.policies
        assert type(first) is type(second)


def test_what_no_policy_reads_does_not_matter():
    """A context that differs only in what nothing reads is a hit; in what something reads, it is not."""
    engine = make_engine('@id("n") forbid (principal, action, resource) when { context.hour < 6 };')
    subject = make_subject(engine, make_grant())
    assert engine.reads == {"hour"}
    assert not ask(engine, subject, tool("get"), calls_in_session=1).cached
    assert ask(engine, subject, tool("get"), calls_in_session=2, now_ns=NOW + 1).cached
    night = ask(engine, subject, tool("get"), hour=3)
    assert isinstance(night, Deny)
    assert not night.cached


def test_facts_of_the_target_are_part_of_the_question():
    """A changed definition of a tool, and another server's tool of the same name, are asked anew."""
    engine = make_engine('@id("r") permit (principal, action, resource is Tool) when { resource.readOnlyHint };')
    subject = make_subject(engine)
    assert isinstance(ask(engine, subject, tool("x"), facts=ToolFacts(read_only=True)), Permit)
    assert isinstance(ask(engine, subject, tool("x"), facts=ToolFacts()), Deny)
    assert isinstance(ask(engine, subject, tool("x")), Deny)
    only_time = make_subject(engine, make_grant())
    assert isinstance(ask(engine, only_time, tool("get")), Permit)
    for server in (ServerFacts(name="other", transport="stdio"), ServerFacts(name="time", transport="http")):
        assert not ask(engine, only_time, tool("get"), server=server).cached
    assert isinstance(ask(engine, only_time, tool("get"), server=ServerFacts(name="other", transport="stdio")), Deny)


def test_readers_of_the_time_are_not_remembered():
    """A policy that reads the time switches remembering off."""
    engine = make_engine('@id("n") forbid (principal, action, resource) when { context.now < datetime("2020-01-01") };')
    subject = make_subject(engine, make_grant())
    assert not engine.caching
    for _ in range(2):
        assert not ask(engine, subject, tool("get")).cached
    assert isinstance(ask(engine, subject, tool("get"), now_ns=0), Deny)


def test_what_is_remembered_without_a_context():
    """``remembered`` says what ``decide`` says, of this subject as long as its grants last; else it says nothing."""
    end = NOW + 1_000_000_000
    engine = make_engine()
    subject = make_subject(engine, make_grant(lifetime="until", until_ns=end))
    assert engine.remembered(subject, TIME, tool("get"), None, NOW) is None
    for name in ("get", "set"):
        ask(engine, subject, tool(name))
        assert engine.remembered(subject, TIME, tool(name), None, NOW) == ask(engine, subject, tool(name))
    assert isinstance(engine.remembered(subject, TIME, tool("get"), None, end - 1), Permit)
    assert engine.remembered(subject, TIME, tool("get"), None, end) is None
    assert engine.remembered(subject, TIME, tool("get"), ToolFacts(read_only=True), NOW) is None
    assert engine.remembered(make_subject(engine, make_grant()), TIME, tool("get"), None, NOW) is None
    assert make_engine().remembered(subject, TIME, tool("get"), None, NOW) is None


def test_policies_that_read_the_context_are_not_answered_without():
    """Where any policy reads any of it, only ``decide`` answers, although it remembers."""
    engine = make_engine('@id("n") forbid (principal, action, resource) when { context.hour < 6 };')
    subject = make_subject(engine, make_grant())
    ask(engine, subject, tool("get"))
    assert ask(engine, subject, tool("get")).cached
    assert engine.remembered(subject, TIME, tool("get"), None, NOW) is None


def test_errors_are_not_remembered():
    """A deny because of an error is asked anew."""
    engine = make_engine(
        '@id("s") forbid (principal, action, resource) when { context.args_size * 9223372036854775807 > 5 };'
    )
    subject = make_subject(engine, make_grant())
    for _ in range(2):
        verdict = ask(engine, subject, tool("get"))
        assert isinstance(verdict, Deny)
        assert (verdict.cause, verdict.cached) == (Cause.POLICY_ERROR, False)


def test_callers_do_not_share():
    """Two callers with the same question never share an answer."""
    engine = make_engine()
    granted, stranger = make_subject(engine, make_grant()), make_subject(engine)
    assert isinstance(ask(engine, granted, tool("get")), Permit)
    assert isinstance(ask(engine, stranger, tool("get")), Deny)
    assert isinstance(ask(engine, granted, tool("get")), Permit)


def test_reload_drops_the_projection():
    """Policies that read more are never answered from what the older ones read."""
    old = make_engine()
    before = make_subject(old, make_grant())
    assert isinstance(ask(old, before, tool("get"), hour=10), Permit)
    assert ask(old, before, tool("get"), hour=3).cached
    new = make_engine('@id("n") forbid (principal, action, resource) when { context.hour < 6 };')
    after = make_subject(new, make_grant())
    assert isinstance(ask(new, after, tool("get"), hour=10), Permit)
    assert isinstance(ask(new, after, tool("get"), hour=3), Deny)
    assert isinstance(ask(new, before, tool("get"), hour=3), Deny)
