"""I1: another program of the same user calls a granted program's server."""

from __future__ import annotations

import pytest

from tests.support.attackers import Arena, attempt, python
from tests.support.naive import marks

pytestmark = pytest.mark.attack("I1")


def test_another_program_of_the_same_user(arena: Arena):
    """The grant of one program is no grant for another program of the same user in the same session."""
    evil = arena.instance.talker("evil", "evil.py")
    arena.succeeds_naively(lambda path: python(evil, path))
    answers = arena.fails(lambda path: python(evil, path), "no_grant")
    assert "evil.py" in arena.caller(answers)["display"]


def test_the_granted_program_is_served(arena: Arena):
    """The contrast: the same call by the granted program executes, so the refusal above is about the caller."""
    mark = arena.mark()
    with arena.started(*python(arena.agent(), arena.instance.socket())) as client:
        assert all("result" in answer for answer in attempt(client, mark))
    assert mark in marks(arena.instance.executed())


def test_a_program_that_claims_the_name_in_the_protocol(arena: Arena):
    """Every test client sends the same clientInfo, so the granted one's name is claimed here, and it is no identity."""
    evil = arena.instance.talker("agent.py", "other.py")
    arena.fails(lambda path: python(evil, path, "agent.py"), "no_grant")
