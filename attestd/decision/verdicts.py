"""From what Cedar said to a verdict, and which verdicts may be remembered. Pure; knows nothing of cedarpy.

Rules. Any error denies, whatever else was said. "Allowed" counts only with a reason. Of several forbids the one with a
cause of its own is told first. A link over the server (``CONNECT``) is shown as its grant. Connections and lists use no
grant up; where a lasting grant permits too, a grant for one use is spared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from attestd.appraisal.model import AttestationResult
from attestd.decision.causes import unpermitted
from attestd.decision.entities import Named, group, uid
from attestd.decision.layers import LEVELS, Policy
from attestd.decision.model import Deny, Permit, RequestContext, ServerFacts, ToolFacts, Verdict
from attestd.decision.subject import Subject
from attestd.errors import Cause
from attestd.grants.model import Grant

GRANT = "grant:"
CONNECT = "/connect"
"""Suffix of a grant's second link, over its server."""
TRACED = "traced"
"""Appraisal's reason for a debugger."""
UNUSED_ACTIONS = frozenset({"connect", "list_tools", "list_resources", "list_prompts"})
"""Actions that use no grant up."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One request about one target, as it is put to Cedar."""

    server: ServerFacts
    what: Named
    tool: ToolFacts
    context: RequestContext


class Answer:
    """What Cedar said to one request."""

    __slots__ = ("allowed", "errors", "reasons")

    def __init__(self, *, allowed: bool, reasons: Iterable[str], errors: Iterable[str]) -> None:
        self.allowed = allowed
        self.reasons = tuple(sorted(reasons))
        self.errors = tuple(errors)


def grant_links(instance: str, grant: Grant, first: str) -> list[dict[str, Any]]:
    """The two template links of a grant for one process: over its objects and over its server.

    ``first``: the layer that brings the templates. A level that does not exist links nothing.
    """
    level = max(grant.min_level, LEVELS[0])
    if level not in LEVELS:
        return []
    principal = uid("Process", instance)
    return [
        {
            "template_id": f"{first}/grant-{level}",
            "new_id": f"{GRANT}{grant.id}",
            "values": {"?principal": principal, "?resource": group(grant.id)},
        },
        {
            "template_id": f"{first}/connect-{level}",
            "new_id": f"{GRANT}{grant.id}{CONNECT}",
            "values": {"?principal": principal, "?resource": uid("MCP", grant.object.server)},
        },
    ]


def unattested(result: AttestationResult) -> Deny:
    """The deny of a caller of level 0, with what took the level away."""
    codes = [reason.code for reason in result.reasons if reason.cap == 0]
    cause = Cause.TRACED if TRACED in codes else Cause.UNATTESTABLE
    why = ", ".join(dict.fromkeys(codes)) or "nothing is known of it"
    return Deny(cause=cause, detail=f"level 0: {why}")


def judged(answer: Answer, subject: Subject, question: Question, policies: Mapping[str, Policy]) -> Verdict:
    """The verdict that an answer means."""
    if answer.errors:
        return Deny(cause=Cause.POLICY_ERROR, detail="a policy could not be evaluated", policies=answer.reasons)
    if answer.allowed and answer.reasons:
        return _permitted(answer.reasons, subject, question)
    if answer.reasons:
        return _forbidden(answer.reasons, policies)
    return unpermitted(subject.match, question.server.name, question.what)


def memorable(verdict: Verdict, subject: Subject) -> bool:
    """Whether the verdict will be the same next time: neither an error nor for one use."""
    if isinstance(verdict, Deny):
        return verdict.cause is not Cause.POLICY_ERROR
    return subject.once.isdisjoint(verdict.grants)


def as_cached(verdict: Verdict) -> Verdict:
    """The same verdict, marked as remembered."""
    if isinstance(verdict, Permit):
        return Permit(policies=verdict.policies, grants=verdict.grants, cached=True)
    return Deny(cause=verdict.cause, detail=verdict.detail, plain=verdict.plain, policies=verdict.policies, cached=True)


def _permitted(reasons: tuple[str, ...], subject: Subject, question: Question) -> Permit:
    grants = frozenset(reason.removeprefix(GRANT) for reason in reasons if reason.startswith(GRANT))
    used = frozenset() if question.what.action in UNUSED_ACTIONS else grants
    shown = {reason.removesuffix(CONNECT) for reason in reasons}
    return Permit(policies=tuple(sorted(shown)), grants=tuple(sorted(used - subject.once or used)))


def _forbidden(reasons: tuple[str, ...], policies: Mapping[str, Policy]) -> Deny:
    telling = [policies[reason] for reason in reasons if reason in policies]
    telling.sort(key=lambda policy: (policy.cause is Cause.POLICY_FORBID, policy.id))
    if not telling:
        return Deny(cause=Cause.POLICY_ERROR, detail="a policy without a name forbids it", policies=reasons)
    policy = telling[0]
    detail = policy.message or f"forbidden by {policy.id}"
    return Deny(cause=policy.cause, detail=detail, policies=reasons)
