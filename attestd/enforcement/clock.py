"""The clock of one message: read when the message is, and never again."""

from __future__ import annotations

import time


class MessageClock:
    """Implements ``attestd.mediation.Clock``."""

    __slots__ = ("_started", "now_ns")

    def __init__(self) -> None:
        self.now_ns = time.time_ns()
        self._started = time.perf_counter_ns()

    def elapsed_ns(self) -> int:
        """Monotonic nanoseconds since the message was read."""
        return time.perf_counter_ns() - self._started
