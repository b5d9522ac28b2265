"""I3: evil starts the granted client: a genuine binary in hostile hands."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.support.attackers import Arena, python
from tests.support.naive import named

pytestmark = pytest.mark.attack("I3")

LAUNCH = "import subprocess, sys\nsys.exit(subprocess.run(sys.argv[1:], check=False).returncode)\n"


def launched(arena: Arena, way: str, path: Path) -> list[str | Path]:
    """The granted agent below a program that the grant does not name."""
    agent = [str(word) for word in python(arena.agent(), path)]
    if way == "program":
        return python(arena.instance.script("evil_launcher.py", LAUNCH), *agent)
    script = arena.instance.script("evil_launcher.sh", '#!/bin/sh\n"$@"\nexit 0\n')
    return ["/bin/sh", script, *agent]


@pytest.mark.parametrize(("way", "name"), [("program", "evil_launcher.py"), ("shell script", "evil_launcher.sh")])
def test_a_genuine_client_in_hostile_hands(arena: Arena, way: str, name: str):
    """The default grant names the launchers that were there; another one is the cause, and the prompt names it."""
    arena.succeeds_naively(lambda path: launched(arena, way, path), named("agent.py"))
    answers = arena.fails(lambda path: launched(arena, way, path), "launcher")
    assert all(name in answer["error"]["message"] for answer in answers)
    assert f"launched by {name}" in arena.caller(answers)["display"]
    assert arena.caller(answers)["level"] <= 1
    entry = next(p for p in arena.instance.pending() if p["code"] == answers[0]["error"]["data"]["code"])
    assert any(name in launcher["display"] for launcher in entry["caller"]["launchers"])
    assert {"cap": 1, "code": "launcher", "detail": name} in entry["caller"]["reasons"]


def test_a_build_step_is_a_hostile_launcher(arena: Arena):
    """A package's script that make runs may be anybody's: the client below it is refused under the default grant."""
    tool = _make(arena.root)
    makefile = arena.root / "Makefile"
    makefile.write_text("install:\n\t@$(RUN)\n")

    def argv(path: Path) -> list[str | Path]:
        run = " ".join(str(word) for word in python(arena.agent(), path))
        return [tool, "-s", "-f", makefile, f"RUN={run}"]

    arena.succeeds_naively(argv, named("agent.py"))
    answers = arena.fails(argv, "launcher", "inline")
    assert "make" in arena.caller(answers)["display"]


def _make(root: Path) -> Path:
    """make; where the tests themselves run below make, and so every grant names it, a make that nobody named."""
    system = Path("/usr/bin/make")
    if not any(parent.name() == "make" for parent in psutil.Process().parents()):
        return system
    own = root / "make"
    own.write_bytes(system.read_bytes() + b"\0")
    own.chmod(0o755)
    return own
