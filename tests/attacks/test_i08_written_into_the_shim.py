"""I8: as I7, through the pipe of a shim that was started before the exec."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.attackers import Arena, attempt, causes, collect, modern_shot, python, shots
from tests.support.hostile_launchers import PIPED
from tests.support.naive import marks, named

pytestmark = pytest.mark.attack("I8")


def launder(arena: Arena, text: Path, *relay: str | Path) -> list[str | Path]:
    """The evil program's command line."""
    piped = arena.instance.script("piped.py", PIPED)
    return python(piped, text, *relay, "--", *python(arena.agent(), "fd:FDS"))


def old_text(arena: Arena, era: str, mark: str) -> Path:
    """A file with a call of this era."""
    path = arena.root / f"old-{mark}"
    path.write_bytes(shots(mark) if era == "legacy" else modern_shot(mark))
    return path


@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_the_old_call_is_not_executed(arena: Arena, era: str):
    """The challenge of attestd comes after the attestation, so no answer to it can wait in the pipe."""
    mark, later = arena.mark(), arena.mark()
    relay = python(arena.instance.talker(), arena.naive.path)
    with arena.started(*launder(arena, old_text(arena, era, mark), *relay)) as client:
        arena.becomes(client.process.pid, arena.agent())
        assert arena.naive.serve(named("talk.py"))
        assert arena.naive.executed(mark)
    arena.naive.end()
    mark = arena.mark()
    argv = launder(arena, old_text(arena, era, mark), arena.instance.scripts / "attestd-connect", "echo")
    with arena.since() as seen, arena.daemon_asleep(), arena.started(*argv) as client:
        arena.becomes(client.process.pid, arena.agent())
        arena.awake()
        if era == "legacy":
            answers = collect(client, {1, 2})
            assert causes(answers) == {1: "", 2: "unproven"}
            assert all("result" in answer for answer in attempt(client, later, first=11))
            assert later in marks(arena.instance.executed())
        else:
            answers = collect(client, {1})
            assert answers[0]["result"]["resultType"] == "input_required"
        assert "via attestd-connect" in arena.recorded(seen, "unproven")["display"]
    arena.not_executed(mark)


def test_a_silent_granted_program_proves_nothing(arena: Arena):
    """Without an answer to the challenge the old call is refused when its time is over, and recorded."""
    mark = arena.mark()
    argv = launder(arena, old_text(arena, "legacy", mark), arena.instance.scripts / "attestd-connect", "echo")
    with arena.since() as seen, arena.daemon_asleep(), arena.started(*argv) as client:
        arena.becomes(client.process.pid, arena.agent())
        arena.awake()
        record = arena.recorded(seen, "unproven")
    assert (record["method"], record["verdict"]) == ("tools/call", "deny")
    arena.not_executed(mark)
