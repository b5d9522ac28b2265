"""The recorder as a daemon needs it: opened when there, opened again after an upgrade, else absent.

Rules: ``state`` is asked once for each attestation and is what looks again, at most once a second; the other questions
go to whatever is open. A reader that was replaced is closed with the daemon, not before, for a thread may still be
asking it. In a pid or time namespace of our own, pids and start times are not those that the kernel records: absent.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

from attestd.errors import AttestdError
from attestd.evidence.protocol import AbsentRecorder
from attestd.evidence.recorder import Connection, ExecEvent, Losses, ProcessKey, ProcessRecord, Recorder
from attestd.kernel.linux.recorder import pins
from attestd.kernel.linux.recorder.reader import BpfRecorder

if sys.platform != "linux":
    raise ImportError("cannot use the kernel recorder on this platform: it needs Linux")

LOOK_AGAIN_NS = 1_000_000_000
_INITIAL = {"pid": "pid:[4026531836]", "time": "time:[4026531834]"}


def namespace_objection() -> str:
    """Why what the kernel records cannot be compared with what this process sees; empty if it can."""
    for kind, initial in _INITIAL.items():
        try:
            ours = os.readlink(f"/proc/self/ns/{kind}")
        except FileNotFoundError:  # a kernel without that kind of namespace
            continue
        except OSError as error:
            return f"the {kind} namespace cannot be read: {(error.strerror or 'unreadable').lower()}"
        if ours != initial:
            return f"this daemon is in a {kind} namespace of its own"
    return ""


def open_recorder(root: str = pins.ROOT) -> Recorder:
    """What is pinned under ``root``; else an absent recorder with the exact reason."""
    objection = namespace_objection()
    if objection:
        return AbsentRecorder(f"the kernel recorder cannot be used: {objection}")
    try:
        return BpfRecorder.open(root)
    except AttestdError as error:
        return AbsentRecorder(f"{error.message}; {error.hint}" if error.hint else error.message)


class FollowedRecorder:
    """Implements ``attestd.evidence.recorder.Recorder``. Safe for several threads."""

    def __init__(self, open_one: Callable[[], Recorder] = open_recorder) -> None:
        self._open = open_one
        self._lock = threading.Lock()
        self._retired: list[Recorder] = []
        self._closed = False
        self._begin(open_one())

    def state(self) -> tuple[str, str]:
        """As the recorder says, with what was lost since it was opened; looks for a new one where there is none."""
        found = self._current.state()
        if found[0] != "on":
            self._look_again()
            found = self._current.state()
        if found[0] != "on":
            return found
        lost = self._lost_since()
        return ("on", f"{found[1]}, {lost} fork and exit events lost") if lost else found

    def process(self, key: ProcessKey) -> ProcessRecord | None:
        """See ``Recorder``."""
        return self._current.process(key)

    def exec_counter(self, key: ProcessKey) -> int | None:
        """See ``Recorder``."""
        return self._current.exec_counter(key)

    def lineage(self, key: ProcessKey, limit: int = 32) -> tuple[ProcessRecord, ...]:
        """See ``Recorder``."""
        return self._current.lineage(key, limit)

    def exec_event(self, key: ProcessKey, exec_counter: int) -> ExecEvent | None:
        """See ``Recorder``."""
        return self._current.exec_event(key, exec_counter)

    def connection(self, cookie: int) -> Connection | None:
        """See ``Recorder``."""
        return self._current.connection(cookie)

    def losses(self) -> Losses:
        """See ``Recorder``."""
        return self._current.losses()

    def close(self) -> None:
        """Close every reader. Idempotent; afterwards the recorder is absent."""
        with self._lock:
            self._closed = True
            ending, self._retired = [*self._retired, self._current], []
            self._begin(AbsentRecorder("the reader is closed"))
        for each in ending:
            each.close()

    def _begin(self, recorder: Recorder) -> None:
        self._current = recorder
        self._baseline = recorder.losses().fork_events
        self._looked_ns = time.monotonic_ns()

    def _lost_since(self) -> int:
        return self._current.losses().fork_events - self._baseline

    def _look_again(self) -> None:
        with self._lock:
            if self._closed or time.monotonic_ns() - self._looked_ns < LOOK_AGAIN_NS:
                return
            newer = self._open()
            if newer.state()[0] == "absent":
                newer.close()
                if isinstance(self._current, AbsentRecorder):
                    self._current = newer
                self._looked_ns = time.monotonic_ns()
                return
            self._retired.append(self._current)
            self._begin(newer)
