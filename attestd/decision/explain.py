"""A decision in words: what determined it, and for a deny what would have to change.

Nothing is decided here: the verdict is the engine's, and every statement about a clause was evaluated by Cedar on the
same request, one conjunct at a time. For the person who administrates, not for the caller: it names grants and
policies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from attestd.decision.engine import DEFAULT_TOOL, Engine
from attestd.decision.entities import Named, covers, named
from attestd.decision.layers import Policy
from attestd.decision.model import Deny, Permit, RequestContext, ServerFacts, ToolFacts, Verdict
from attestd.decision.subject import Subject
from attestd.decision.verdicts import CONNECT, GRANT, Question
from attestd.errors import Cause
from attestd.grants.model import Grant
from attestd.wire.model import Target


class Determining(msgspec.Struct, frozen=True, kw_only=True):
    """A policy or grant that decided."""

    id: str
    layer: str
    effect: str
    """permit | forbid"""
    text: str
    """Cedar, or the grant's line."""
    message: str = ""


class GrantLine(msgspec.Struct, frozen=True, kw_only=True):
    """One of the caller's own grants on this server."""

    id: str
    display: str
    holds: bool
    names_target: bool
    failed: str
    """The first clause that failed; empty if the grant holds and names the target."""
    cause: str = ""


class PolicyLine(msgspec.Struct, frozen=True, kw_only=True):
    """A permit of a policy layer that did not apply."""

    id: str
    failed: str
    """``scope``, or the first conjunct that is false, in Cedar."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one decision."""

    verdict: Verdict
    action: str
    resource: str
    generation: str
    determining: tuple[Determining, ...]
    grants: tuple[GrantLine, ...]
    permits: tuple[PolicyLine, ...]
    """Only for a deny that no forbid made."""
    remedies: tuple[str, ...]
    """What would have to change, one clause each; empty for a permit."""
    errors: tuple[str, ...] = ()


def explain(
    engine: Engine,
    subject: Subject,
    *,
    server: ServerFacts,
    target: Target,
    tool: ToolFacts | None,
    context: RequestContext,
) -> Explanation:
    """Decide again and say why. Costs some hundred microseconds per policy; never call it on the path of a request."""
    verdict = engine.decide(subject, server, target, tool, context)
    subject = engine.current(subject, context.now_ns)
    what = named(target)
    if what is None or not engine.made(subject):
        return _bare(engine, verdict, target)
    question = Question(server=server, what=what, tool=DEFAULT_TOOL if tool is None else tool, context=context)
    answer = engine.ask(subject, question)
    grants = _grants(subject, server, what)
    unforbidden = isinstance(verdict, Deny) and not answer.reasons
    return Explanation(
        verdict=verdict,
        action=what.action,
        resource=f"{what.type} {what.name or server.name}",
        generation=engine.generation,
        determining=_determining(engine, subject, answer.reasons),
        grants=grants,
        permits=_permits(engine, subject, question) if unforbidden else (),
        remedies=() if isinstance(verdict, Permit) else _remedies(verdict, what, grants),
        errors=answer.errors,
    )


def conjuncts(policy: Policy) -> Iterator[Any]:
    """The conditions of a policy cut at their top-level ``&&``, in Cedar's JSON form; an ``unless`` comes negated."""
    for clause in policy.body.get("conditions", []):
        if clause["kind"] == "when":
            yield from _split(clause["body"])
        else:
            yield {"!": {"arg": clause["body"]}}


def _split(expression: Any) -> Iterator[Any]:
    if isinstance(expression, dict) and set(expression) == {"&&"}:
        yield from _split(expression["&&"]["left"])
        yield from _split(expression["&&"]["right"])
    else:
        yield expression


def _bare(engine: Engine, verdict: Verdict, target: Target) -> Explanation:
    return Explanation(
        verdict=verdict,
        action=target.action,
        resource=target.kind,
        generation=engine.generation,
        determining=(),
        grants=(),
        permits=(),
        remedies=() if isinstance(verdict, Permit) else ("ask for something that the policy schema knows",),
    )


def _determining(engine: Engine, subject: Subject, reasons: tuple[str, ...]) -> tuple[Determining, ...]:
    linked = {grant.id: grant for grant in subject.match.linked}
    found: list[Determining] = []
    for reason in reasons:
        grant = linked.get(reason.removeprefix(GRANT).removesuffix(CONNECT))
        policy = engine.policies.get(reason)
        if policy is not None:
            text = engine.text(policy)
            found.append(
                Determining(id=reason, layer=policy.layer, effect=policy.effect, text=text, message=policy.message)
            )
        elif grant is not None:
            found.append(
                Determining(id=reason, layer="grants", effect="permit", text=f"{grant.display}, {_names(grant)}")
            )
    return tuple(found)


def _grants(subject: Subject, server: ServerFacts, what: Named) -> tuple[GrantLine, ...]:
    lines: list[GrantLine] = []
    for grant in subject.match.linked:
        if grant.object.server == server.name:
            reaches = covers(grant, what)
            failed = "" if reaches else f"it names {_names(grant)}"
            cause = "" if reaches else Cause.OUT_OF_SCOPE.value
            lines.append(_line(grant, holds=True, reaches=reaches, failed=failed, cause=cause))
    for rejected in subject.match.rejected:
        if rejected.grant.object.server == server.name:
            reaches = covers(rejected.grant, what)
            lines.append(
                _line(rejected.grant, holds=False, reaches=reaches, failed=rejected.detail, cause=rejected.cause.value)
            )
    return tuple(lines)


def _line(grant: Grant, *, holds: bool, reaches: bool, failed: str, cause: str) -> GrantLine:
    return GrantLine(id=grant.id, display=grant.display, holds=holds, names_target=reaches, failed=failed, cause=cause)


def _names(grant: Grant) -> str:
    parts = [
        f"{word} {', '.join(names)}"
        for word, names in (
            ("tools", grant.object.tools),
            ("resources", grant.object.resources),
            ("prompts", grant.object.prompts),
            ("server requests", grant.object.server_requests),
        )
        if names
    ]
    return "; ".join(parts) or "nothing"


def _permits(engine: Engine, subject: Subject, question: Question) -> tuple[PolicyLine, ...]:
    """Permits of the layers (grants are told of in their own lines) and where each one stops."""
    lines: list[PolicyLine] = []
    for policy in engine.policies.values():
        if policy.effect != "permit" or policy.template:
            continue
        expressions = [*_scope(policy), *conjuncts(policy)]
        true = engine.holding(expressions, subject, question)
        false = next((position for position in range(len(expressions)) if position not in true), None)
        if false is not None:
            scope = false < len(expressions) - len(list(conjuncts(policy)))
            lines.append(PolicyLine(id=policy.id, failed="scope" if scope else engine.expression(expressions[false])))
    return tuple(lines)


def _scope(policy: Policy) -> list[Any]:
    """The scope of a policy as expressions that can be evaluated alone."""
    found: list[Any] = []
    for name in ("principal", "action", "resource"):
        scope = policy.body[name]
        variable = {"Var": name}
        match scope["op"]:
            case "==" | "in":
                values = [{"Value": {"__entity": each}} for each in scope.get("entities", [scope.get("entity")])]
                right = {"Set": values} if "entities" in scope else values[0]
                found.append({scope["op"]: {"left": variable, "right": right}})
            case "is":
                inside = {"in": {"Value": {"__entity": scope["in"]["entity"]}}} if "in" in scope else {}
                found.append({"is": {"left": variable, "entity_type": scope["entity_type"], **inside}})
            case _:
                continue
    return found


def _remedies(deny: Deny, what: Named, grants: tuple[GrantLine, ...]) -> tuple[str, ...]:
    word = what.name or "this server"
    general: dict[Cause, str] = {
        Cause.NO_GRANT: f"approve this program for {word}",
        Cause.OUT_OF_SCOPE: f"approve {word} too: the grant for this server does not name it",
        Cause.LEVEL_TOO_LOW: "raise the assurance level (attestctl inspect has the reasons), or approve a lower one",
        Cause.LAUNCHER: "start the program without the foreign launcher, or approve it with this launcher named",
        Cause.INLINE: "call without inline code, or approve it for the login session",
        Cause.EXPIRED: "renew the grant, or approve the program again",
        Cause.SERVER_REQUEST: f"approve with {what.name} named as a server request",
        Cause.UNATTESTABLE: "nothing can permit this caller; see the reasons of: attestctl inspect",
        Cause.TRACED: "detach the debugger and connect again",
        Cause.POLICY_FORBID: f"change the policy: {', '.join(deny.policies)}",
        Cause.POLICY_ERROR: "mend the policy that could not be evaluated; until then everything it touches is refused",
    }
    remedies = [general.get(deny.cause, "see the reference for this cause")]
    remedies += [f"grant {line.id}: {line.failed}" for line in grants if line.names_target and line.failed]
    return tuple(remedies)
