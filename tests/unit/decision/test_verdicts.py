"""From Cedar's answer to a verdict."""

from __future__ import annotations

import pytest

from attestd.appraisal.caps import reason
from attestd.decision.entities import Named
from attestd.decision.model import Deny, Permit, ToolFacts
from attestd.decision.verdicts import TRACED, Answer, Question, as_cached, grant_links, judged, memorable, unattested
from attestd.errors import Cause
from tests.support.policies import TIME, make_context, make_engine, make_subject
from tests.support.results import make_grant, make_result

ENGINE = make_engine('@id("quiet") forbid (principal, action, resource) when { context.hour > 30 };')
ONCE = make_grant(id="once", lifetime="once")
SUBJECT = make_subject(ENGINE, make_grant(), ONCE)


def judge(*, allowed: bool, reasons: tuple[str, ...] = (), errors: tuple[str, ...] = (), action: str = "call_tool"):
    """The verdict on this answer to a call of ``get``."""
    kind = "Tool" if action == "call_tool" else "MCP"
    question = Question(
        server=TIME, what=Named(action=action, type=kind, name="get"), tool=ToolFacts(), context=make_context()
    )
    return judged(Answer(allowed=allowed, reasons=reasons, errors=errors), SUBJECT, question, ENGINE.policies)


@pytest.mark.parametrize("allowed", [True, False])
def test_any_error_denies(allowed: bool):
    """An error beside a permit or a forbid is a deny because of the error."""
    verdict = judge(allowed=allowed, reasons=("grant:g1",), errors=("overflow",))
    assert isinstance(verdict, Deny)
    assert verdict.cause is Cause.POLICY_ERROR


def test_allowed_without_a_reason_is_no_permit():
    """An allow that nothing determined is not believed."""
    assert isinstance(judge(allowed=True), Deny)


def test_forbid_with_its_own_cause_is_told_first():
    """Of several forbids the one with a cause of its own speaks, and all are named."""
    reasons = ("host0/quiet", "baseline/no-traced")
    verdict = judge(allowed=False, reasons=reasons)
    assert verdict == Deny(
        cause=Cause.TRACED, detail="a debugger is attached to the caller", policies=tuple(sorted(reasons))
    )
    plain = judge(allowed=False, reasons=("host0/quiet",))
    assert plain == Deny(cause=Cause.POLICY_FORBID, detail="forbidden by host0/quiet", policies=("host0/quiet",))


def test_unknown_forbid_is_an_error():
    """A deny for a reason that is no loaded policy is an error, not a missing grant."""
    verdict = judge(allowed=False, reasons=("policy7",))
    assert isinstance(verdict, Deny)
    assert verdict.cause is Cause.POLICY_ERROR


def test_uses():
    """Calls use the lasting grants, else the one for a single use; connections use none."""
    assert judge(allowed=True, reasons=("grant:once",)).grants == ("once",)
    assert judge(allowed=True, reasons=("grant:once", "grant:g1")).grants == ("g1",)
    connected = judge(allowed=True, reasons=("grant:g1/connect", "grant:once/connect"), action="connect")
    assert connected == Permit(policies=("grant:g1", "grant:once"), grants=())


def test_memorable():
    """Errors and permits for one use are not remembered; everything else is."""
    assert memorable(Permit(policies=(), grants=("g1",)), SUBJECT)
    assert not memorable(Permit(policies=(), grants=("once",)), SUBJECT)
    assert memorable(Deny(cause=Cause.NO_GRANT), SUBJECT)
    assert not memorable(Deny(cause=Cause.POLICY_ERROR), SUBJECT)


def test_as_cached_changes_nothing_else():
    """The remembered verdict differs by its mark only."""
    permit = Permit(policies=("a",), grants=("g",))
    deny = Deny(cause=Cause.NO_GRANT, detail="d", policies=("p",))
    assert as_cached(permit) == Permit(policies=("a",), grants=("g",), cached=True)
    assert as_cached(deny) == Deny(cause=Cause.NO_GRANT, detail="d", policies=("p",), cached=True)


@pytest.mark.parametrize(("level", "template"), [(-1, "grant-1"), (0, "grant-1"), (1, "grant-1"), (4, "grant-4")])
def test_links(level: int, template: str):
    """A grant is two links: over its own objects and over its server only, at its level."""
    over_objects, over_server = grant_links("boot/1/1", make_grant(min_level=level), "baseline")
    assert over_objects["template_id"] == f"baseline/{template}"
    assert over_objects["values"]["?resource"] == {"type": "Group", "id": "grant:g1"}
    assert over_server["values"]["?resource"] == {"type": "MCP", "id": "time"}
    assert over_objects["values"]["?principal"] == over_server["values"]["?principal"]


def test_level_zero_says_what_took_it():
    """A debugger has its own cause; otherwise the codes that cap at 0 are told, and remarks are not."""
    told = unattested(make_result(level=0, reasons=(reason("preload"), reason("search-path"))))
    assert (told.cause, told.detail) == (
        Cause.UNATTESTABLE,
        "level 0: preload",
    )
    assert unattested(make_result(level=0, reasons=(reason(TRACED), reason("preload")))).cause is Cause.TRACED
    assert "nothing is known" in unattested(make_result(level=0)).detail


def test_impossible_level_links_nothing():
    """A minimum level that does not exist permits nothing."""
    assert grant_links("i", make_grant(min_level=5), "baseline") == []
