"""One attested caller on one server, prepared for deciding; and what the engine keeps of it while it is asked about.

Belongs to the engine that made it and to the grants it was made from: after a reload, or when the caller's grants
change, ask the engine for a new one. That a grant ends in time needs no new subject: ``until_ns`` says when this one
stops being true, and the engine then continues with a narrower one.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from attestd.appraisal.model import AttestationResult
from attestd.decision.cache import Verdicts
from attestd.evidence.model import Evidence
from attestd.grants.match import Match


class Parsed:
    """What Cedar needs of one subject: its own grants linked, its entities parsed. Kept by the engine, not for ever."""

    __slots__ = ("base", "links", "targets")

    def __init__(self, *, links: Any, base: Any) -> None:
        self.links = links
        """The engine's policy set with this caller's own grants linked."""
        self.base = base
        """The caller's entities, validated."""
        self.targets: dict[Hashable, Any] = {}
        """Entities with those of one target added."""


class Subject:
    """Opaque outside decision/. Immutable but for the narrower subject, which is remembered."""

    __slots__ = (
        "evidence",
        "generation",
        "key",
        "match",
        "narrower",
        "once",
        "owner",
        "principal",
        "result",
        "since_ns",
        "until_ns",
        "verdicts",
    )

    def __init__(
        self,
        *,
        owner: object,
        generation: str,
        number: int,
        result: AttestationResult,
        evidence: Evidence,
        match: Match,
        until_ns: int | None,
        verdicts: Verdicts,
    ) -> None:
        self.owner = owner
        """What only the engine that made this subject has, so that no other will decide with it."""
        self.generation = generation
        """Digest of the policy set that this subject belongs to."""
        self.key = f"{generation}:{number}"
        """Names this subject where the engine keeps something of it; never used twice."""
        self.result = result
        self.evidence = evidence
        self.match = match
        self.verdicts = verdicts
        """What was decided about it already."""
        self.until_ns = until_ns
        """From then on a linked grant has ended."""
        self.since_ns = max(
            (grant.created_ns for grant in match.linked if grant.lifetime.until_ns is not None), default=0
        )
        """Before then the clock contradicts a linked grant."""
        self.principal = {"type": "Process", "id": result.instance}
        self.once = frozenset(grant.id for grant in match.linked if grant.lifetime.kind == "once")
        self.narrower: Subject | None = None

    @property
    def grants(self) -> tuple[str, ...]:
        """Ids of the linked grants."""
        return tuple(grant.id for grant in self.match.linked)
