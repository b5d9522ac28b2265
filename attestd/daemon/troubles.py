"""The last errors, for ``status``: those of the service, and those that are the affair of one user.

What one user meets is told to that user and to administrators, and pushes nobody else's out.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime

LAST = 20
"""Errors that are kept of the service, and of each user."""
USERS = 256
"""Users whose errors are kept: those who met one last."""

Trouble = tuple[datetime, str]


class Troubles:
    """Of one daemon."""

    def __init__(self) -> None:
        self._kept: dict[int | None, deque[Trouble]] = {None: deque(maxlen=LAST)}

    def add(self, text: str, uid: int | None = None) -> bool:
        """Keep one; False: it says what the one before said."""
        kept = self._kept.pop(uid, None) if uid is not None else self._kept[None]
        if kept is None:
            kept = deque(maxlen=LAST)
        self._kept[uid] = kept  # last in the order: the one who met an error last
        new = not kept or kept[-1][1] != text
        kept.append((datetime.now(UTC), text))
        while len(self._kept) > USERS + 1:
            del self._kept[next(each for each in self._kept if each is not None)]
        return new

    def seen(self, sees: int | None, count: int = LAST) -> tuple[Trouble, ...]:
        """The last that exist for whoever sees this (None: everybody's), oldest first."""
        if sees is not None:
            return tuple(self._kept.get(sees, ()))[-count:]
        return tuple(sorted(each for kept in self._kept.values() for each in kept))[-count:]
