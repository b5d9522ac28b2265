"""Policy tests in the format of the Cedar CLI, so that the same files run here and there.

A file is a JSON array of ``{name, request{principal, action, resource, context}, entities, decision, reason,
num_errors}``; template links come in a second file, an array of ``{template_id, link_id, args}``, as the CLI's
``--template-linked``. Rules. Reasons are named by ``@id`` (our layer and version taken off) and must be a subset of
the actual ones. An error of a policy counts as a deny, as it does in attestd; ``num_errors`` must still be right. A
file without cases fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from attestd.decision.engine import Engine
from attestd.decision.verdicts import Answer
from attestd.errors import PolicyInvalidError


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request. Entities are written ``Type::"id"`` or ``{"type", "id"}``."""

    principal: str | dict[str, str]
    action: str | dict[str, str]
    resource: str | dict[str, str]
    context: dict[str, Any] = {}


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One expectation."""

    request: Request
    decision: str
    """allow | deny"""
    name: str = ""
    entities: list[dict[str, Any]] = []
    reason: list[str] = []
    num_errors: int = 0


class TemplateLink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One link."""

    template_id: str
    link_id: str
    args: dict[str, str]


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one case."""

    name: str
    passed: bool
    detail: str
    """Got versus expected; empty if it passed."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one file."""

    results: tuple[CaseResult, ...]
    covered: frozenset[str]
    """``@id`` of every policy that determined at least one case; links count by their own id."""

    @property
    def passed(self) -> bool:
        """Whether there were cases and every one passed."""
        return bool(self.results) and all(result.passed for result in self.results)


def run_tests(engine: Engine, cases: bytes, links: bytes = b"[]") -> Report:
    """Run a test file against loaded policies. Raises PolicyInvalidError if the file is not of the format."""
    try:
        wanted = msgspec.json.decode(cases, type=list[Case])
        linked = msgspec.json.decode(links, type=list[TemplateLink])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise PolicyInvalidError(f"cannot read the policy tests: {error}") from error
    if not wanted:
        raise PolicyInvalidError("cannot run the policy tests: the file has no case")
    requests = [{"request": msgspec.to_builtins(case.request), "entities": case.entities} for case in wanted]
    values = [{"template_id": link.template_id, "new_id": link.link_id, "values": link.args} for link in linked]
    try:
        answers = engine.replay(requests, values)
    except ValueError as error:
        raise PolicyInvalidError(f"cannot link the templates of the policy tests: {error}") from error
    pairs = list(zip(wanted, answers, strict=True))
    return Report(
        results=tuple(_judge(engine, position, case, answer) for position, (case, answer) in enumerate(pairs)),
        covered=_short(engine, (reason for _, answer in pairs for reason in answer.reasons)),
    )


def _judge(engine: Engine, position: int, case: Case, answer: Answer) -> CaseResult:
    name = case.name or f"case {position}"
    decision = "allow" if answer.allowed and not answer.errors else "deny"
    reasons = _short(engine, answer.reasons)
    faults: list[str] = []
    if decision != case.decision:
        faults.append(
            f"decision {decision}, expected {case.decision} (reasons: {', '.join(sorted(reasons)) or 'none'})"
        )
    if not set(case.reason) <= reasons:
        faults.append(f"reasons {sorted(reasons)}, expected {sorted(case.reason)} among them")
    if len(answer.errors) != case.num_errors:
        faults.append(f"{len(answer.errors)} errors, expected {case.num_errors}: {'; '.join(answer.errors) or 'none'}")
    return CaseResult(name=name, passed=not faults, detail="; ".join(faults))


def _short(engine: Engine, reasons: Iterable[str]) -> frozenset[str]:
    return frozenset(
        reason.rpartition("/")[2].partition("@")[0] if reason in engine.policies else reason for reason in reasons
    )
