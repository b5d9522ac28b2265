"""Rows once more with process events, the fallback of the kernel recorder: lineage is known, and no level is higher."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attestd.kernel.linux.connector.fallback import open_fallback
from tests.support.attackers import Arena, arena, causes, collect, python
from tests.support.hostile_launchers import HIDE


@pytest.fixture(scope="module", name="arena")
def _arena() -> Iterator[Arena]:
    events = open_fallback()
    state, reason = events.state()
    events.close()
    if state != "fallback":
        pytest.skip(reason)
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with arena(root, process_events=True) as started:
        yield started
    shutil.rmtree(root, ignore_errors=True)


def identity(arena: Arena, pid: int) -> dict[str, Any]:
    """What attestctl inspect says of a process."""
    found: dict[str, Any] = arena.instance.ctl("inspect", "--pid", str(pid))[0]
    return found


def test_it_says_that_it_is_the_fallback(arena: Arena):
    """Status, doctor and inspect name it, and why it is not the kernel recorder."""
    own = arena.instance.ctl("inspect", "--self")[0]
    told = [arena.instance.ctl("status")[0]["recorder"], own["recorder"]]
    assert [each["state"] for each in told] == ["fallback"] * 2
    assert all("attestd-recorder load" in each["reason"] for each in told)
    assert own["identity"]["recorded"] is False
    checks = arena.instance.run("attestctl", "doctor").stdout
    assert "fallback: process events" in checks


@pytest.mark.attack("I17")
@pytest.mark.parametrize("how", ["setsid", "stay"])
def test_a_hidden_launcher(arena: Arena, how: str):
    """The dead launcher is in the chain, as one that cannot be read: no orphan, and never above level 1."""
    hide = arena.instance.script("hide.py", HIDE)
    with arena.demanding_level_2():
        answers = arena.fails(lambda path: python(hide, how, *python(arena.agent(), path)), "level_too_low", "launcher")
    caller = arena.caller(answers)
    assert caller["level"] == 1
    assert "orphan" not in caller["display"]


@pytest.mark.attack("I17")
def test_a_launcher_that_gives_its_child_to_the_reaper(arena: Arena):
    """Process events name the reaper as the parent of a CLONE_PARENT child: that is not believed, it is an orphan."""
    hide = arena.instance.script("hide.py", HIDE)
    answers = arena.fails(lambda path: python(hide, "clone", *python(arena.agent(), path)), "unattestable")
    assert arena.caller(answers)["level"] == 0
    assert "orphan" in arena.caller(answers)["display"]


@pytest.mark.attack("I15")
def test_a_forged_executable(arena: Arena):
    """Process events do not say what was executed: the image stays a claim, level 1, and who demands 2 refuses."""
    genuine, forge = arena.genuine(), arena.compiled("forge", "forge.c")
    probe = [str(forge), str(genuine), "/nowhere"]
    if subprocess.run(probe, stdin=subprocess.DEVNULL, check=False).returncode == 77:
        pytest.skip("the executable cannot be forged here")
    with arena.demanding_level_2():
        answers = arena.fails(lambda path: [forge, genuine, path], "level_too_low")
        assert arena.caller(answers)["level"] == 1
        with arena.started(forge, genuine, arena.instance.socket()) as client:
            client.initialize()
            seen = identity(arena, client.process.pid)["identity"]
    (claimed,) = (reason for reason in seen["reasons"] if reason["code"] == "image-claimed")
    assert "process events" in claimed["detail"]


@pytest.mark.attack("I7")
def test_written_before_exec(arena: Arena):
    """Exec counters of process events prove nothing: the old call is refused as without them."""
    mark = arena.mark()
    argv = python(arena.launderer(), arena.instance.socket(), arena.shots_file(mark), "exec")
    with arena.daemon_asleep(), arena.started(*argv, *python(arena.agent(), "fd:FD")) as client:
        arena.becomes(client.process.pid, arena.agent())
        arena.awake()
        assert causes(collect(client, {1, 2})) == {1: "", 2: "unproven"}
    arena.not_executed(mark)
