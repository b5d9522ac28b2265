"""I17: a double fork, with and without setsid, hides the launcher: without the recorder the caller is an orphan."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.attackers import Arena, python
from tests.support.hostile_launchers import HIDE
from tests.support.naive import named

pytestmark = pytest.mark.attack("I17")


@pytest.mark.parametrize("how", ["setsid", "stay", "clone"])
def test_a_hidden_launcher(arena: Arena, how: str):
    """Nobody can say who started the granted client, so nobody is believed to have: level 0."""
    hide = arena.instance.script("hide.py", HIDE)

    def argv(path: Path) -> list[str | Path]:
        return python(hide, how, *python(arena.agent(), path))

    arena.succeeds_naively(argv, named("agent.py"))
    answers = arena.fails(argv, "unattestable")
    assert arena.caller(answers)["level"] == 0
    assert "orphan" in arena.caller(answers)["display"]
