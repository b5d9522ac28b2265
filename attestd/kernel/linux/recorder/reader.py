"""Reads what the recorder keeps: the door to ``attestd.evidence.recorder.Recorder`` on Linux with BPF.

Opening needs read permission on the pins and no capability. Who may also write the ring (root, or the group of ``load
--group``) and is the first to lock the set takes the exec events, in a thread that sleeps until a quarter of the ring
is waiting; a second reader answers from the maps alone and knows the words of living processes only. Maps of another
layout are refused. A reader notices when its maps are no longer written: ``state`` then says so. Safe for several
threads; once closed it knows nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import struct
import sys
import threading

import msgspec

from attestd.evidence.recorder import Connection, ExecEvent, Losses, ProcessKey, ProcessRecord
from attestd.kernel.linux.recorder import bpf, layout, pins
from attestd.kernel.linux.recorder.failures import READERS, AbsentError, LayoutError, RecorderError, refused
from attestd.kernel.linux.recorder.load import LINKS
from attestd.kernel.linux.recorder.ring import Ring
from attestd.kernel.linux.recorder.words import WordStore, decode

if sys.platform != "linux":
    raise ImportError("cannot use the kernel recorder on this platform: it needs Linux")

_SHAPES = {
    "alive": (layout.KEY.size, layout.PROCESS.size),
    "dead": (layout.KEY.size, layout.PROCESS.size),
    "connects": (layout.COOKIE.size, layout.CONNECTION.size),
    "stats": (4, 8),
    "state": (4, layout.STATE.size),
    "words_of_living": (layout.KEY.size, layout.WORDS_BYTES),
    "words_of_task": (4, layout.WORDS_BYTES),
}
_COUNTER = struct.Struct("<3Q")
"""The head of a process record: start time, the parent's, exec counter."""
_OPTIONAL = "words_of_task"
_ANCESTORS_MAX = 32
_PROGRAMS = ("on_fork", "on_exec", "on_exit")
_HINT = "run attestd-recorder load with the attestd that the daemon uses"


class BpfRecorder:
    """The loaded recorder. ``open`` makes one; ``close`` ends its thread and gives everything back."""

    def __init__(self, directory: str, fds: dict[str, int]) -> None:
        self._directory = directory
        self._fds = fds
        self._lock = threading.RLock()
        self._events_lock = threading.RLock()
        self._alive = bpf.Lookup(fds["alive"], *_SHAPES["alive"])
        self._dead = bpf.Lookup(fds["dead"], *_SHAPES["dead"])
        self._connects = bpf.Lookup(fds["connects"], *_SHAPES["connects"])
        self._state = bpf.Lookup(fds["state"], *_SHAPES["state"])
        self._words = bpf.Lookup(fds["words_of_living"], *_SHAPES["words_of_living"])
        self._carried = bpf.Lookup(fds[_OPTIONAL], *_SHAPES[_OPTIONAL]) if _OPTIONAL in fds else None
        self._store = WordStore()
        self._ring: Ring | None = None
        self._thread: threading.Thread | None = None
        self._stop = -1
        self._ring_failure = ""

    @classmethod
    def open(cls, root: str = pins.ROOT, *, consume: bool = True) -> BpfRecorder:
        """Open what is pinned. ``consume`` False leaves the exec events to another reader.

        Raises:
            AbsentError: nothing is loaded.
            LayoutError: another version loaded it.
            NotPermittedError: the pins may not be read.
        """
        directory = pins.current(root)
        with contextlib.ExitStack() as undo:
            fds: dict[str, int] = {}
            opened = undo.enter_context(contextlib.ExitStack())
            _open_maps(root, fds, opened)
            reader = cls(directory, fds)
            opened.pop_all()
            undo.callback(reader.close)
            if consume:
                reader._consume()
            undo.pop_all()
        return reader

    # ---- the protocol

    def state(self) -> tuple[str, str]:
        """``on`` while it records; ``absent`` once it was unloaded or replaced: then open it again."""
        with self._lock:
            if not self._fds:
                return "absent", "the reader is closed"
            now = self.told()
        if now.replaced_ns:
            return "absent", "the kernel recorder was unloaded or replaced"
        try:
            for link in LINKS:
                os.stat(f"{self._directory}/{link}")
        except OSError as error:
            return "absent", f"the kernel recorder is not attached: {link}: {os.strerror(error.errno or 0).lower()}"
        if self._ring_failure:
            return "on", self._ring_failure
        return "on", f"build {now.build.hex()[:12]}, layout {now.layout}"

    def process(self, key: ProcessKey) -> ProcessRecord | None:
        """The record of one process, alive or dead."""
        with self._lock:
            for table in (self._alive, self._dead, self._alive):  # twice: it may move from one to the other meanwhile
                layout.KEY.pack_into(table.key, 0, key.start_ns // layout.TICK_NS, key.pid, 0)
                if self._fds and table.find():
                    return _exact(layout.process(table.value), key)
        return None

    def exec_counter(self, key: ProcessKey) -> int | None:
        """Of a living process, in one lookup."""
        with self._lock:
            table = self._alive
            layout.KEY.pack_into(table.key, 0, key.start_ns // layout.TICK_NS, key.pid, 0)
            if not self._fds or not table.find():
                return None
            start_ns, _, counter = _COUNTER.unpack_from(table.value)
        return None if key.start_ns % layout.TICK_NS and key.start_ns != start_ns else int(counter)

    def lineage(self, key: ProcessKey, limit: int = 32) -> tuple[ProcessRecord, ...]:
        """The process and its ancestors; ``gap`` on the last one says that its parent is no longer remembered."""
        found: list[ProcessRecord] = []
        wanted: ProcessKey | None = key
        while wanted is not None and len(found) < limit:
            record = self.process(wanted)
            if record is None:
                if found:
                    found[-1] = msgspec.structs.replace(found[-1], gap=True)
                break
            found.append(record)
            wanted = None if record.pre_attach or record.gap else record.parent
        return tuple(found)

    def exec_event(self, key: ProcessKey, exec_counter: int) -> ExecEvent | None:
        """The words of one exec, while they are remembered.

        A process that was forked and executed nothing since has those of the ancestor whose image it runs; the event's
        own key says whose they are.
        """
        wanted: ProcessKey | None = key
        for _ in range(_ANCESTORS_MAX):
            record = None if wanted is None else self.process(wanted)
            if record is None:
                return None
            found = self._words_of(record.key, exec_counter)
            if found is not None or record.exec_ns > record.forked_ns or record.pre_attach or record.gap:
                return found
            wanted = record.parent
        return None

    def connection(self, cookie: int) -> Connection | None:
        """Who called connect on the socket with that cookie."""
        with self._lock:
            layout.COOKIE.pack_into(self._connects.key, 0, cookie)
            found = self._fds and self._connects.find()
            return layout.connection(cookie, self._connects.value) if found else None

    def losses(self) -> Losses:
        """Exact. ``fork_events`` also counts execs and exits that found no room, and runs that the kernel left out."""
        with self._lock:
            if not self._fds:
                return Losses(exec_events=0, fork_events=0, dirty_epochs=0)
            lost = self.lost()
            missed = {name: bpf.recursion_misses(self._fds[f"program_{name}"]) for name in _PROGRAMS}
        forks = lost[layout.LOST_FORK] + lost[layout.LOST_DEAD] + sum(missed.values())
        return Losses(
            exec_events=lost[layout.LOST_EXEC] + missed["on_exec"], fork_events=forks, dirty_epochs=int(forks > 0)
        )

    def lost(self) -> tuple[int, ...]:
        """Every counter of losses, in the order of ``layout.LOST_NAMES``."""
        return tuple(
            int.from_bytes(bpf.map_get(self._fds["stats"], struct.pack("<I", which), 8), "little")
            for which in range(len(layout.LOST_NAMES))
        )

    def told(self) -> layout.State:
        """What the loader wrote about what is loaded."""
        with self._lock:
            self._state.find()
            return layout.state(self._state.value.raw)

    def map_bytes(self) -> int:
        """What the maps occupy, as the kernel accounts them; the words of the living grow with the processes."""
        ring = bpf.pinned(f"{self._directory}/events", bpf.RDONLY)
        with bpf.closing(ring):
            return sum(bpf.map_memory(fd) for name, fd in self._fds.items() if name in _SHAPES) + bpf.map_memory(ring)

    def close(self) -> None:
        """End the thread, release every descriptor. Idempotent."""
        if self._thread is not None:
            os.eventfd_write(self._stop, 1)
            self._thread.join()
            self._thread = None
        with self._events_lock, self._lock:
            if self._ring is not None:
                self._ring.close()
                self._ring = None
            if self._stop >= 0:
                os.close(self._stop)
                self._stop = -1
            for fd in self._fds.values():
                os.close(fd)
            self._fds.clear()

    # ---- words

    def _words_of(self, key: ProcessKey, exec_counter: int) -> ExecEvent | None:
        with self._events_lock:
            self._drain()
            found = self._store.get(key.pid, key.start_ns, exec_counter)
        return found if found is not None else self._words_of_living(key, exec_counter)

    def _words_of_living(self, key: ProcessKey, exec_counter: int) -> ExecEvent | None:
        event = self._words_in_place(key)
        if event is None:
            event = self._words_carried(key)
        return event if event is not None and (event.key, event.exec_counter) == (key, exec_counter) else None

    def _words_in_place(self, key: ProcessKey) -> ExecEvent | None:
        """A place may be given back and taken by another process while it is copied: then its head is another's after.

        What is still found under this key, of the same exec, was not given back meanwhile.
        """
        with self._lock:
            layout.KEY.pack_into(self._words.key, 0, key.start_ns // layout.TICK_NS, key.pid, 0)
            if not self._fds or not self._words.find():
                return None
            copied = self._words.value.raw
            if not self._words.find() or self._words.value.raw[: layout.WORDS.size] != copied[: layout.WORDS.size]:
                return None
        return decode(copied)

    def _words_carried(self, key: ProcessKey) -> ExecEvent | None:
        """Of a process that found no place when it executed."""
        if self._carried is None:
            return None
        try:
            pidfd = os.pidfd_open(key.pid)
        except OSError:
            return None
        try:
            with self._lock:
                struct.pack_into("<i", self._carried.key, 0, pidfd)
                return decode(self._carried.value.raw) if self._fds and self._carried.find() else None
        except OSError as error:
            if error.errno == errno.ESRCH:
                return None
            raise
        finally:
            os.close(pidfd)

    def _consume(self) -> None:
        """Take the exec events, unless another reader does."""
        lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._fds["lock"] = lock
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._ring_failure = "another reader takes the exec events: words of the living only"
            return
        try:
            self._fds["events"] = bpf.pinned(f"{self._directory}/events")
        except PermissionError:
            self._ring_failure = "the ring may not be written: words of the living only"
            return
        kind, _, _, size, _ = bpf.map_shape(self._fds["events"])
        if kind != 27 or size & (size - 1):
            raise LayoutError(f"cannot read the ring: kind {kind} of {size} bytes, expected 27", hint=_HINT)
        self._ring = Ring(self._fds["events"], size)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._ring.waker.register(self._stop, select.EPOLLIN)
        self._thread = threading.Thread(target=self._follow, name="attestd-recorder", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        ring = self._ring
        while ring is not None:
            ready = [fd for fd, _ in ring.waker.poll()]
            if self._stop in ready:
                return
            with self._events_lock:
                self._drain()

    def _drain(self) -> None:
        if self._ring is None or self._ring_failure:
            return
        try:
            for event in self._ring.drain():
                self._store.add(event)
        except RecorderError as error:
            self._ring_failure = error.message


def _open_maps(root: str, fds: dict[str, int], opened: contextlib.ExitStack) -> None:
    """Open every map and program into ``fds``; ``opened`` closes them. Raises as ``BpfRecorder.open``."""
    directory = pins.current(root)

    def open_one(name: str, pin: str, flags: int) -> None:
        fds[name] = bpf.pinned(f"{directory}/{pin}", flags)
        opened.callback(os.close, fds[name])

    try:
        pins.verify_owner(root, directory)
        open_one("state", "state", bpf.RDONLY)
    except FileNotFoundError:
        raise AbsentError("the kernel recorder is not loaded", hint="run attestd-recorder load as root") from None
    except OSError as error:
        raise refused("open the kernel recorder", error, hint=READERS) from None
    _verify_layout(fds["state"])
    try:
        for name in _SHAPES:
            with contextlib.suppress(FileNotFoundError) if name == _OPTIONAL else contextlib.nullcontext():
                if name not in fds:
                    open_one(name, name, bpf.RDONLY)
        for name in _PROGRAMS:
            open_one(f"program_{name}", f"program_{name}", 0)
    except OSError as error:
        raise refused("open the kernel recorder", error, hint=READERS) from None
    for name, expected in _SHAPES.items():
        sizes = bpf.map_shape(fds[name])[1:3] if name in fds else expected
        if sizes != expected:
            raise LayoutError(
                f"cannot read the kernel recorder: {name} has sizes {sizes}, expected {expected}", hint=_HINT
            )


def _verify_layout(fd: int) -> None:
    shape = bpf.map_shape(fd)[1:3]
    told = layout.state(bpf.map_get(fd, bytes(4), shape[1])) if shape == _SHAPES["state"] else None
    if told is None or told.magic != layout.MAGIC or told.layout != layout.LAYOUT_VERSION:
        got = f"layout {told.layout}" if told is not None else f"a state of {shape[1]} bytes"
        raise LayoutError(
            f"cannot read the kernel recorder: it has {got}, expected layout {layout.LAYOUT_VERSION}", hint=_HINT
        )


def _exact(record: ProcessRecord, key: ProcessKey) -> ProcessRecord | None:
    """The record, unless the caller knows the start time to the nanosecond and it is another's."""
    return None if key.start_ns % layout.TICK_NS and key.start_ns != record.key.start_ns else record
