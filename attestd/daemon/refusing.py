"""Refusals outside sessions: recorded singly, or counted where the same user has many.

Those of a session are its own to count; how many are recorded singly there depends on how many sessions its user has
begun: on a system installation nobody fills the log of all users by being refused in ever new sessions.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from attestd.audit.protocol import Entry
from attestd.audit.refusals import Refusals
from attestd.errors import AuditUnavailableError, Cause
from attestd.evidence.model import Peer

if TYPE_CHECKING:
    from attestd.daemon.app import Daemon


FULL_SESSIONS = 30
"""Sessions of one user in a minute whose refusals are recorded as the settings say; those of more, one of a kind."""
MINUTE_S = 60.0


class Refusing:
    """Of one daemon, by uid."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._refusals: dict[int, Refusals] = {}
        self._sessions: dict[int, tuple[float, int]] = {}
        """By uid: when its minute began, and the sessions that it has begun since."""

    def singly(self, uid: int) -> int:
        """How many refusals that are alike a new session of this user may have on record one by one, in a minute."""
        limit = self._daemon.settings.limits.refusals_per_minute
        if self._daemon.paths.user_mode:
            return limit
        now = self._daemon.loop.time()
        began, count = self._sessions.get(uid, (now, 0))
        if now - began >= MINUTE_S:
            began, count = now, 0
        self._sessions[uid] = (began, count + 1)
        return limit if count < FULL_SESSIONS else 1

    def turned_away(self, server: str, peer: Peer | None, cause: Cause, text: str) -> None:
        """A connection that never became a session."""
        self.note(
            Entry(
                kind="session",
                server=server,
                method="open",
                verdict="deny",
                cause=cause.value,
                uid=-1 if peer is None else peer.uid,
                pid=0 if peer is None else peer.pid,
                detail={"why": text[:256]},
            )
        )

    def note(self, entry: Entry) -> None:
        """Record a refusal outside sessions, or count it where the same user has many."""
        if entry.uid not in self._refusals:
            self._refusals[entry.uid] = Refusals(self._daemon.audit, self._daemon.settings.limits.refusals_per_minute)
        try:
            self._refusals[entry.uid].note(entry, time.time_ns())
        except AuditUnavailableError as error:
            self._daemon.trouble(error.message)

    def settle(self, *, end: bool) -> None:
        """Record how many there were, where the minute is over."""
        now = self._daemon.loop.time()
        self._sessions = {uid: since for uid, since in self._sessions.items() if now - since[0] < MINUTE_S}
        for uid, refusals in list(self._refusals.items()):
            try:
                refusals.settle(time.time_ns(), end=end)
            except AuditUnavailableError as error:
                self._daemon.trouble(error.message)
            if refusals.idle:
                del self._refusals[uid]
