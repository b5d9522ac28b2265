"""What verification found, and how places in the log are named. Pure."""

from __future__ import annotations

import msgspec

from attestd.audit.model import Head

MAX_PROBLEMS = 1000


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it was written."""

    seq: int
    """The record: the damaged, changed, missing or moved one; for a checkpoint the record that would follow it."""
    segment: int
    offset: int
    """In the segment file, bytes."""
    what: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result of verifying a log."""

    ok: bool
    records: int
    segments: int
    head: Head
    problems: tuple[Problem, ...]
    checkpoints: int = 0
    """Checkpoints whose signature and content are right."""
    unsealed: int = 0
    """Records after the last of these: a signature does not cover them yet."""
    incomplete_tail: int = 0
    """Bytes of a last frame that a running daemon is just writing."""
    first_key: str = ""
    """The public key that the chain of keys began with, as vkey."""


class Findings:
    """Collects problems; after MAX_PROBLEMS it only counts."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._more = 0

    def __len__(self) -> int:
        return len(self._problems)

    def add(self, seq: int, segment: int, offset: int, what: str) -> None:
        """Note one problem."""
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(Problem(seq=max(0, seq), segment=segment, offset=offset, what=what))
        else:
            self._more += 1

    def sorted(self) -> tuple[Problem, ...]:
        """By record, the first problem first."""
        problems = sorted(self._problems, key=lambda problem: (problem.seq, problem.segment, problem.offset))
        if self._more:
            last = problems[-1]
            what = f"{self._more} more problems are not listed"
            problems.append(Problem(seq=last.seq, segment=last.segment, offset=last.offset, what=what))
        return tuple(problems)


def records(first: int, last: int) -> str:
    """``record 3`` or ``records 3 to 7``."""
    return f"record {first}" if first == last else f"records {first} to {last}"
