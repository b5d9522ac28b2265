"""Interleaved rounds: A B A B, so that whatever else the machine does falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(
    rounds: int,
    work: Mapping[str, Callable[[], object]],
    *,
    warm: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Run each of ``work`` once per round, in turn; the seconds of every run by name, ``warm`` rounds left out.

    ``clock`` may be ``time.thread_time`` for work that never waits: then others on the same CPU do not count.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + warm):
        for name, run in work.items():
            start = clock()
            run()
            if number >= warm:
                times[name].append(clock() - start)
    return times


def medians(times: Mapping[str, list[float]], scale: float = 1.0) -> dict[str, float]:
    """The median of each, times ``scale``."""
    return {name: statistics.median(values) * scale for name, values in times.items()}
