"""Snapshots of processes seen before, so that a second connection of the same chain costs microseconds.

Rules: a snapshot is found by pid and used only if the process it holds is alive (its pid is then taken and cannot be
another's) and ``Snapshot.current`` finds every fact unchanged. Facts are kept here, never verdicts. The table is
bounded, drops the least recently used first, and with each new entry looks at two others, in turn, and drops those
whose process is gone, so that the descriptors of the dead do not pile up, whoever lives. Safe for several threads.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from collections import OrderedDict, deque

from attestd.errors import EvidenceError
from attestd.evidence.model import Link
from attestd.evidence.recorder import ProcessRecord
from attestd.kernel.linux.access import Access
from attestd.kernel.linux.process import Process
from attestd.kernel.linux.reading import Sources
from attestd.kernel.linux.snapshot import Marked, Snapshot, observe

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

MAX_ENTRIES = 1024
LOOKED_AT = 2
"""Others that each new entry looks at: more than one, so that the dead become fewer than the living."""
_DESCRIPTORS_PER_ENTRY = 5
_SHARE_OF_LIMIT = 4


def default_limit() -> int:
    """As many entries as a quarter of the soft limit on descriptors holds, at most 1024."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_ENTRIES
    return max(16, min(MAX_ENTRIES, soft // (_DESCRIPTORS_PER_ENTRY * _SHARE_OF_LIMIT)))


class Observed:
    """A link, a handle on its process (None: dead) owned by whoever asked, and what the recorder knows of it."""

    __slots__ = ("link", "marked", "process", "record")

    def __init__(
        self,
        link: Link,
        process: Process | None,
        record: ProcessRecord | None = None,
        marked: Marked | None = None,
    ) -> None:
        self.link = link
        self.process = process
        self.record = record
        self.marked: Marked = {} if marked is None else marked
        """Of the snapshot: see ``Snapshot.marked``."""


class ProcessTable:
    """Observes processes through a bounded cache."""

    def __init__(self, sources: Sources, limit: int | None = None) -> None:
        self.sources = sources
        self._limit = default_limit() if limit is None else limit
        self._lock = threading.Lock()
        self._snapshots: OrderedDict[int, Snapshot] = OrderedDict()
        self._turns: deque[int] = deque()
        """The pids of the table: the next that is looked at comes first, whoever is alive goes to the end."""

    def observe(self, pid: int, access: Access, pidfd: int | None = None) -> Observed:
        """The link of process ``pid``. ``pidfd``, a descriptor of that very process, is not taken over.

        Raises:
            EvidenceError: PEER_GONE, INCONSISTENT.
            PermissionError: the process is hidden from us.
        """
        known = self._find(pid)
        if known is not None:
            if self._holds(known, access):
                return Observed(known.link, known.process, known.record, known.marked)
            known.process.close()
        process = Process.open(pid, None if pidfd is None else os.dup(pidfd))
        fresh = observe(process, self.sources, access)
        self._keep(fresh)
        return Observed(fresh.link, fresh.process, fresh.record, fresh.marked)

    def close(self) -> None:
        """Give up every snapshot; watches keep their own processes."""
        with self._lock:
            dropped = list(self._snapshots.values())
            self._snapshots.clear()
            self._turns.clear()
        for snapshot in dropped:
            snapshot.process.close()

    def _find(self, pid: int) -> Snapshot | None:
        """The snapshot, its process retained for the caller."""
        with self._lock:
            found = self._snapshots.get(pid)
            if found is not None:
                found.process.retain()
                self._snapshots.move_to_end(pid)
            return found

    def _holds(self, known: Snapshot, access: Access) -> bool:
        try:
            return known.current(access)
        except EvidenceError:
            return False

    def _keep(self, fresh: Snapshot) -> None:
        """Keep a snapshot as a second user of its process."""
        fresh.process.retain()
        dropped: list[Snapshot] = []
        with self._lock:
            previous = self._snapshots.pop(fresh.process.pid, None)
            if previous is not None:
                dropped.append(previous)
            for _ in range(min(LOOKED_AT, len(self._snapshots))):
                dropped += self._looked_at()
            if previous is None:
                self._turns.append(fresh.process.pid)
            self._snapshots[fresh.process.pid] = fresh
            while len(self._snapshots) > self._limit:
                pid, least = self._snapshots.popitem(last=False)
                self._turns.remove(pid)
                dropped.append(least)
        for snapshot in dropped:
            snapshot.process.close()

    def _looked_at(self) -> list[Snapshot]:
        """Look at the next one of the table; it, if its process is gone."""
        pid = self._turns.popleft()
        known = self._snapshots.get(pid)
        if known is not None and known.process.exited():
            return [self._snapshots.pop(pid)]
        self._turns.append(pid)
        return []
