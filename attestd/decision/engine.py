"""The Cedar engine: the only module that touches cedarpy.

Rules. The schema is mandatory: it is checked at load, for every entity and for every request that is put to Cedar.
A decision starts at Deny: an error of the engine, an error of any single policy (Cedar would skip a forbid that
errs) and "no decision" all deny with ``policy_error``. Level 0 is denied before any policy is asked. Reasons are
sorted, because Cedar's order is random. What a client sent reaches Cedar only as bounded string values; it never raises
here.

One call of ``decide``: 1 the subject belongs to this engine and its grants have not ended, 2 the target is known and
bounded, 3 remembered, 4 asked, 5 the answer becomes a verdict, 6 remembered if that is sound.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from types import MappingProxyType
from typing import Any

import cedarpy

from attestd.appraisal.model import AttestationResult
from attestd.decision.cache import DecisionCache, context_reads, nothing, projection
from attestd.decision.causes import expired, first_end
from attestd.decision.entities import (
    NAME_CAP,
    URI_CAP,
    caller_entities,
    context_record,
    named,
    target_entities,
    target_uid,
    uid,
)
from attestd.decision.layers import (
    Layer,
    Policy,
    check_layers,
    check_size,
    check_templates,
    policies,
    statement_lines,
    statements,
)
from attestd.decision.model import Deny, RequestContext, ServerFacts, ToolFacts, Verdict
from attestd.decision.subject import Parsed, Subject
from attestd.decision.verdicts import Answer, Question, as_cached, grant_links, judged, memorable, unattested
from attestd.errors import Cause, PolicyInvalidError
from attestd.evidence.model import Evidence
from attestd.grants.match import Match
from attestd.wire.model import Target

UNKNOWN_TARGET = "the target is unknown to the policy schema or too long"
PARSED_CAP = 64
"""Subjects whose parsed form is kept: what Cedar needs of one takes 60 KiB, and remembered decisions do without it."""
TARGETS_CAP = 32
"""Targets of one of them that are kept parsed, 20 KiB each."""
DEFAULT_TOOL = ToolFacts()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CEDAR_ERRORS = (ValueError, TypeError, OverflowError, KeyError)


class Engine:
    """One set of policies, parsed and validated; a reload makes a new engine."""

    def __init__(self, schema: str, layers: Sequence[Layer], *, host: str = "") -> None:
        """Load everything or raise PolicyInvalidError with file and line.

        ``layers``: lowest first; the first brings the templates of grants. ``host``: the host id, for ``Host``
        entities.
        """
        check_layers(layers)
        check_size(schema, "the policy schema", "([{<)]}>")
        try:
            self._schema = cedarpy.Schema.from_str(schema, release_gil=True)
        except ValueError as error:
            raise PolicyInvalidError(f"cannot load the policy schema: {error}") from error
        loaded = [policy for layer in layers for policy in self._load(layer)]
        check_templates(loaded, layers[0])
        self._first = layers[0].name
        self._host = host
        self.policies: Mapping[str, Policy] = MappingProxyType({policy.id: policy for policy in loaded})
        """Every policy and template by its full id."""
        self._base = cedarpy.PolicySet.from_json_str(_policy_set(loaded), release_gil=True)
        self.generation = _digest(schema, layers)
        """SHA-256 of schema and layers, hex."""
        self.reads = context_reads(policy.body for policy in loaded)
        """Context attributes that any policy reads; None: the context as a whole."""
        self._project = projection(self.reads)
        self._cache = DecisionCache()
        self._parsed: OrderedDict[str, Parsed] = OrderedDict()
        self._numbers = count(1)

    @property
    def caching(self) -> bool:
        """Whether decisions can be remembered under these policies."""
        return self._project is not None

    def subject(self, result: AttestationResult, evidence: Evidence, match: Match) -> Subject:
        """Prepare a caller: link the grants that hold for it. ``match`` is of one server.

        Raises ValueError if the evidence does not fit the result (our bug).
        """
        number = next(self._numbers)
        subject = Subject(
            owner=self._cache,
            generation=self.generation,
            number=number,
            result=result,
            evidence=evidence,
            match=match,
            until_ns=first_end(match.linked),
            verdicts=self._cache.verdicts(number),
        )
        self.parsed(subject)
        return subject

    def made(self, subject: Subject) -> bool:
        """Whether the subject belongs to this engine: another one, even of the same policies, must prepare its own."""
        return subject.owner is self._cache

    def remembered(
        self, subject: Subject, server: ServerFacts, target: Target, tool: ToolFacts | None, now_ns: int
    ) -> Verdict | None:
        """What ``decide`` would say, where it is remembered and no policy reads anything of the context; else None."""
        if self._project is not nothing or subject.owner is not self._cache:
            return None
        if subject.until_ns is not None and not subject.since_ns <= now_ns < subject.until_ns:
            return None
        return subject.verdicts.get((server.name, server.transport, target, tool, None))

    def decide(
        self,
        subject: Subject,
        server: ServerFacts,
        target: Target,
        tool: ToolFacts | None,
        context: RequestContext,
    ) -> Verdict:
        """Permit or Deny for one target. Never raises for what a client sent.

        ``tool``: the definition's facts, None: not known, which counts as the specification's defaults.
        """
        # 1 the subject belongs to this engine and is still true
        if subject.owner is not self._cache:
            return Deny(
                cause=Cause.POLICY_ERROR, detail="the policies were reloaded; the caller must be prepared again"
            )
        if subject.until_ns is not None and not subject.since_ns <= context.now_ns < subject.until_ns:
            subject = self.current(subject, context.now_ns)
        # 2 the target is bounded
        if len(target.name) > URI_CAP:
            return Deny(cause=Cause.POLICY_ERROR, detail=UNKNOWN_TARGET)
        # 3 remembered
        project = self._project
        key: Hashable = None
        if project is not None:
            key = (server.name, server.transport, target, tool, project(context))
            remembered = subject.verdicts.get(key)
            if remembered is not None:
                return remembered
        # 2 and known (a remembered one was)
        what = named(target)
        if what is None or "/" in server.name or not server.name:
            return Deny(cause=Cause.POLICY_ERROR, detail=UNKNOWN_TARGET)
        if subject.result.level < 1:
            return unattested(subject.result)
        # 4 asked, 5 the answer becomes a verdict
        question = Question(server=server, what=what, tool=DEFAULT_TOOL if tool is None else tool, context=context)
        verdict = judged(self.ask(subject, question), subject, question, self.policies)
        # 6 remembered if that is sound
        if project is not None and len(target.name) <= NAME_CAP and memorable(verdict, subject):
            self._cache.put(subject.verdicts, key, as_cached(verdict))
        return verdict

    def current(self, subject: Subject, now_ns: int) -> Subject:
        """The subject without the grants that have ended at ``now_ns``; itself if none has."""
        match = expired(subject.match, now_ns)
        if match.linked == subject.match.linked:
            return subject
        narrower = subject.narrower
        if narrower is None or narrower.match.linked != match.linked:
            narrower = self.subject(subject.result, subject.evidence, match)
            subject.narrower = narrower
        return narrower

    def ask(self, subject: Subject, question: Question, policy_set: Any = None) -> Answer:
        """Put one request to Cedar, by default under the subject's own policy set."""
        what, context = question.what, question.context
        try:
            parsed = self.parsed(subject)
            result = cedarpy.is_authorized(
                {
                    "principal": subject.principal,
                    "action": uid("Action", what.action),
                    "resource": target_uid(question.server, what),
                    "context": json.dumps(context_record(context, _datetime(context.now_ns))),
                },
                parsed.links if policy_set is None else policy_set,
                self._entities(subject, parsed, question),
                self._schema,
            )
        except _CEDAR_ERRORS as error:
            return Answer(allowed=False, reasons=(), errors=(str(error) or type(error).__name__,))
        errors = list(result.diagnostics.errors)
        if result.decision is cedarpy.Decision.NoDecision and not errors:
            errors = ["no decision"]
        return Answer(allowed=result.allowed, reasons=result.diagnostics.reasons, errors=errors)

    def holding(
        self,
        expressions: Sequence[Any],
        subject: Subject,
        question: Question,
    ) -> frozenset[int]:
        """Which of these expressions (Cedar's JSON form) are true for the request; by position. For explanations."""
        everyone = {"op": "All"}
        bodies = {
            str(position): {
                "effect": "permit",
                "principal": everyone,
                "action": everyone,
                "resource": everyone,
                "conditions": [{"kind": "when", "body": expression}],
            }
            for position, expression in enumerate(expressions)
        }
        alone = cedarpy.PolicySet.from_json_str(
            json.dumps({"staticPolicies": bodies, "templates": {}, "templateLinks": []})
        )
        return frozenset(int(reason) for reason in self.ask(subject, question, alone).reasons)

    def text(self, policy: Policy) -> str:
        """The policy in Cedar's own words, as loaded."""
        section = "templates" if policy.template else "staticPolicies"
        empty: dict[str, Any] = {"staticPolicies": {}, "templates": {}, "templateLinks": []}
        return cedarpy.policies_from_json_str(json.dumps({**empty, section: {"p": policy.body}})).strip()

    def expression(self, expression: Any) -> str:
        """One expression of Cedar's JSON form in Cedar's own words."""
        everyone = {"op": "All"}
        body: dict[str, Any] = {"effect": "permit", "principal": everyone, "action": everyone, "resource": everyone}
        body["conditions"] = [{"kind": "when", "body": expression}]
        policy = Policy(id="", layer="", effect="permit", template=False, line=0, body=body)
        clause = self.text(policy).partition("when {")[2]
        return clause.strip().removesuffix(";").strip().removesuffix("}").strip()

    def replay(self, requests: Sequence[Mapping[str, Any]], links: Sequence[Mapping[str, Any]]) -> tuple[Answer, ...]:
        """Answers to whole requests with their own ``entities``, for policy tests. ``links``: as cedarpy takes them."""
        linked = self._base.with_linked_batch([dict(link) for link in links]) if links else self._base
        return tuple(self._replayed(request, linked) for request in requests)

    def _replayed(self, request: Mapping[str, Any], linked: Any) -> Answer:
        try:
            entities = cedarpy.Entities.from_json_str(json.dumps(request["entities"]), self._schema)
            whole = {name: request["request"][name] for name in ("principal", "action", "resource", "context")}
            result = cedarpy.is_authorized(whole, linked, entities, self._schema)
        except _CEDAR_ERRORS as error:
            return Answer(allowed=False, reasons=(), errors=(str(error) or type(error).__name__,))
        diagnostics = result.diagnostics
        return Answer(allowed=result.allowed, reasons=diagnostics.reasons, errors=diagnostics.errors)

    def _load(self, layer: Layer) -> tuple[Policy, ...]:
        try:
            parsed = json.loads(cedarpy.policies_to_json_str(layer.text))
        except (ValueError, RecursionError) as error:
            line = _unparsable(layer.text)
            raise PolicyInvalidError(f"cannot load {layer.shown}, line {line}: {error}") from error
        checked = cedarpy.validate_policies(layer.text, self._schema, release_gil=True)
        if not checked.validation_passed:
            fault = min(checked.errors, key=lambda each: (int(each.policy_id.removeprefix("policy")), each.error))
            lines = statement_lines(layer.text)
            line = lines[int(fault.policy_id.removeprefix("policy"))]
            raise PolicyInvalidError(
                f"cannot load {layer.shown}, line {line}: {fault.error}",
                hint="the schema lists what policies can read: policy/attestd.cedarschema",
            )
        return policies(layer, parsed)

    def forget(self) -> None:
        """Let go of the parsed form of every subject; it is made again where it is needed."""
        self._parsed.clear()

    def parsed(self, subject: Subject) -> Parsed:
        """The subject as Cedar takes it, made again if it was not asked for lately."""
        found = self._parsed.get(subject.key)
        if found is not None:
            self._parsed.move_to_end(subject.key)
            return found
        result = subject.result
        links = [link for grant in subject.match.linked for link in grant_links(result.instance, grant, self._first)]
        entities = json.dumps(caller_entities(result, subject.evidence, self._host))
        made = Parsed(
            links=self._base.with_linked_batch(links) if links else self._base,
            base=cedarpy.Entities.from_json_str(entities, self._schema),
        )
        self._parsed[subject.key] = made
        if len(self._parsed) > PARSED_CAP:
            self._parsed.popitem(last=False)
        return made

    def _entities(self, subject: Subject, parsed: Parsed, question: Question) -> Any:
        server, what, facts = question.server, question.what, question.tool
        key = (server, what.type, what.name, what.template, facts)
        entities = parsed.targets.get(key)
        if entities is None:
            delta = json.dumps(target_entities(server, what, facts, subject.match.linked))
            entities = parsed.base.with_added_json_str(delta, self._schema)
            if len(parsed.targets) >= TARGETS_CAP:
                parsed.targets.clear()
            parsed.targets[key] = entities
        return entities


def _policy_set(loaded: Sequence[Policy]) -> str:
    sections: dict[str, dict[str, Any]] = {"staticPolicies": {}, "templates": {}}
    for policy in loaded:
        sections["templates" if policy.template else "staticPolicies"][policy.id] = policy.body
    return json.dumps({**sections, "templateLinks": []})


def _digest(schema: str, layers: Sequence[Layer]) -> str:
    content = json.dumps([schema, *([layer.name, layer.text] for layer in layers)])
    return hashlib.sha256(b"attestd policy v1\n" + content.encode()).hexdigest()


def _unparsable(text: str) -> int:
    lines = statement_lines(text)
    for position, statement in enumerate(statements(text)):
        try:
            cedarpy.policies_to_json_str(statement)
        except ValueError:
            return lines[position] if position < len(lines) else 1
    return 1


def _datetime(now_ns: int) -> str:
    return (_EPOCH + timedelta(milliseconds=now_ns // 1_000_000)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
