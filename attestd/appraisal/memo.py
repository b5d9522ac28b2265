"""What an appraisal said of evidence that has not changed.

Rules: an appraisal is a function of the evidence, of the class table, the reference values and the naming; it reads no
clock and no system. So a result may be said again for equal evidence, as long as a memo belongs to one table, one set
of references and one naming (``attestd.appraisal.appraiser``; a reload makes another). Evidence counts as equal if
every link *is* the same object and every other field is equal, except ``collected_ns``, which no appraisal reads.
Links are frozen and the kernel gives out the same object only while it finds every fact of the process unchanged; the
memo holds the links that it knows, so that their identity cannot pass to others. Bounded, the oldest goes first. Safe
for several threads.
"""

from __future__ import annotations

from typing import Any, Final

from attestd.appraisal.model import AttestationResult
from attestd.evidence.model import Evidence, Link

CAPACITY: Final = 32
"""Chains that are remembered; each holds its links, which the cache of processes mostly holds as well."""

Key = tuple[Any, ...]
_COMPARED: Final = tuple(name for name in Evidence.__struct_fields__ if name not in {"chain", "collected_ns"})


class Memo:
    """Results by evidence."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[Key, tuple[tuple[Link, ...], AttestationResult]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def find(self, evidence: Evidence) -> AttestationResult | None:
        """What was said of equal evidence, or None."""
        known = self._known.get(_key(evidence))
        return None if known is None else known[1]

    def keep(self, evidence: Evidence, result: AttestationResult) -> None:
        """Remember."""
        known = self._known
        while len(known) >= CAPACITY:
            known.pop(next(iter(tuple(known))), None)
        known[_key(evidence)] = (evidence.chain, result)


def _key(evidence: Evidence) -> Key:
    return (*map(id, evidence.chain), *[getattr(evidence, name) for name in _COMPARED])
