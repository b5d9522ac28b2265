"""What belongs to whom on one server: tasks and request states. For anyone but the owner they do not exist.

The owner is an attested identity, not a connection. A ``sole`` binding has one owner for as long as it is remembered:
tasks of a back end that many callers share. Others may have several, each of whom the server itself gave the value:
two back ends number their tasks alike, and a state such as ``step 2`` is the same for everybody who comes that far.
Pure; bounded: beyond the limit the oldest binding of the uid that has most goes, so nobody's server pushes out what
belongs to others; a long value is remembered by its digest. What is forgotten belongs to nobody, which refuses.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

Owner = tuple[int, str, str]
"""uid, program digest, chain digest."""
WHOLE = 64
"""Characters of a value that is remembered as it is; a digest with its prefix is longer."""


class Bindings:
    """Bindings of one server, shared by its sessions."""

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._sole: dict[tuple[str, str], Owner] = {}
        self._of_uid: dict[int, OrderedDict[tuple[str, str, Owner, bool], None]] = {}
        self._count = 0

    def bind(self, kind: str, value: str, owner: Owner, *, sole: bool) -> bool:
        """Give ``value`` to ``owner``. False, and no change, if it is the sole property of somebody else."""
        value = _short(value)
        holder = self._sole.get((kind, value), owner)
        if holder != owner:
            return False
        held = self._of_uid.setdefault(owner[0], OrderedDict())
        entry = (kind, value, owner, sole)
        self._count += entry not in held
        held[entry] = None
        held.move_to_end(entry)
        if sole:
            self._sole[kind, value] = owner
        if self._count > self._limit:
            self._forget()
        return True

    def owns(self, kind: str, value: str, owner: Owner) -> bool:
        """Whether ``value`` is this owner's."""
        value = _short(value)
        return self._sole.get((kind, value)) == owner or (kind, value, owner, False) in self._of_uid.get(owner[0], ())

    def _forget(self) -> None:
        most = max(self._of_uid.values(), key=len)
        (kind, value, _, sole), _ = most.popitem(last=False)
        self._count -= 1
        if sole:
            del self._sole[kind, value]


def _short(value: str) -> str:
    if len(value) <= WHOLE:
        return value
    return "sha256:" + hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
