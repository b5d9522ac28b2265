"""What belongs to whom on one server: tasks and request states. For anyone but the owner they do not exist.

The owner is an attested identity, not a connection. A ``sole`` binding has one owner for as long as it is remembered:
tasks of a back end that many callers share. Others may have several, each of whom the server itself gave the value:
two back ends number their tasks alike, and a state such as ``step 2`` is the same for everybody who comes that far.
Pure; bounded: the oldest binding goes first, and what is forgotten belongs to nobody, which refuses.
"""

from __future__ import annotations

from collections import OrderedDict

Owner = tuple[int, str, str]
"""uid, program digest, chain digest."""


class Bindings:
    """Bindings of one server, shared by its sessions."""

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        self._sole: OrderedDict[tuple[str, str], Owner] = OrderedDict()
        self._joint: OrderedDict[tuple[str, str, Owner], None] = OrderedDict()

    def bind(self, kind: str, value: str, owner: Owner, *, sole: bool) -> bool:
        """Give ``value`` to ``owner``. False, and no change, if it is the sole property of somebody else."""
        key = (kind, value)
        holder = self._sole.get(key, owner)
        if holder != owner:
            return False
        if sole:
            self._sole[key] = owner
            self._sole.move_to_end(key)
        else:
            self._joint[kind, value, owner] = None
            self._joint.move_to_end((kind, value, owner))
        for remembered in (self._sole, self._joint):
            if len(remembered) > self._limit:
                remembered.popitem(last=False)
        return True

    def owns(self, kind: str, value: str, owner: Owner) -> bool:
        """Whether ``value`` is this owner's."""
        return self._sole.get((kind, value)) == owner or (kind, value, owner) in self._joint
