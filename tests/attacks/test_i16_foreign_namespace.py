"""I16: a caller in a user or pid namespace of its own that claims to be uid 0, or pid 1."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.attackers import Arena, python
from tests.support.children import needs_userns
from tests.support.naive import named

pytestmark = [pytest.mark.attack("I16"), pytest.mark.linux("user and pid namespaces")]

WAYS = [
    pytest.param(["unshare", "-Ur"], id="user"),
    pytest.param(["unshare", "-Urpf", "--kill-child"], id="user and pid"),
    pytest.param(["unshare", "-pf", "--kill-child"], id="pid", marks=pytest.mark.root),
]


@pytest.mark.parametrize("way", WAYS)
def test_the_granted_program_in_its_own_world(arena: Arena, way: list[str]):
    """The program is the granted one, and what it sees of users, processes and files is its maker's: level 0."""
    needs_userns()

    def argv(path: Path) -> list[str | Path]:
        return [*way, *python(arena.agent(), path)]

    arena.succeeds_naively(argv, named("agent.py"))
    with arena.since() as seen:
        answers = arena.fails(argv, "unattestable", "foreign_namespace")
        record = arena.recorded(seen, "unattestable", "foreign_namespace")
    assert arena.caller(answers)["level"] == 0
    assert "namespace" in answers[0]["error"]["message"]
    assert record["uid"] == os.getuid()
