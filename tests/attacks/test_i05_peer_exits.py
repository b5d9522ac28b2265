"""I5: the peer exits before accept: its bytes are still there, and nobody to answer for them."""

from __future__ import annotations

import pytest

from tests.support.attackers import Arena

pytestmark = pytest.mark.attack("I5")


def test_bytes_of_a_dead_peer(arena: Arena):
    """A relay serves what a dead client wrote; attestd refuses the connection, for nobody is there to be attested."""
    mark = arena.mark()
    arena.shot_and_gone(arena.naive.path, mark)
    assert arena.naive.serve()
    assert arena.naive.executed(mark)
    arena.naive.end()
    mark = arena.mark()
    with arena.since() as seen:
        with arena.daemon_asleep():
            arena.shot_and_gone(arena.instance.socket(), mark)
        record = arena.recorded(seen, "peer_gone")
    assert (record["kind"], record["verdict"]) == ("session", "deny")
    arena.not_executed(mark)
