"""I6: connect, then execute a granted program that holds the socket."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.attackers import Arena, attempt, python
from tests.support.naive import named

pytestmark = pytest.mark.attack("I6")


def launder(arena: Arena, path: Path, first: str | Path = "-") -> list[str | Path]:
    """Connect, say ``first``, wait for a byte on standard input, become the granted agent on that socket."""
    return python(arena.launderer(), path, first, "wait", *python(arena.agent(), "fd:FD"))


def spoken(arena: Arena) -> list[str | Path]:
    """The same against attestd; an empty line is nothing but the first byte, which opens the session."""
    line = arena.root / "empty-line"
    line.write_bytes(b"\n")
    return launder(arena, arena.instance.socket(), line)


def test_exec_of_a_granted_program(arena: Arena):
    """Who looks at the process when the call comes sees the granted program; attestd ended the session at the exec."""
    mark = arena.mark()
    with arena.started(*launder(arena, arena.naive.path)) as client:
        client.send_line(b"")
        arena.becomes(client.process.pid, arena.agent())
        assert arena.naive.serve(named("agent.py"))
        attempt(client, mark)
    assert arena.naive.executed(mark)
    arena.naive.end()
    mark = arena.mark()
    with arena.since() as seen, arena.started(*spoken(arena)) as client:
        arena.session(client.process.pid, seen)
        client.send_line(b"")
        arena.becomes(client.process.pid, arena.agent())
        answers = attempt(client, mark)
        arena.recorded(seen, "image_changed")
    assert not any("result" in answer for answer in answers)
    arena.not_executed(mark)


def test_the_session_ends_without_a_message(arena: Arena):
    """After the exec the session is over even if nobody writes."""
    with arena.since() as seen, arena.started(*spoken(arena)) as client:
        pid = client.process.pid
        arena.session(pid, seen)
        client.send_line(b"")
        record = arena.recorded(seen, "image_changed")
    assert (record["kind"], record["method"], record["verdict"], record["pid"]) == ("session", "close", "end", pid)
