"""I10: connect, fork a twin, execute a granted program; the twin writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.attackers import Arena, attempt, python, until
from tests.support.naive import marks, named

pytestmark = pytest.mark.attack("I10")

UNNAMED = '''\
"""Starts a relay on a socket pair and becomes a granted program. A twin keeps both ends where nobody is seen to hold
them, in flight to itself; when told, it asks the kernel not to name writers any more, and speaks as the client.

argv: pipe that tells it to, mark, relay, --, the granted program's words.
"""
import json, os, socket, subprocess, sys

go, mark, *rest = sys.argv[1:]
cut = rest.index("--")
here, far = socket.socketpair()
subprocess.Popen(rest[:cut], stdin=far, stdout=far)
near, away = socket.socketpair()
if os.fork() == 0:
    socket.send_fds(near, [b"."], [here.fileno(), far.fileno()])
    here.close()
    far.close()
    os.read(os.open(go, os.O_RDONLY), 1)
    here, far = (socket.socket(fileno=fd) for fd in socket.recv_fds(away, 1, 2)[1])
    far.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
    far.close()  # so that the end of the others is seen

    def say(**body):
        here.sendall(json.dumps({"jsonrpc": "2.0", **body}).encode() + b"\\n")

    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "twin", "version": "1"}}
    call = {"name": "echo", "arguments": {"mark": mark}}
    say(id=1, method="initialize", params=hello)
    say(id=2, method="tools/call", params=call)
    for line in here.makefile("rb"):
        message = json.loads(line)
        if message.get("method") == "ping":
            say(id=message["id"], result={})
            say(id=3, method="tools/call", params=call)
        elif message.get("id") == 3:
            break
    os._exit(0)
far.close()
near.close()
away.close()
here.set_inheritable(True)
words = rest[cut + 1 :]
os.execv(words[0], words)
'''


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


@pytest.mark.linux("the shim steps aside only there")
def test_a_twin_that_has_the_kernel_name_nobody(arena: Arena):
    """The shim has stepped aside, and whoever holds a copy of its socket can turn the names off. Bytes without a name
    are nobody's then, and not the client's."""
    unnamed = arena.instance.script("unnamed.py", UNNAMED)
    mark, go = arena.mark(), arena.root / "unnamed-naive"
    os.mkfifo(go)
    silent = python(arena.agent(), "fd:0")
    relay = python(arena.instance.talker(), arena.naive.path)
    with arena.started(*python(unnamed, go, mark, *relay, "--", *silent)) as client:
        arena.becomes(client.process.pid, arena.agent())
        tell(go)
        assert arena.naive.serve(named("talk.py"))
        assert arena.naive.executed(mark)
    arena.naive.end()
    mark, go = arena.mark(), arena.root / "unnamed"
    os.mkfifo(go)
    argv = python(unnamed, go, mark, arena.instance.scripts / "attestd-connect", "echo", "--", *silent)
    with arena.since() as seen, arena.daemon_asleep(), arena.started(*argv) as client:
        arena.becomes(client.process.pid, arena.agent())
        arena.awake()
        opened = until(lambda: next((r for r in seen() if r["kind"] == "session"), None), "the attestation")
        assert "via attestd-connect" in opened["display"]
        assert "agent.py" in opened["display"]
        tell(go)
        arena.recorded(seen, "writer_mismatch")
    arena.not_executed(mark)
