"""I9: the granted client's socket in another process's hands: by fork, by SCM_RIGHTS, by pidfd_getfd."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.attackers import Arena, attempt, python, until
from tests.support.instance import Client
from tests.support.naive import named

pytestmark = pytest.mark.attack("I9")

WRITER = '''\
"""Writes a file to a socket: inherited (its number), received (listens at a path), or taken (pid:number)."""
import ctypes, os, socket, sys

how, what, text = sys.argv[1:]
if how == "inherited":
    fd = int(what)
elif how == "received":
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(what)
    listener.listen()
    os.write(1, b"{}\\n")
    _, [fd], _, _ = socket.recv_fds(listener.accept()[0], 1, 1)
else:
    pid, number = map(int, what.split(":"))
    fd = ctypes.CDLL(None).syscall(438, os.pidfd_open(pid), number, 0)
    if fd < 0:
        sys.exit(77)
os.write(fd, open(text, "rb").read())
'''


def tell(agent: Client, **order: object) -> dict[str, object]:
    """Give the agent an order and wait until it is done."""
    agent.send_line(b"!" + json.dumps(order).encode())
    result: dict[str, object] = agent.answer("order", 60)["result"]
    return result


def hand_over(arena: Arena, agent: Client, how: str, text: Path) -> None:
    """Let the other process write the file's bytes on the agent's socket; skips where the kernel forbids the way."""
    writer = arena.instance.script("writer.py", WRITER)
    place = tell(agent)
    if how == "inherited":
        tell(agent, run=[str(word) for word in python(writer, how, str(place["fd"]), text)])
        return
    where = f"{place['pid']}:{place['fd']}" if how == "taken" else str(arena.root / f"{text.name}.sock")
    with arena.started(*python(writer, how, where, text)) as other:
        if how == "received":
            other.receive()
            tell(agent, send=where)
        status = other.process.wait(20)
    if status == 77:
        pytest.skip("pidfd_getfd is not permitted here")
    assert status == 0


@pytest.mark.parametrize("how", ["inherited", "received", "taken"])
def test_another_process_writes(arena: Arena, how: str):
    """The connection stays the granted client's by SO_PEERCRED; the writer of the bytes is another: the end."""
    mark = arena.mark()
    with arena.started(*python(arena.agent(), arena.naive.path)) as agent:
        arena.naive.serve()
        attempt(agent, arena.mark())
        hand_over(arena, agent, how, arena.shots_file(mark))
        assert arena.naive.executed(mark)
    arena.naive.end()
    mark, own = arena.mark(), arena.mark()
    with arena.since() as seen, arena.started(*python(arena.agent(), arena.instance.socket())) as agent:
        assert all("result" in answer for answer in attempt(agent, own))
        hand_over(arena, agent, how, arena.shots_file(mark))
        arena.recorded(seen, "writer_mismatch")
        end = until(lambda: next((r for r in seen() if r["method"] == "close"), None), "the end of the session")
        assert end["cause"] == "writer_mismatch"
        assert until(lambda: agent.process.poll() is not None, "the end of the connection")
    arena.not_executed(mark)


@pytest.mark.linux("the shim steps aside only there")
@pytest.mark.parametrize("how", ["inherited", "received", "taken"])
def test_another_process_writes_into_the_shims_socket_pair(arena: Arena, how: str):
    """The shim has stepped aside, so the kernel names the writer of every byte to attestd: the end."""
    mark = arena.mark()
    relay = python(arena.instance.talker(), arena.naive.path)
    with arena.started(*python(arena.agent(), "relay", *relay)) as agent:
        arena.naive.serve(named("talk.py"))
        attempt(agent, arena.mark())
        hand_over(arena, agent, how, arena.shots_file(mark))
        assert arena.naive.executed(mark)
    arena.naive.end()
    mark, own = arena.mark(), arena.mark()
    shim = [arena.instance.scripts / "attestd-connect", "echo"]
    with arena.since() as seen, arena.started(*python(arena.agent(), "relay", *shim)) as agent:
        assert "result" in served(agent, own)[-1]
        hand_over(arena, agent, how, arena.shots_file(mark))
        assert arena.recorded(seen, "writer_mismatch")["verdict"] == "deny"
        assert until(lambda: agent.process.poll() is not None, "the end of the connection")
    arena.not_executed(mark)


def served(agent: Client, mark: str) -> list[dict[str, object]]:
    """What a granted client gets: a call before the answer to the challenge is refused, the next one is served."""
    attempt(agent, f"{mark}-early", first=21)
    return attempt(agent, mark, first=31)
