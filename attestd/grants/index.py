"""Grants in memory, found by who holds them, so that other programs' grants cost a caller nothing.

Two keys: (uid, program kind, program, server) for deciding, and (uid, server, lineage or title) for finding the
approval that an updated program had before. Both hold every grant that was not revoked, also expired ones: "expired"
is a better answer than "no grant".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from attestd.appraisal.model import AttestationResult
from attestd.grants.match import package_name
from attestd.grants.model import Grant

Owner = tuple[int, str, str, str]
K = TypeVar("K")


class GrantIndex:
    """Grants by id, by owner and by name. Not thread-safe."""

    def __init__(self) -> None:
        self._by_id: dict[str, Grant] = {}
        self.get: Callable[[str], Grant | None] = self._by_id.get
        """The grant with this id, or None."""
        self._by_owner: dict[Owner, dict[str, Grant]] = {}
        self._by_name: dict[tuple[int, str, str], dict[str, Grant]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Grant]:
        return iter(self._by_id.values())

    def put(self, grant: Grant) -> None:
        """Add, or replace by id."""
        self.drop(grant.id)
        self._by_id[grant.id] = grant
        self._by_owner.setdefault(_owner(grant), {})[grant.id] = grant
        for name in _names(grant):
            self._by_name.setdefault(name, {})[grant.id] = grant

    def drop(self, grant_id: str) -> Grant | None:
        """Remove and return; None if absent."""
        grant = self._by_id.pop(grant_id, None)
        if grant is None:
            return None
        _discard(self._by_owner, _owner(grant), grant_id)
        for name in _names(grant):
            _discard(self._by_name, name, grant_id)
        return grant

    def own(self, result: AttestationResult, server: str) -> tuple[Grant, ...]:
        """The caller's own grants on this server; the cost depends on their number only."""
        programs = [("exact", result.program)]
        if result.package:
            programs += [("package", package_name(result.package)), ("lineage", result.lineage)]
        found: dict[str, Grant] = {}
        for kind, program in programs:
            if program:
                found.update(self._by_owner.get((result.uid, kind, program, server), {}))
        return tuple(found[grant_id] for grant_id in sorted(found))

    def predecessor(self, result: AttestationResult, server: str) -> Grant | None:
        """The youngest grant with the same lineage, or failing that with the same title (see ``difference``)."""
        for name in (f"lineage {result.lineage}" if result.lineage else "", f"title {result.title}"):
            held = self._by_name.get((result.uid, server, name)) if name else None
            if held:
                return max(held.values(), key=lambda grant: (grant.created_ns, grant.id))
        return None


def _owner(grant: Grant) -> Owner:
    return grant.subject.uid, grant.subject.program_kind, grant.subject.program, grant.object.server


def _names(grant: Grant) -> tuple[tuple[int, str, str], ...]:
    if grant.identity is None:
        return ()
    words = [f"title {grant.identity.title}"]
    if grant.identity.lineage:
        words.append(f"lineage {grant.identity.lineage}")
    return tuple((grant.subject.uid, grant.object.server, word) for word in words)


def _discard(index: dict[K, dict[str, Grant]], key: K, grant_id: str) -> None:
    held = index.get(key)
    if held is not None:
        held.pop(grant_id, None)
        if not held:
            del index[key]
