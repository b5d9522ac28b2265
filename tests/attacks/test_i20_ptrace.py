"""I20: a debugger attached to the granted client before its call, and during its session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.attackers import Arena, attempt, python, until
from tests.support.children import running
from tests.support.naive import marks, named

pytestmark = pytest.mark.attack("I20")

TRACER = """\
import ctypes, os, select, sys

pid = int(sys.argv[1])
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
seized = ptrace(0x4206, pid, None, None) == 0
print("ready" if seized else "refused", flush=True)
while not select.select([0], [], [], 0.01)[0]:
    try:
        changed, status = os.waitpid(pid, os.WNOHANG | 0x40000000)
    except ChildProcessError:
        continue
    if changed and os.WIFSTOPPED(status):
        ptrace(7, pid, None, os.WSTOPSIG(status))
"""
"""Attaches with PTRACE_SEIZE and lets every signal through, so that the client runs on."""


@contextmanager
def traced(pid: int) -> Iterator[None]:
    """A debugger of this process (PTRACE_SEIZE, so that it runs on); skips where that is forbidden."""
    with running(*map(str, python("-I", "-c", TRACER, str(pid)))) as tracer:
        assert tracer.stdout is not None
        if tracer.stdout.readline().strip() != "ready":
            pytest.skip("tracing is not permitted here")
        yield


def test_attached_before_the_call(arena: Arena):
    """Whoever debugs the granted client decides what it says: level 0 from the start."""
    mark = arena.mark()
    with arena.started(*python(arena.agent(), arena.naive.path)) as client, traced(client.process.pid):
        assert arena.naive.serve(named("agent.py"))
        attempt(client, mark)
        assert arena.naive.executed(mark)
    arena.naive.end()
    mark = arena.mark()
    argv = python(arena.agent(), arena.instance.socket())
    with arena.since() as seen, arena.daemon_asleep(), arena.started(*argv) as client, traced(client.process.pid):
        arena.awake()
        answers = attempt(client, mark)
        arena.refused(answers, seen, mark, "unattestable", "traced")


def test_attached_during_the_session(arena: Arena):
    """The session of a client that is debugged later ends with the next message."""
    mark, own = arena.mark(), arena.mark()
    with arena.since() as seen, arena.started(*python(arena.agent(), arena.instance.socket())) as client:
        assert all("result" in answer for answer in attempt(client, own))
        with traced(client.process.pid):
            answers = attempt(client, mark, first=11)
            assert not any("result" in answer for answer in answers)
            arena.recorded(seen, "traced")
            end = until(lambda: next((r for r in seen() if r["method"] == "close"), None), "the end of the session")
            assert end["cause"] == "traced"
    assert own in marks(arena.instance.executed())
    arena.not_executed(mark)


def test_the_session_ends_without_a_message(arena: Arena):
    """A debugger that attaches and waits ends the session too."""
    with arena.since() as seen, arena.started(*python(arena.agent(), arena.instance.socket())) as client:
        assert "result" in client.initialize()
        with traced(client.process.pid):
            end = until(lambda: next((r for r in seen() if r["method"] == "close"), None), "the end of the session")
    assert end["cause"] == "traced"
