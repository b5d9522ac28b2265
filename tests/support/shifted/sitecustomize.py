"""A wall clock that a test can set: on the daemon's PYTHONPATH it adds the nanoseconds in the file $SHIFT."""

from __future__ import annotations

import os
import time
from pathlib import Path

_true_ns = time.time_ns


def _shifted_ns() -> int:
    try:
        return _true_ns() + int(Path(os.environ["SHIFT"]).read_text())
    except (OSError, ValueError, KeyError):
        return _true_ns()


time.time_ns = _shifted_ns
time.time = lambda: _shifted_ns() / 1e9
