"""I17: a double fork, with and without setsid, hides the launcher: without the recorder the caller is an orphan."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support.attackers import Arena, attempt, python
from tests.support.hostile_launchers import HIDE
from tests.support.instance import Client, cause
from tests.support.naive import named

pytestmark = pytest.mark.attack("I17")


@pytest.mark.parametrize("how", ["setsid", "stay", "clone"])
def test_a_hidden_launcher(arena: Arena, how: str):
    """Nobody can say who started the granted client, so nobody is believed to have: level 0."""
    hide = arena.instance.script("hide.py", HIDE)

    def argv(path: Path) -> list[str | Path]:
        return python(hide, how, *python(arena.agent(), path))

    arena.succeeds_naively(argv, named("agent.py"))
    answers = arena.fails(argv, "unattestable")
    assert arena.caller(answers)["level"] == 0
    assert "orphan" in arena.caller(answers)["display"]


@contextlib.contextmanager
def at_a_prompt(arena: Arena, *words: str | Path) -> Iterator[Client]:
    """A client that a person starts in a terminal: nothing but a shell and a terminal multiplexer launched it."""
    socket, come, go = (arena.root / name for name in ("tmux", "tmux.in", "tmux.out"))
    for pipe in (come, go):
        os.mkfifo(pipe)
    environment = arena.instance.environment | {"TERM": "xterm", "SHELL": "/bin/bash"}

    def run(*more: str) -> None:
        command = ["tmux", "-S", str(socket), "-f", "/dev/null", *more]
        subprocess.run(command, env=environment, check=True, timeout=30, capture_output=True)

    run("new-session", "-d", "-x", "200", "-y", "50", "/bin/bash --norc -i")
    try:
        run("send-keys", f"{shlex.join(map(str, words))} <{shlex.quote(str(come))} >{shlex.quote(str(go))}", "Enter")
        with come.open("wb") as stdin, go.open("rb") as stdout:
            yield Client(cast("subprocess.Popen[bytes]", SimpleNamespace(stdin=stdin, stdout=stdout)))
    finally:
        run("kill-server")
        come.unlink()
        go.unlink()


def code(answers: list[dict[str, Any]]) -> str:
    """The approval code of a refusal."""
    return str(answers[0]["error"]["data"]["code"])


@pytest.mark.linux("a clean chain; no signature of Apple's stands above a prompt of the mirrored Mac")
def test_a_launcher_that_hides_above_a_shell(arena: Arena):
    """Evil exits above ``timeout``, which starts the granted client: only who launched it is hidden.

    Under a grant that was made in a clean terminal the cause is ``launcher``. A grant that accepts ``unreadable`` accepts
    every program that hides so: that is what the word means, and who says it is warned.
    """
    hide = arena.instance.script("hide.py", HIDE)
    other = arena.instance.script("hide2.py", HIDE + "# another program\n")
    client = arena.agent("prompt_agent.py")

    def argv(path: Path, by: Path = hide) -> list[str | Path]:
        return python(by, "stay", "/usr/bin/timeout", "60", *python(client, path))

    arena.succeeds_naively(argv, named("prompt_agent.py"))
    with at_a_prompt(arena, *python(client, arena.instance.socket())) as person:
        refused = attempt(person, arena.mark())
        assert cause(refused[0]) == "no_grant"
        entry = next(p for p in arena.instance.pending() if p["code"] == code(refused))
        assert entry["caller"]["launchers"] == []
        (clean,) = arena.instance.ctl("approve", code(refused), "--all-tools", "--for", "1h", "--yes")
        assert clean["subject"]["launched_by"] == []
        assert clean["warnings"] == []
        assert all("result" in answer for answer in attempt(person, arena.mark(), 10))

    answers = arena.fails(argv, "launcher")
    assert arena.caller(answers)["level"] <= 1
    entry = next(p for p in arena.instance.pending() if p["code"] == code(answers))
    assert None in [launcher["program"] for launcher in entry["caller"]["launchers"]]

    words = ("--all-tools", "--for", "1h", "--yes")
    unnamed = arena.instance.run("attestctl", "approve", code(answers), *words)
    assert unnamed.returncode != 0
    assert "--launched-by unreadable" in unnamed.stderr
    accepted = arena.instance.run(
        "attestctl", "approve", code(answers), "--launched-by", "unreadable", *words, "--json"
    )
    assert accepted.returncode == 0, accepted.stderr
    (warning,) = json.loads(accepted.stdout)["warnings"]
    assert "hides by exiting may use this grant, whoever it is" in warning
    assert warning in accepted.stderr
    for by in (hide, other):
        with arena.started(*argv(arena.instance.socket(), by)) as hidden:
            assert all("result" in answer for answer in attempt(hidden, arena.mark()))
