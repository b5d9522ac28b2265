"""The machine of a run of the tests: this one, or a Mac that mirrors it (``--machine darwin``; ``mac_entry``).

Every test that starts attestd or makes a kernel room runs on both, unless it is marked ``linux`` or ``darwin`` with the
reason why it needs that one. Which modules these are is read from their imports, so that a new test is among them; those
of one room (``ROOMS``) are about that room, whichever machine it is tested on.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.repository import ROOT, name

MACHINES = ("linux", "darwin")
MAKERS = ("tests.support.instance", "tests.support.daemons", "attestd.kernel", "attestd.daemon.app")
"""Who makes a daemon or a kernel; modules below them included."""
ROOMS = ("tests/contract/", "tests/kernel/", "tests/unit/kernel/")

chosen = MACHINES[0]
"""Set before anything is collected."""


def concerns(path: Path) -> bool:
    """Whether a file has tests for the chosen machine: those that need none run on the first."""
    return chosen == MACHINES[0] or not path.name.startswith("test_") or stands_on_one(path)


def runs(item: pytest.Item) -> bool:
    """Whether a test of such a file runs on the chosen machine."""
    named = [each for each in MACHINES if item.get_closest_marker(each)]
    return chosen in (named or MACHINES)


def stands_on_one(path: Path) -> bool:
    """Whether the tests of a module need a machine to run on."""
    if name(path).startswith(ROOMS):
        return False
    shared = (folder / "conftest.py" for folder in path.parents if folder.is_relative_to(ROOT / "tests"))
    return any(_makes(each) for each in (path, *shared))


def imported(path: Path) -> Iterator[str]:
    """The modules that a file names in its imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def _makes(path: Path) -> bool:
    names = set(imported(path)) if path.is_file() else set()
    if any(f"{each}.".startswith(f"{maker}.") for each in names for maker in MAKERS):
        return True
    ours = (ROOT / f"{each.replace('.', '/')}.py" for each in sorted(names) if each.startswith("tests."))
    return any(_makes(each) for each in ours if each != path)
