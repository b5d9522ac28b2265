"""Log lines for whoever reads standard error: the journal gets each line's priority, a terminal gets words.

Nothing of a message can make a line of its own with another priority: every line of it is prefixed.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import TextIO

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


class JournalFormatter(logging.Formatter):
    """``<N>`` before each line, as sd-daemon(3) defines it."""

    def format(self, record: logging.LogRecord) -> str:
        """All lines of one record."""
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG)
        text = "".join(c if c == "\n" or c.isprintable() else " " for c in super().format(record))
        return "\n".join(f"<{priority}>{line}" for line in text.split("\n"))


@contextlib.contextmanager
def logging_to(stream: TextIO, environ: Mapping[str, str]) -> Iterator[None]:
    """Meanwhile what attestd logs goes to ``stream``; in the journal's format where the manager reads it there."""
    handler = logging.StreamHandler(stream)
    if _is_journal(stream, environ.get("JOURNAL_STREAM", "")):
        handler.setFormatter(JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    log = logging.getLogger("attestd")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _is_journal(stream: TextIO, said: str) -> bool:
    """Whether the manager says so of this very stream: a redirected one is another file."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return said == f"{found.st_dev}:{found.st_ino}"
