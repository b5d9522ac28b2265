"""I19: LD_PRELOAD, NODE_OPTIONS, PYTHONPATH, BASH_ENV into a granted client, with the variable wiped afterwards."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest

from tests.support.attackers import Arena, collect, parsed, python
from tests.support.naive import Judge, named, sha256, with_image

pytestmark = pytest.mark.attack("I19")

NODE = """\
// A granted client in JavaScript.
const net = require("node:net");
const s = net.connect(process.argv[2]);
process.stdin.on("data", (d) => s.write(d)).on("end", () => s.end());
s.on("data", (d) => process.stdout.write(d)).on("close", () => process.exit(0));
"""
HIJACK_NODE = """\
// Loaded before the client: calls in its place.
const { EVIL_TEXT } = process.env;
const net = require("node:net");
const s = net.connect(process.argv[2]);
s.write(require("node:fs").readFileSync(EVIL_TEXT));
delete process.env.NODE_OPTIONS;
process.stdin.pause();
s.on("data", (d) => process.stdout.write(d)).on("close", () => process.exit(0));
require("node:module")._load = () => ({ connect: () => ({ on() { return this; }, write() {}, end() {} }) });
"""
HIJACK_PYTHON = '''\
"""Loaded by every interpreter that finds it: calls in its place."""
import os, socket, sys

if "EVIL_TEXT" in os.environ and len(sys.orig_argv) > 2:
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.orig_argv[2])
    s.sendall(open(os.environ.pop("EVIL_TEXT"), "rb").read())
    os.environ.pop("PYTHONPATH")
    while data := s.recv(65536):
        os.write(1, data)
    os._exit(0)
'''


def shown(
    arena: Arena, argv: list[str | Path], variables: dict[str, str], *causes: str, naive: Judge | None = None
) -> None:
    """The injected client calls by itself: executed by the relay, refused by attestd."""
    judge = naive or named(str(argv[-1]))
    for path in (arena.naive.path, arena.instance.socket()):
        mark = arena.mark()
        env = {
            **arena.instance.environment,
            **variables,
            "EVIL_TEXT": str(arena.shots_file(mark)),
            "EVIL_SOCKET": str(path),
        }
        with arena.since() as seen, arena.started(*argv, path, env=env) as client:
            if path == arena.naive.path:
                assert arena.naive.serve(judge)
                assert arena.naive.executed(mark)
                arena.naive.end()
            else:
                answers = collect(client, {1, 2})
                arena.refused(answers, seen, mark, *causes)
                assert arena.caller(answers)["level"] <= 1


@pytest.mark.linux("LD_PRELOAD")
def test_a_preloaded_library(arena: Arena):
    """The library wiped its variable from /proc/PID/environ; it is still mapped, from the caller's own place."""
    genuine = arena.genuine()
    library = arena.compiled("wipe.so", "wipe.c", "-shared", "-fPIC")
    library.chmod(0o777)  # uid 0 counts by ownership and mode: what only root may write is root's own
    shown(arena, [genuine], {"LD_PRELOAD": str(library)}, "unattestable", naive=with_image(sha256(genuine)))


def test_node_options(arena: Arena):
    """--require through NODE_OPTIONS runs before the granted script and calls in its name."""
    if shutil.which("node") is None:
        pytest.skip("needs node")
    client, evil = arena.instance.script("client.js", NODE), arena.instance.script("hijack.js", HIJACK_NODE)
    argv: list[str | Path] = [shutil.which("node") or "node", client]
    arena.instance.grant(argv=[*map(str, argv), str(arena.instance.socket())])
    shown(arena, argv, {"NODE_OPTIONS": f"--require={evil}"}, "unattestable")


def test_python_path(arena: Arena):
    """A sitecustomize on PYTHONPATH runs before the granted script and calls in its name."""
    (arena.root / "path").mkdir(exist_ok=True)
    arena.instance.script("path/sitecustomize.py", HIJACK_PYTHON)
    shown(arena, python(arena.agent()), {"PYTHONPATH": str(arena.root / "path")}, "search_path")


def test_bash_env(arena: Arena):
    """BASH_ENV runs inside the shell by which the granted client starts its relay, which is then no mere launcher."""
    evil = arena.instance.script("hijack.sh", 'unset BASH_ENV\n(cat "$EVIL_TEXT"; sleep 1) | $EVIL_RELAY\nexit 0\n')
    naively = shlex.join(str(word) for word in python(arena.instance.talker(), arena.naive.path))
    for relay in (naively, f"{arena.instance.scripts / 'attestd-connect'} echo"):
        path = arena.naive.path if relay == naively else arena.instance.socket()
        mark = arena.mark()
        variables = {"BASH_ENV": str(evil), "EVIL_TEXT": str(arena.shots_file(mark)), "EVIL_RELAY": relay}
        env = {**arena.instance.environment, **variables}
        order = b"!" + json.dumps({"run": ["/bin/bash", "-c", relay]}).encode()
        with arena.since() as seen, arena.started(*python(arena.agent(), path), env=env) as agent:
            if relay == naively:
                arena.naive.serve()
                agent.send_line(order)
                arena.naive.serve()
                agent.answer("order", 60)
                assert arena.naive.executed(mark)
                arena.naive.end()
            else:
                agent.send_line(order)
                answers = parsed(agent.answer("order", 60)["result"]["text"])
                arena.refused(answers, seen, mark, "unattestable")
                assert "bash" in arena.caller(answers)["display"]
