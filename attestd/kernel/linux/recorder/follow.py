"""The recorder as a daemon needs it, a ladder: the kernel recorder, else process events, else nothing.

Rules: ``state`` is asked once for each attestation and is what looks again, at most once a second; the other questions
go to whatever is in use, and ``exec_counter`` looks again as well, so that a session does not outlive the recorder that
it was decided with. The kernel recorder is taken as soon as it is there, and left for process events as soon as it is
not; those are opened and closed by a thread of their own, for both take a while, and where they are refused they are
asked for again after a minute, not sooner. What was left is closed and knows nothing any more. In a pid or time
namespace of our own, pids and start times are not those that the kernel records: absent.
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
ASK_AGAIN_NS = 60_000_000_000
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

    def __init__(
        self,
        open_one: Callable[[], Recorder] = open_recorder,
        open_fallback: Callable[[], Recorder] | None = None,
    ) -> None:
        """``open_fallback`` None: without process events. Waits until they are there, or refused."""
        self._open = open_one
        self._open_fallback = open_fallback
        self._lock = threading.Lock()
        self._leaving: list[threading.Thread] = []
        self._closed = False
        self._errand: threading.Thread | None = None
        self._refused_ns: int | None = None
        self._asked_ns = 0
        self._why_not_on = self._why_no_events = ""
        self._begin(open_one())
        with self._lock:
            if self._current.state()[0] == "absent":
                self._descend(self._current.state()[1])
        if self._errand is not None:
            self._errand.join()

    def state(self) -> tuple[str, str]:
        """As what is in use says, with what was lost since it was opened and why it is nothing better."""
        found = self._current.state()
        if found[0] != "on":
            self._look_again()
            found = self._current.state()
        if found[0] == "on":
            lost = self._lost_since()
            return ("on", f"{found[1]}, {lost} fork and exit events lost") if lost else found
        if found[0] == "fallback":
            return "fallback", f"{found[1]}; instead of the kernel recorder: {self._why_not_on}"
        if isinstance(self._current, AbsentRecorder) and not self._closed:
            return "absent", "; ".join(filter(None, (self._why_not_on, self._why_no_events)))
        return found

    def process(self, key: ProcessKey) -> ProcessRecord | None:
        """See ``Recorder``."""
        return self._current.process(key)

    def exec_counter(self, key: ProcessKey) -> int | None:
        """See ``Recorder``; None as soon as the recorder is seen to be gone."""
        if time.monotonic_ns() - self._asked_ns > LOOK_AGAIN_NS:
            self._asked_ns = time.monotonic_ns()
            self.state()
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
            errands = [*self._leaving, *((self._errand,) if self._errand is not None else ())]
        for each in errands:
            each.join()
        with self._lock:
            ending = self._current
            self._begin(AbsentRecorder("the reader is closed"))
        ending.close()

    def _begin(self, recorder: Recorder) -> None:
        self._current = recorder
        self._baseline = recorder.losses().fork_events
        self._looked_ns = time.monotonic_ns()
        self._asked_ns = self._looked_ns

    def _lost_since(self) -> int:
        return self._current.losses().fork_events - self._baseline

    def _look_again(self) -> None:
        with self._lock:
            if self._closed or time.monotonic_ns() - self._looked_ns < LOOK_AGAIN_NS:
                return
            newer = self._open()
            state, reason = newer.state()
            if state == "on":
                left = self._current
                self._begin(newer)
                self._leave(left)
                return
            newer.close()
            self._looked_ns = time.monotonic_ns()
            self._descend(reason)

    def _descend(self, reason: str) -> None:
        """There is no kernel recorder: whatever of it is in use is left, and process events are asked for."""
        self._why_not_on = reason
        if self._current.state()[0] == "fallback" or self._errand is not None:
            return
        if not isinstance(self._current, AbsentRecorder):
            left = self._current
            self._begin(AbsentRecorder(reason))
            self._leave(left)
            self._refused_ns = None
        refused_lately = self._refused_ns is not None and time.monotonic_ns() - self._refused_ns < ASK_AGAIN_NS
        if self._open_fallback is None or refused_lately:
            return
        self._why_no_events = "process events are being asked for"
        self._send(self._take_fallback)

    def _take_fallback(self) -> None:
        if self._open_fallback is None:
            return
        found = self._open_fallback()
        state, reason = found.state()
        with self._lock:
            self._errand = None
            unwanted = self._closed or self._current.state()[0] == "on"
            if state == "fallback" and not unwanted:
                self._begin(found)
                return
            self._why_no_events, self._refused_ns = reason, time.monotonic_ns()
        found.close()

    def _leave(self, left: Recorder) -> None:
        """Close what is not in use any more, without waiting for it."""
        ending = threading.Thread(target=left.close, name="attestd-leave", daemon=True)
        ending.start()
        self._leaving = [each for each in self._leaving if each.is_alive()] + [ending]

    def _send(self, errand: Callable[[], None]) -> None:
        self._errand = threading.Thread(target=errand, name="attestd-ladder", daemon=True)
        self._errand.start()
