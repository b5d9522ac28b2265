"""Refusals on record, without a flood of them. Pure.

1. Of refusals that are alike (kind, server, cause, method, name) the first few of a minute are recorded one by one. The
   others are counted, and one record says how many: when the minute is over, and when the session ends.
2. Names are the caller's to choose: after ``KINDS`` different ones in a minute, the others are alike by cause alone, of
   which the first is recorded.
3. A minute begins with a refusal. What cannot be written is counted on.
4. A permit never comes here: each is a record of its own, before its effect.
"""

from __future__ import annotations

import contextlib

import msgspec

from attestd.audit.protocol import AuditLog, Entry
from attestd.errors import AuditUnavailableError

MINUTE_NS = 60_000_000_000
SINGLY = 20
"""Refusals that are alike, recorded one by one in a minute, where nothing else is configured."""
KINDS = 16
"""Different refusals that a minute tells apart."""

Like = tuple[str, ...]


class Counted(msgspec.Struct):
    """Refusals that are not on record yet."""

    last: Entry
    times: int
    first_ns: int
    last_ns: int


class Refusals:
    """Of one session, or of the connections of one user."""

    __slots__ = ("_began_ns", "_counted", "_limit", "_log", "_singly", "_standing")

    def __init__(self, log: AuditLog, limit: int = SINGLY) -> None:
        """``limit``: how many alike are recorded one by one in a minute, at least 1."""
        self._log = log
        self._limit = limit
        self._began_ns = 0
        self._singly: dict[Like, int] = {}
        self._standing: dict[Like, str] = {}
        self._counted: dict[Like, Counted] = {}

    @property
    def idle(self) -> bool:
        """Whether no minute is under way."""
        return not self._singly

    def note(self, entry: Entry, now_ns: int) -> str:
        """Record or count one refusal; the id of the record that stands for it.

        Raises AuditUnavailableError where a record was due: then it is neither.
        """
        if self._singly and not 0 <= now_ns - self._began_ns < MINUTE_NS:
            with contextlib.suppress(AuditUnavailableError):  # the minute goes on
                self.settle(now_ns)
        if not self._singly:
            self._began_ns = now_ns
        like: Like = (entry.kind, entry.server, entry.cause, entry.method, entry.name)
        limit = self._limit
        if like not in self._singly and len(self._singly) >= KINDS:
            like, limit = like[:3], 1
        recorded = self._singly.get(like, 0)
        if recorded < limit:
            self._log.append(entry, now_ns)
            self._singly[like] = recorded + 1
            self._standing[like] = entry.id
            return entry.id
        counted = self._counted.get(like)
        if counted is None:
            self._counted[like] = Counted(entry, 1, now_ns, now_ns)
        else:
            counted.last, counted.last_ns = entry, now_ns
            counted.times += 1
        return self._standing[like]

    def settle(self, now_ns: int, *, end: bool = False) -> None:
        """Record what was counted if the minute is over, or at once when it is the ``end``.

        Raises AuditUnavailableError; what is not written is kept.
        """
        if not self._singly or (not end and 0 <= now_ns - self._began_ns < MINUTE_NS):
            return
        for like, counted in list(self._counted.items()):
            self._log.append(_summary(like, counted, self._standing[like]), now_ns)
            del self._counted[like]
        self._singly.clear()
        self._standing.clear()

    def unwritten(self) -> int:
        """How many refusals are counted and not on record."""
        return sum(counted.times for counted in self._counted.values())


def _summary(like: Like, counted: Counted, standing: str) -> Entry:
    """One record for many: what they share, how many they were, and the id of the one that was recorded."""
    alike = {"method": "", "name": ""} if len(like) == 3 else {}
    return msgspec.structs.replace(
        counted.last,
        **alike,
        args_sha256="",
        latency_ns=0,
        detail={
            "times": counted.times,
            "first_ns": counted.first_ns,
            "last_ns": counted.last_ns,
            **({"like": standing} if standing else {}),
        },
    )
