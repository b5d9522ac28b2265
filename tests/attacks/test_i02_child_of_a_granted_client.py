"""I2: a child of a granted client (its shell tool, a post-install script) calls."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.attackers import Arena, parsed, python, shots, until
from tests.support.instance import Client

pytestmark = pytest.mark.attack("I2")

TWIN = '''\
"""Executes a relay whose standard input is a pipe that a forked twin fills. argv: file, hold | leave, relay."""
import os, sys, time

text, how, *relay = sys.argv[1:]
read, write = os.pipe()
if os.fork() == 0:
    os.close(read)
    os.write(write, open(text, "rb").read())
    if how == "hold":
        while not os.path.exists(text + ".stop"):
            time.sleep(0.02)
    os._exit(0)
os.dup2(read, 0)
os.close(read)
os.close(write)
os.execv(relay[0], relay)
'''

STARTER = "import subprocess, sys\nsys.exit(subprocess.run(sys.argv[1:], check=False).returncode)\n"
PIPER = '''\
"""Starts a relay and copies its own input to it."""
import os, subprocess, sys

relay = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
while data := os.read(0, 65536):
    os.write(relay.stdin.fileno(), data)
relay.stdin.close()
sys.exit(relay.wait())
'''


def order(argv: Sequence[str | Path], text: bytes = b"") -> bytes:
    """Tell the agent to run a program, as its shell tool would, and to hold its input until both answers came."""
    words = [str(word) for word in argv]
    return b"!" + json.dumps({"run": words, "input": text.decode(), "lines": 2 if text else 0}).encode()


def ordered(agent: Client, argv: Sequence[str | Path], text: bytes = b"") -> str:
    """What the program printed."""
    agent.send_line(order(argv, text))
    return str(agent.answer("order", 60)["result"]["text"])


def children(arena: Arena) -> dict[str, list[str | Path]]:
    """Ways to call without being the client; PATH stands for the socket."""
    evil = arena.instance.talker("child", "child.py")
    return {
        "direct": python(evil, "PATH"),
        "sh -c": ["/bin/sh", "-c", f"{shlex.join(map(str, python(evil, 'PATH')))}; true"],
        "bash pipe": ["/bin/bash", "-c", "socat -t 20 - UNIX-CONNECT:PATH; true"],
    }


@pytest.mark.parametrize("way", ["direct", "sh -c", "bash pipe"])
def test_a_child_is_not_its_parent(arena: Arena, way: str):
    """What the granted agent's tool starts is accountable for itself, with or without a shell between."""
    argv, mark = children(arena)[way], arena.mark()
    with arena.started(*python(arena.agent(), arena.naive.path)) as agent:
        arena.naive.serve()
        agent.send_line(order([str(w).replace("PATH", str(arena.naive.path)) for w in argv], shots(mark)))
        arena.naive.serve()
        agent.answer("order", 60)
    assert arena.naive.executed(mark)
    arena.naive.end()
    mark = arena.mark()
    with arena.since() as seen, arena.started(*python(arena.agent(), arena.instance.socket())) as agent:
        socket = str(arena.instance.socket())
        answers = parsed(ordered(agent, [str(w).replace("PATH", socket) for w in argv], shots(mark)))
        arena.refused(answers, seen, mark, "no_grant")
        caller = arena.caller(answers)["display"]
        assert caller.startswith(("socat", '"socat"', '"unverified/socat"') if way == "bash pipe" else ("child.py",))
        assert "agent.py" in caller.partition("launched by ")[2]
        assert "result" in agent.initialize()


RELAYED = {
    "child, the agent's pipes": ("unattestable",),
    "child, own pipe": ("no_grant",),
    "sh -c": ("inline", "unattestable"),  # the latter where the shell is no system program: level 0, input-shared
    "sh -c pipe": ("unattestable",),
    "sh stdin": ("unattestable",),
}


@pytest.mark.parametrize("way", RELAYED)
def test_a_child_that_starts_the_shim(arena: Arena, way: str):
    """The shim lends no identity: between it and the agent stands a child or inline code of a shell."""
    text = arena.root / f"shots-{way.replace(' ', '')}"
    mark = arena.mark()
    text.write_bytes(shots(mark))
    starter, piper = arena.instance.script("starter.py", STARTER), arena.instance.script("piper.py", PIPER)
    script = f"(cat {text}; sleep 1) | %s; true"
    relay = {
        "naive": python(arena.instance.talker(), arena.naive.path),
        "attestd": [arena.instance.scripts / "attestd-connect", "echo"],
    }

    def argv(side: str) -> tuple[list[str | Path], bytes]:
        words = [str(word) for word in relay[side]]
        if way.startswith("child"):
            return python(piper if way.endswith("own pipe") else starter, *words), text.read_bytes()
        if way == "sh -c":
            return ["/bin/sh", "-c", f"{shlex.join(words)}; true"], text.read_bytes()
        if way == "sh -c pipe":
            return ["/bin/sh", "-c", script % shlex.join(words)], b""
        return ["/bin/sh"], (script % shlex.join(words)).encode() + b"\n"

    with arena.started(*python(arena.agent(), arena.naive.path)) as agent:
        arena.naive.serve()
        agent.send_line(order(*argv("naive")))
        arena.naive.serve()
        agent.answer("order", 60)
    assert arena.naive.executed(mark)
    arena.naive.end()
    with arena.since() as seen, arena.started(*python(arena.agent(), arena.instance.socket())) as agent:
        answers = parsed(ordered(agent, *argv("attestd")))
        arena.refused(answers, seen, mark, *RELAYED[way])


@pytest.mark.parametrize("how", ["hold", "leave"])
def test_a_twin_that_feeds_the_shim(arena: Arena, how: str):
    """The shim is the agent's own child and no inline code is seen, but its standard input is nobody's of the call."""
    twin = arena.instance.script("twin.py", TWIN)
    mark = arena.mark()
    text = arena.root / f"shots-{how}"
    stop = Path(f"{text}.stop")
    text.write_bytes(shots(mark))
    relay = python(arena.instance.talker(), arena.naive.path)
    with arena.started(*python(arena.agent(), arena.naive.path)) as agent:
        arena.naive.serve()
        agent.send_line(order(python(twin, text, how, *relay)))
        arena.naive.serve()
        assert arena.naive.executed(mark)
        stop.touch()
        agent.answer("order", 60)
    arena.naive.end()
    stop.unlink()
    with arena.since() as seen, arena.started(*python(arena.agent(), arena.instance.socket())) as agent:
        agent.send_line(order(python(twin, text, how, arena.instance.scripts / "attestd-connect", "echo")))
        until(lambda: [r for r in seen() if r["cause"]], "a refusal")
        stop.touch()
        answers = parsed(agent.answer("order", 60)["result"]["text"])
    stop.unlink(missing_ok=True)
    arena.refused(answers, seen, mark, "unattestable")
    assert "input-" in answers[0]["error"]["message"]
