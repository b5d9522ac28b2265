"""I7: write a call, then execute a granted program: the kernel names that program for bytes it never wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.attackers import Arena, attempt, causes, collect, python, shots
from tests.support.naive import marks, named

pytestmark = pytest.mark.attack("I7")


def launder(arena: Arena, path: Path, text: Path) -> list[str | Path]:
    """Connect, write the file, become the granted agent on that socket."""
    return python(arena.launderer(), path, text, "exec", *python(arena.agent(), "fd:FD"))


@pytest.fixture(name="naively")
def _naively(arena: Arena) -> None:
    """A relay that looks at the process after the exec serves the old call."""
    mark = arena.mark()
    with arena.started(*launder(arena, arena.naive.path, arena.shots_file(mark))) as client:
        arena.becomes(client.process.pid, arena.agent())
        assert arena.naive.serve(named("agent.py"))
        assert arena.naive.executed(mark)
    arena.naive.end()


@pytest.mark.usefixtures("naively")
def test_the_old_call_is_not_executed(arena: Arena):
    """The position in the stream shows that the call is older than the attestation; a silent program adds nothing."""
    mark = arena.mark()
    argv = launder(arena, arena.instance.socket(), arena.shots_file(mark))
    with arena.since() as seen, arena.daemon_asleep(), arena.started(*argv) as client:
        arena.becomes(client.process.pid, arena.agent())
        arena.awake()
        answers = collect(client, {1, 2})
        assert causes(answers) == {1: "", 2: "unproven"}
        record = arena.recorded(seen, "unproven")
    assert (record["method"], record["verdict"]) == ("tools/call", "deny")
    arena.not_executed(mark)


def test_the_granted_program_goes_on_talking(arena: Arena):
    """What the granted program says afterwards is served; what waited from before never is."""
    mark, later = arena.mark(), arena.mark()
    argv = launder(arena, arena.instance.socket(), arena.shots_file(mark))
    with arena.since() as seen, arena.daemon_asleep(), arena.started(*argv) as client:
        arena.becomes(client.process.pid, arena.agent())
        arena.awake()
        collect(client, {1, 2})
        assert all("result" in answer for answer in attempt(client, later, first=11))
        arena.recorded(seen, "unproven")
    assert later in marks(arena.instance.executed())
    arena.not_executed(mark)


def test_half_a_call_before_the_exec(arena: Arena):
    """A call that evil began and the granted program's own bytes end is old as a whole."""
    mark = arena.mark()
    half = arena.root / "half"
    half.write_bytes(shots(mark, first=21)[:-1])
    argv = launder(arena, arena.instance.socket(), half)
    with arena.since() as seen, arena.daemon_asleep(), arena.started(*argv) as client:
        arena.becomes(client.process.pid, arena.agent())
        arena.awake()
        client.send_line(b"")
        answers = collect(client, {21, 22})
        assert causes(answers) == {21: "", 22: "unproven"}
        arena.recorded(seen, "unproven")
    arena.not_executed(mark)
