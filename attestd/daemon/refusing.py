"""Refusals outside sessions: recorded singly, or counted where the same user has many."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from attestd.audit.protocol import Entry
from attestd.audit.refusals import Refusals
from attestd.errors import AuditUnavailableError, Cause
from attestd.evidence.model import Peer

if TYPE_CHECKING:
    from attestd.daemon.app import Daemon


class Refusing:
    """Of one daemon, by uid."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._refusals: dict[int, Refusals] = {}

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
        for uid, refusals in list(self._refusals.items()):
            try:
                refusals.settle(time.time_ns(), end=end)
            except AuditUnavailableError as error:
                self._daemon.trouble(error.message)
            if refusals.idle:
                del self._refusals[uid]
