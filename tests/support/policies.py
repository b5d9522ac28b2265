"""The shipped policies as an engine, and questions to it, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attestd.appraisal.model import AttestationResult
from attestd.decision.engine import Engine
from attestd.decision.layers import Layer
from attestd.decision.model import RequestContext, ServerFacts, ToolFacts, Verdict
from attestd.decision.subject import Subject
from attestd.evidence.model import Evidence
from attestd.grants.match import match
from attestd.grants.model import Grant
from attestd.wire.model import Target
from tests.support.results import NOW, make_evidence, make_result

POLICY = Path(__file__).parents[2] / "policy"
SCHEMA = (POLICY / "attestd.cedarschema").read_text(encoding="utf-8")
BASELINE = Layer(name="baseline", text=(POLICY / "baseline.cedar").read_text(encoding="utf-8"), file="baseline.cedar")
TIME = ServerFacts(name="time", transport="stdio")


def make_engine(*texts: str) -> Engine:
    """The baseline with further layers ``host0``, ``host1``, …."""
    more = [Layer(name=f"host{number}", text=text, file=f"{number}.cedar") for number, text in enumerate(texts)]
    return Engine(SCHEMA, [BASELINE, *more])


def make_subject(
    engine: Engine,
    *grants: Grant,
    result: AttestationResult | None = None,
    evidence: Evidence | None = None,
    now_ns: int = NOW,
) -> Subject:
    """The plain caller with these grants offered to it on ``time``."""
    caller = make_result() if result is None else result
    return engine.subject(
        caller, make_evidence() if evidence is None else evidence, match(caller, "time", grants, now_ns)
    )


def make_context(**changes: Any) -> RequestContext:
    """The context of a plain call."""
    facts: dict[str, Any] = {
        "protocol_version": "2025-11-25",
        "transport": "unix",
        "hour": 10,
        "weekday": 2,
        "now_ns": NOW,
        "args_sha256": "00" * 32,
        "args_size": 17,
        "calls_in_session": 3,
    }
    return RequestContext(**{**facts, **changes})


def tool(name: str) -> Target:
    """A call of this tool."""
    return Target(action="call_tool", kind="tool", name=name)


def serve(action: str) -> Target:
    """An action on the server itself."""
    return Target(action=action, kind="server", name="")


def ask(
    engine: Engine,
    subject: Subject,
    target: Target,
    *,
    server: ServerFacts = TIME,
    facts: ToolFacts | None = None,
    **context: Any,
) -> Verdict:
    """One decision."""
    return engine.decide(subject, server, target, facts, make_context(**context))
