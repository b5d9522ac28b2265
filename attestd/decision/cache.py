"""Which parts of a request's context a policy set reads, and verdicts remembered on exactly those.

A decision is a function of the policy set, the caller's entities, the target's facts and the context. Each subject has
verdicts of its own, which go with it; the key holds the target's facts and the context, cut down to the attributes that
any policy reads. Where a policy uses the context as a whole, or the time, nothing is remembered. Projection and cache
belong to one engine and are dropped with it, so a reload can never be answered from what an older set of policies read.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from operator import attrgetter
from typing import Any
from weakref import WeakValueDictionary

from attestd.decision.model import RequestContext, Verdict

FIELDS: dict[str, str] = {
    "protocol_version": "protocol_version",
    "transport": "transport",
    "hour": "hour",
    "weekday": "weekday",
    "now": "now_ns",
    "args_sha256": "args_sha256",
    "args_size": "args_size",
    "calls_in_session": "calls_in_session",
}
"""Context attribute of the schema to field of ``RequestContext``."""
VOLATILE = frozenset({"now"})
"""Attributes that differ on every request."""
CAPACITY = 50_000

Projection = Callable[[RequestContext], Hashable]


def context_reads(policies: Iterable[Any]) -> frozenset[str] | None:
    """Context attributes that the conditions of these policies (Cedar's JSON form) read; None: all of it."""
    reads: set[str] = set()
    pending: list[Any] = [policy.get("conditions", []) for policy in policies]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending += node
        elif isinstance(node, dict):
            if node.get("Var") == "context":
                return None
            for operator, operand in node.items():
                attribute = _context_attribute(operator, operand)
                if attribute is None:
                    pending.append(operand)
                else:
                    reads.add(attribute)
    return frozenset(reads)


def projection(reads: frozenset[str] | None) -> Projection | None:
    """The function that cuts a context down to what is read; None: decisions must not be remembered."""
    if reads is None or reads & VOLATILE or not reads <= FIELDS.keys():
        return None
    fields = [FIELDS[attribute] for attribute in sorted(reads)]
    if not fields:
        return nothing
    return attrgetter(*fields)


class Verdicts(dict[Hashable, Verdict]):
    """Of one subject, which holds them."""


class DecisionCache:
    """The verdicts of every subject of one engine; all are emptied when there are too many."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._room = capacity
        self._all: WeakValueDictionary[int, Verdicts] = WeakValueDictionary()

    def __len__(self) -> int:
        return sum(map(len, self._all.values()))

    def verdicts(self, number: int) -> Verdicts:
        """A subject's own, none yet. ``number``: never used twice."""
        made = self._all[number] = Verdicts()
        return made

    def put(self, verdicts: Verdicts, key: Hashable, verdict: Verdict) -> None:
        """Remember. The caller has made sure that the verdict is not an error and not for one use."""
        if self._room <= 0:
            held = len(self)  # fewer than were put: subjects go
            if held >= self._capacity:
                held = 0
                for each in self._all.values():
                    each.clear()
            self._room = self._capacity - held
        self._room -= 1
        verdicts[key] = verdict


def nothing(context: RequestContext) -> Hashable:
    """The projection of policies that read nothing of the context: the same of every one."""
    del context
    return None


def _context_attribute(operator: str, operand: Any) -> str | None:
    if operator in (".", "has") and isinstance(operand, dict) and operand.get("left") == {"Var": "context"}:
        attribute = operand.get("attr")
        return attribute if isinstance(attribute, str) else None
    return None
