"""I4: between connect and attestation the connector's pid becomes that of a granted program."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.attackers import Arena
from tests.support.naive import named

pytestmark = [pytest.mark.attack("I4"), pytest.mark.root, pytest.mark.linux("a pid namespace")]


@contextmanager
def impostor(wanted: int, argv: Sequence[str | Path]) -> Iterator[None]:
    """A process of this program with this very pid; skips if others are always faster."""
    for _ in range(300):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(wanted - 1))
        child = subprocess.Popen([str(word) for word in argv], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        if child.pid == wanted:
            break
        _end(child)
    else:
        pytest.skip("the pid could not be had again")
    try:
        yield
    finally:
        _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    assert child.stdin is not None
    child.stdin.close()
    child.wait()


def test_a_granted_program_inherits_a_pid(arena: Arena):
    """SO_PEERCRED names the granted program for bytes of a dead one; the pidfd of the connector does not."""
    genuine = arena.granted_elsewhere()
    mark = arena.mark()
    pid = arena.shot_and_gone(arena.naive.path, mark)
    with impostor(pid, genuine):
        arena.becomes(pid, arena.agent())
        assert arena.naive.serve(named("agent.py"))
    assert arena.naive.executed(mark)
    arena.naive.end()
    mark = arena.mark()
    with arena.since() as seen:
        with arena.daemon_asleep():
            pid = arena.shot_and_gone(arena.instance.socket(), mark)
            with impostor(pid, genuine):
                arena.becomes(pid, arena.agent())
                arena.awake()
                record = arena.recorded(seen, "peer_gone")
        assert (record["kind"], record["verdict"], record["pid"]) == ("session", "deny", 0)
    arena.not_executed(mark)
