"""The clock of one message."""

from __future__ import annotations

import time

from attestd.enforcement.clock import MessageClock


def test_time_is_read_once():
    """The wall clock stands still for one message; the time since it was read goes on."""
    before = time.time_ns()
    clock = MessageClock()
    first = clock.now_ns
    assert before <= first <= time.time_ns()
    elapsed = clock.elapsed_ns()
    assert 0 <= elapsed <= clock.elapsed_ns()
    assert clock.now_ns == first
