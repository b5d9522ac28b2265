"""What the events say, as one bounded table of processes, dead and alive. Pure: the clock and /proc are handed in.

Rules:
- A record lasts as long as the bound allows. What goes first: dead processes that nothing remembered descends from, the
  longest dead first; then other dead ones, whose children then have unknown lineage; then living ones.
- A loss begins a new epoch. A record of an earlier epoch may be of a process that has ended, its pid reused, its
  threads and programs changed: before it becomes a parent or changes it is compared with /proc once. Counters of
  what lived through a loss are lower bounds for ever.
- A process found in /proc that no event announced was there before us (``pre_attach``) or was born in a loss (``gap``).
- An end is told a moment after those who wait for it learn of it, even after the pid is used again.
- A process has ended when its last thread has. Where the number of threads is not known, /proc is asked as soon as the
  first thread has ended.
- Events carry the time of the event, not the start time of the process, which is a little earlier. A record's start is
  therefore an upper bound until /proc has confirmed it; a key matches a record born at most ``LATE_NS`` later.
- Events name the *real parent*: a child made with CLONE_PARENT is shown as its maker's sibling, here as in /proc.

Times are nanoseconds since boot; ``offset_ns`` turns the monotonic times of events into them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from attestd.evidence.recorder import ImageFacts, ProcessKey, ProcessRecord
from attestd.kernel.linux.connector.glance import TICK_NS, UNKNOWN_UID, Glance

LIMIT = 32768
LATE_NS = 500_000_000
"""Far less than pids take to come round again, far more than a fork is held up."""
_THREADS_UNKNOWN = -1
_LEADER_GONE = -2


class Entry:
    """One process as the table remembers it."""

    __slots__ = (
        "birth_epoch",
        "born_ns",
        "children",
        "comm",
        "counter",
        "death_epoch",
        "epoch",
        "evicted",
        "exact",
        "exec_ns",
        "exited_ns",
        "forked_ns",
        "gap",
        "image",
        "older",
        "parent",
        "pid",
        "pre_attach",
        "threads",
        "uid",
    )

    def __init__(self, pid: int, born_ns: int, epoch: int, parent: Entry | None) -> None:
        self.pid = pid
        self.born_ns = self.forked_ns = born_ns
        self.exact = False
        self.parent = parent
        self.older: Entry | None = None
        self.children = 0
        self.threads = 1
        self.counter = 0
        self.exec_ns = 0
        self.exited_ns: int | None = None
        self.epoch = self.birth_epoch = epoch
        self.death_epoch = -1
        self.pre_attach = self.gap = self.evicted = False
        self.uid = UNKNOWN_UID
        self.comm = ""
        self.image: ImageFacts | None = None

    def same_start(self, start_ns: int) -> bool:
        """Whether this is the process that /proc says started in the tick of ``start_ns``."""
        if self.exact:
            return self.born_ns == start_ns
        return 0 <= self.born_ns - start_ns <= LATE_NS + TICK_NS


class Table:
    """The processes. A ``Sink`` of the feed. Not safe for several threads at once."""

    def __init__(self, look: Callable[[int], Glance | None], attach_ns: int, limit: int = LIMIT) -> None:
        self._look = look
        self._attach_ns = attach_ns
        self._limit = limit
        self._latest: dict[int, Entry] = {}
        self._leaves: OrderedDict[Entry, None] = OrderedDict()
        self._inner: OrderedDict[Entry, None] = OrderedDict()
        self._count = 0
        self.offset_ns = 0
        self.epoch = 0
        self.dirty = False
        """Events were lost since the last complete look at /proc."""
        self.losses = 0
        self.executed: list[Entry] = []
        """Who executed something since this list was emptied last; bounded by whoever reads the feed."""

    def __len__(self) -> int:
        return self._count

    def fork(self, time_ns: int, parent: int, tid: int, pid: int) -> None:
        """See ``Sink``."""
        if tid != pid:
            entry = self._latest.get(pid)
            if entry is not None and entry.threads > 0:
                entry.threads += 1
            return
        now = time_ns + self.offset_ns
        before = self._latest.get(pid)
        mother = self._parent(parent, now)
        replaced = False
        if before is not None and before.exited_ns is None:
            if _shown_first(before, now):
                _announce(before, mother)
                return
            self._bury(before, now)
            replaced = True
        entry = Entry(pid, now, self.epoch, mother)
        if replaced:
            entry.threads = _THREADS_UNKNOWN  # the other's end may still be told, and must not be taken for this one's
        if mother is None:
            entry.gap = True
        else:
            entry.uid, entry.comm, entry.image = mother.uid, mother.comm, mother.image
        self._add(entry)

    def exec(self, time_ns: int, pid: int) -> None:
        """See ``Sink``."""
        entry = self._living(pid)
        if entry is None:
            return
        entry.counter += 1
        entry.exec_ns = time_ns + self.offset_ns
        entry.comm, entry.image = "", None
        if entry.threads == _LEADER_GONE:
            entry.threads = _THREADS_UNKNOWN
        self.executed.append(entry)

    def exit(self, time_ns: int, tid: int, pid: int) -> None:
        """See ``Sink``."""
        entry = self._latest.get(pid)
        if entry is None or entry.exited_ns is not None:
            return
        if entry.epoch == self.epoch and entry.threads > 0:
            entry.threads -= 1
            if entry.threads:
                return
        else:
            if tid == pid:
                entry.threads = _LEADER_GONE
            elif entry.threads != _LEADER_GONE:
                return
            glance = self._look(pid)
            if glance is not None and glance.alive and entry.same_start(glance.start_ns):
                return
        self._bury(entry, time_ns + self.offset_ns)

    def uid(self, pid: int, uid: int) -> None:
        """See ``Sink``."""
        entry = self._living(pid)
        if entry is not None:
            entry.uid = uid

    def comm(self, pid: int, name: bytes) -> None:
        """See ``Sink``."""
        entry = self._living(pid)
        if entry is not None:
            entry.comm = name.partition(b"\0")[0].decode("utf-8", "replace")

    def lost(self, count: int, *, fresh: bool) -> None:
        """See ``Sink``."""
        self.losses += count
        if fresh:
            self.epoch += 1
            self.dirty = True

    def observe(self, glance: Glance) -> Entry:
        """Take in what /proc says of a process: confirm its record or make one."""
        entry = self._latest.get(glance.pid)
        if entry is not None and entry.same_start(glance.start_ns):
            if entry.exited_ns is not None and glance.alive:
                self._revive(entry)
            self._confirm(entry, glance)
            return entry
        if entry is not None and entry.exited_ns is None:
            self._bury(entry, max(entry.born_ns, glance.start_ns))
        entry = Entry(glance.pid, glance.start_ns, self.epoch, None)
        entry.exact = True
        entry.threads = _THREADS_UNKNOWN
        entry.pre_attach = glance.start_ns < self._attach_ns
        entry.gap = not entry.pre_attach
        entry.uid, entry.comm = glance.uid, glance.comm
        self._add(entry)
        if not glance.alive:
            self._bury(entry, glance.start_ns)
        return entry

    def unconfirmed(self) -> list[int]:
        """Pids of living records that were not compared with /proc since the last loss."""
        return [e.pid for e in self._latest.values() if e.exited_ns is None and e.epoch != self.epoch]

    def missing(self, pid: int, now_ns: int) -> None:
        """/proc has no such process now: what is recorded as living under this pid has ended unseen."""
        entry = self._latest.get(pid)
        if entry is not None and entry.exited_ns is None:
            self._bury(entry, now_ns)

    def find(self, key: ProcessKey) -> Entry | None:
        """The record of a record's own key, or of one whose start time is cut to the tick.

        Of several processes that had the pid within one tick, the living one is meant.
        """
        found = None
        cut = key.start_ns % TICK_NS == 0
        entry = self._latest.get(key.pid)
        if entry is not None and cut and not entry.exact:
            self.settle(entry)
        while entry is not None:
            if entry.born_ns == key.start_ns:
                return entry
            if cut and not entry.exact and 0 <= entry.born_ns - key.start_ns <= LATE_NS + TICK_NS:
                found = entry  # and on to an older one: the first that was born after the start is meant
            entry = entry.older
        return found

    def settle(self, entry: Entry) -> None:
        """Confirm the start time, and learn a name, of a living record; what is settled already costs nothing."""
        if entry.exited_ns is not None or (entry.exact and entry.comm):
            return
        glance = self._look(entry.pid)
        if glance is not None and entry.same_start(glance.start_ns):
            self._confirm(entry, glance)

    def ancestors(self, entry: Entry, limit: int) -> Iterator[Entry]:
        """The process and those before it, up to pid 1, a process older than us or unknown lineage."""
        current: Entry | None = entry
        for _ in range(limit):
            if current is None:
                return
            _forget_evicted(current)
            yield current
            if current.pid == 1 or current.pre_attach or current.gap:
                return
            current = current.parent

    def record(self, entry: Entry) -> ProcessRecord:
        """The entry as it is handed out."""
        _forget_evicted(entry)
        self.settle(entry)
        parent = entry.parent
        if parent is not None:
            self.settle(parent)
        return ProcessRecord(
            key=ProcessKey(entry.pid, entry.born_ns),
            parent=None if parent is None else ProcessKey(parent.pid, parent.born_ns),
            exec_counter=entry.counter,
            image=entry.image,
            uid=entry.uid,
            cgroup_id=0,
            forked_ns=entry.forked_ns,
            exec_ns=entry.exec_ns,
            exited_ns=entry.exited_ns,
            comm=entry.comm,
            pre_attach=entry.pre_attach,
            gap=entry.gap,
            image_claimed=entry.image is not None,
            counter_exact=entry.birth_epoch == (self.epoch if entry.exited_ns is None else entry.death_epoch),
            parent_exact=False,
        )

    def _parent(self, pid: int, now: int) -> Entry | None:
        """Who has this pid at the time of a fork: an event's, or what /proc still shows of a time before ``now``."""
        entry = self._living(pid)
        if entry is not None:
            return entry
        glance = self._look(pid)
        if glance is None or not glance.alive or glance.start_ns > now:
            return None
        return self.observe(glance)

    def _living(self, pid: int) -> Entry | None:
        """The living record of a pid, compared with /proc if events were lost since it was last."""
        entry = self._latest.get(pid)
        if entry is None or entry.exited_ns is not None:
            return None
        if entry.epoch != self.epoch:
            glance = self._look(pid)
            if glance is None or not entry.same_start(glance.start_ns):
                return None
            self._confirm(entry, glance)
        return entry

    def _confirm(self, entry: Entry, glance: Glance) -> None:
        entry.born_ns, entry.exact = glance.start_ns, True
        entry.comm = glance.comm
        if glance.uid != UNKNOWN_UID:
            entry.uid = glance.uid
        if entry.exited_ns is None and entry.epoch != self.epoch:
            entry.epoch = self.epoch
            if entry.threads != _LEADER_GONE:
                entry.threads = _THREADS_UNKNOWN

    def _add(self, entry: Entry) -> None:
        if entry.parent is not None:
            entry.parent.children += 1
        entry.older = self._latest.get(entry.pid)
        self._latest[entry.pid] = entry
        self._count += 1
        while self._count > self._limit:
            self._evict()

    def _bury(self, entry: Entry, now: int) -> None:
        entry.exited_ns = now
        entry.death_epoch = self.epoch
        (self._inner if entry.children else self._leaves)[entry] = None

    def _revive(self, entry: Entry) -> None:
        """Take back an end that was concluded wrongly from a lossy count of threads."""
        self._leaves.pop(entry, None)
        self._inner.pop(entry, None)
        entry.exited_ns = None
        entry.threads = _THREADS_UNKNOWN

    def _evict(self) -> None:
        if self._leaves:
            entry, _ = self._leaves.popitem(last=False)
        elif self._inner:
            entry, _ = self._inner.popitem(last=False)
        else:
            entry = next(iter(self._latest.values()))
        self._unlink(entry)
        self._count -= 1
        parent, entry.parent, entry.evicted = entry.parent, None, True
        if parent is not None:
            parent.children -= 1
            if not parent.children and parent in self._inner:
                del self._inner[parent]
                self._leaves[parent] = None

    def _unlink(self, entry: Entry) -> None:
        latest = self._latest[entry.pid]
        if latest is entry:
            if entry.older is None:
                del self._latest[entry.pid]
            else:
                self._latest[entry.pid] = entry.older
        while latest.older is not None:
            if latest.older is entry:
                latest.older = entry.older
                return
            latest = latest.older


def _shown_first(entry: Entry, now: int) -> bool:
    """Whether a fork at ``now`` is the birth of an entry that /proc showed before the event was read."""
    return (entry.gap or entry.pre_attach) and entry.exact and 0 <= now - entry.born_ns <= LATE_NS + TICK_NS


def _announce(entry: Entry, mother: Entry | None) -> None:
    entry.pre_attach = False
    entry.gap = mother is None
    if entry.parent is None and mother is not None:
        entry.parent = mother
        mother.children += 1


def _forget_evicted(entry: Entry) -> None:
    if entry.parent is not None and entry.parent.evicted:
        entry.parent, entry.gap = None, True
