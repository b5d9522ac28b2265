"""A recorder over a simulated machine: it implements ``attestd.evidence.recorder.Recorder`` and has behaviour.

The machine is driven by ``boot``, ``fork``, ``execute``, ``exit`` and ``connect``; what happens inside ``losing`` is
not recorded, only counted, and shows as a gap. With ``fallback`` it knows no words, images or connections, as the real
one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from attestd.evidence.recorder import Connection, ExecEvent, ImageFacts, Losses, ProcessKey, ProcessRecord

TICK_NS = 10_000_000
_STEP_NS = 12_345_678
"""What each step of the machine takes: more than a tick, and never a whole number of them."""


@dataclass(slots=True, eq=False)
class Simulated:
    """One process of the machine, and whether it was recorded."""

    key: ProcessKey
    parent: Simulated | None
    comm: str
    uid: int
    counter: int = 0
    image: ImageFacts | None = None
    exec_ns: int = 0
    exited_ns: int | None = None
    pre_attach: bool = False
    gap: bool = False
    counter_exact: bool = True
    events: list[ExecEvent] = field(default_factory=list)


class FakeRecorder:
    """See the module."""

    def __init__(self, *, fallback: bool = False) -> None:
        self._fallback = fallback
        self._processes: list[Simulated] = []
        self._connections: dict[int, Connection] = {}
        self._now = 1_000 * TICK_NS
        self._last_pid = 100
        self._last_cookie = 0
        self._losing = False
        self._lost = 0
        self._epochs = 0
        self._closed = False

    # ---- the machine

    def boot(self, comm: str = "init", pid: int = 1, uid: int = 0) -> ProcessKey:
        """A process that was there before the recorder."""
        new = Simulated(ProcessKey(pid, self._tick()), None, comm, uid, pre_attach=True)
        self._processes.append(new)
        return new.key

    def fork(self, parent: ProcessKey, pid: int | None = None) -> ProcessKey:
        """A child of a living process; ``pid`` makes it use that one again."""
        mother = self._get(parent)
        if pid is None:
            self._last_pid += 1
        new = Simulated(ProcessKey(pid or self._last_pid, self._tick()), mother, mother.comm, mother.uid)
        new.counter, new.image, new.events = mother.counter, mother.image, list(mother.events)
        if self._losing:
            new.parent, new.gap, new.counter_exact = None, True, False
            self._lost += 1
        self._processes.append(new)
        return new.key

    def execute(
        self,
        key: ProcessKey,
        *argv: str,
        environ: tuple[bytes, ...] = (),
        cwd: str = "/",
        image: ImageFacts | None = None,
    ) -> None:
        """The process executes ``argv[0]``."""
        process = self._get(key)
        process.exec_ns = self._tick()
        if self._losing:
            self._lost += 1
            process.counter_exact = False
            return
        process.counter += 1
        process.comm = argv[0].rpartition("/")[2][:15]
        process.image = None if self._fallback else image or _image(argv[0])
        event = ExecEvent(
            key=key,
            exec_counter=process.counter,
            argv=tuple(word.encode() for word in argv),
            environ=environ,
            cwd=cwd,
            cwd_dev=1,
            cwd_ino=2,
            filename=argv[0],
            interp=argv[0],
            truncated=False,
            time_ns=process.exec_ns,
        )
        process.events.append(event)

    def exit(self, key: ProcessKey) -> None:
        """The process ends and is reaped."""
        process = self._get(key)
        process.exited_ns = self._tick()
        self._lost += self._losing

    def connect(self, key: ProcessKey, family: int = 2) -> int:
        """The process connects a new socket; its cookie."""
        self._last_cookie += 1
        self._connections[self._last_cookie] = Connection(
            cookie=self._last_cookie,
            key=key,
            exec_counter=self._get(key).counter,
            family=family,
            time_ns=self._tick(),
        )
        return self._last_cookie

    @contextlib.contextmanager
    def losing(self) -> Iterator[None]:
        """What happens meanwhile is lost; nobody's counter is certain afterwards."""
        self._losing = True
        self._epochs += 1
        for process in self._processes:
            if process.exited_ns is None:
                process.counter_exact = False
        try:
            yield
        finally:
            self._losing = False

    # ---- the protocol

    def state(self) -> tuple[str, str]:
        """``on``, or ``fallback``, or ``absent`` once closed."""
        if self._closed:
            return "absent", "the recorder was closed"
        return ("fallback" if self._fallback else "on"), "simulated"

    def process(self, key: ProcessKey) -> ProcessRecord | None:
        """By a record's own key, or by one that is cut to the tick."""
        found = self._find(key)
        return None if found is None else self._record(found)

    def exec_counter(self, key: ProcessKey) -> int | None:
        """See ``Recorder``."""
        found = self._find(key)
        return None if found is None or found.exited_ns is not None else found.counter

    def lineage(self, key: ProcessKey, limit: int = 32) -> tuple[ProcessRecord, ...]:
        """See ``Recorder``."""
        found: list[ProcessRecord] = []
        current = self._find(key)
        while current is not None and len(found) < limit:
            found.append(self._record(current))
            current = None if current.pre_attach or current.gap else current.parent
        return tuple(found)

    def exec_event(self, key: ProcessKey, exec_counter: int) -> ExecEvent | None:
        """See ``Recorder``."""
        process = self._find(key)
        if process is None or self._fallback:
            return None
        return next((event for event in process.events if event.exec_counter == exec_counter), None)

    def connection(self, cookie: int) -> Connection | None:
        """See ``Recorder``."""
        return None if self._fallback or self._closed else self._connections.get(cookie)

    def losses(self) -> Losses:
        """See ``Recorder``."""
        return Losses(exec_events=0, fork_events=0, dirty_epochs=self._epochs, unknown_events=self._lost)

    def close(self) -> None:
        """Knows nothing from now on. Idempotent."""
        self._closed = True

    def _find(self, key: ProcessKey) -> Simulated | None:
        if self._closed:
            return None
        return next((each for each in reversed(self._processes) if _means(key, each.key)), None)

    def _get(self, key: ProcessKey) -> Simulated:
        found = next((each for each in reversed(self._processes) if _means(key, each.key)), None)
        if found is None or found.exited_ns is not None:
            raise ProcessLookupError(f"no living process {key} on the simulated machine")
        return found

    def _tick(self) -> int:
        self._now += _STEP_NS
        return self._now

    def _record(self, process: Simulated) -> ProcessRecord:
        return ProcessRecord(
            key=process.key,
            parent=None if process.parent is None else process.parent.key,
            exec_counter=process.counter,
            image=process.image,
            uid=process.uid,
            cgroup_id=0,
            forked_ns=process.key.start_ns,
            exec_ns=process.exec_ns,
            exited_ns=process.exited_ns,
            comm=process.comm,
            pre_attach=process.pre_attach,
            gap=process.gap,
            counter_exact=process.counter_exact,
            parent_exact=not self._fallback,
        )


def _means(key: ProcessKey, other: ProcessKey) -> bool:
    cut = key.start_ns % TICK_NS == 0
    start = other.start_ns - other.start_ns % TICK_NS if cut else other.start_ns
    return key.pid == other.pid and key.start_ns == start


def _image(path: str) -> ImageFacts:
    return ImageFacts(dev=1, ino=sum(path.encode()), generation=0, size=1, ctime_ns=0)
