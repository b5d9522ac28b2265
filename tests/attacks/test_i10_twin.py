"""I10: connect, fork a twin, execute a granted program; the twin writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.attackers import Arena, attempt, python, until
from tests.support.naive import marks, named

pytestmark = pytest.mark.attack("I10")


def launder(arena: Arena, path: Path, mark: str) -> tuple[list[str | Path], Path]:
    """The command line, and the pipe that tells the twin to write."""
    text = arena.shots_file(mark)
    go = Path(f"{text}.go")
    os.mkfifo(go)
    return python(arena.launderer(), path, text, "twin", *python(arena.agent(), "fd:FD")), go


def tell(go: Path) -> None:
    """Let the twin write."""
    with go.open("wb") as pipe:
        pipe.write(b".")


def test_a_twin_writes(arena: Arena):
    """The process behind the connection is the granted program, its twin writes the call."""
    mark = arena.mark()
    argv, go = launder(arena, arena.naive.path, mark)
    with arena.started(*argv) as client:
        arena.becomes(client.process.pid, arena.agent())
        assert arena.naive.serve(named("agent.py"))
        tell(go)
        assert arena.naive.executed(mark)
    arena.naive.end()
    mark, own = arena.mark(), arena.mark()
    argv, go = launder(arena, arena.instance.socket(), mark)
    with arena.since() as seen, arena.daemon_asleep(), arena.started(*argv) as client:
        arena.becomes(client.process.pid, arena.agent())
        arena.awake()
        assert all("result" in answer for answer in attempt(client, own))
        tell(go)
        arena.recorded(seen, "writer_mismatch")
        end = until(lambda: next((r for r in seen() if r["method"] == "close"), None), "the end of the session")
        assert end["cause"] == "writer_mismatch"
    assert own in marks(arena.instance.executed())
    arena.not_executed(mark)
