"""The short list of differences that are meant: ``expected.toml``, one entry each with its reason.

A pattern is matched against ``group | case | step`` with ``*`` for anything. An entry that matches nothing is stale, and
a stale entry fails the run like an unexpected difference: the list only ever says what is true now.
"""

from __future__ import annotations

import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

SHOWN = 300
"""Letters of each side."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that came out otherwise through attestd."""

    group: str
    """suite, client or matrix, with the version."""
    case: str
    """Scenario, or client and server and front."""
    step: str
    direct: str
    mediated: str

    @property
    def key(self) -> str:
        """What patterns are matched against."""
        return f"{self.group} | {self.case} | {self.step}"

    @property
    def sides(self) -> str:
        """Both, one below the other, for people."""
        return f"          direct:   {self.direct[:SHOWN]}\n          mediated: {self.mediated[:SHOWN]}"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted difference."""

    match: str
    reason: str


LIST = Path(__file__).with_name("expected.toml")


def entries(path: Path = LIST) -> list[Entry]:
    """The list."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    found = [Entry(match=each["match"], reason=each["reason"]) for each in document.get("difference", [])]
    for entry in found:
        if len(entry.reason) < 20:
            raise ValueError(f"the entry {entry.match!r} has no reason")
    return found


def judge(
    differences: list[Difference], accepted: list[Entry], groups: set[str]
) -> tuple[list[Difference], list[tuple[Difference, Entry]], list[Entry]]:
    """Unexpected differences, expected ones with their reasons, and entries of these groups that matched nothing."""
    unexpected: list[Difference] = []
    expected: list[tuple[Difference, Entry]] = []
    used: set[str] = set()
    for difference in differences:
        matching = [entry for entry in accepted if fnmatchcase(difference.key, entry.match)]
        used.update(entry.match for entry in matching)
        if matching:
            expected.append((difference, matching[0]))
        else:
            unexpected.append(difference)
    stale = [entry for entry in accepted if entry.match not in used and entry.match.split(" | ")[0] in groups]
    return unexpected, expected, stale
