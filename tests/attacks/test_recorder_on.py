"""What only the kernel recorder makes possible (it is pinned in a directory of its own): a genuine client reaches level 2
without a challenge, and whoever died too early is known. The attacks, with it and without: test_recorder_pairs.py.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.attackers import Arena, arena, causes, collect, python, shots, until
from tests.support.hostile_launchers import HIDE
from tests.support.naive import marks
from tests.support.recorder import recording

pytestmark = [pytest.mark.root, pytest.mark.linux("the recorder")]

CHILD = '''\
"""A client that starts its relay as clients do, and copies lines. argv: the relay's words."""
import subprocess, sys

relay = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
for line in sys.stdin.buffer:
    relay.stdin.write(line)
    relay.stdin.flush()
relay.stdin.close()
relay.wait()
'''
SHOOTER = '''\
"""Calls by itself and writes what came back to a file, then waits. argv: file, calls, socket or relay's words."""
import os, socket, subprocess, sys

out, calls, *where = sys.argv[1:]
if len(where) == 1:
    s = socket.socket(socket.AF_UNIX)
    s.connect(where[0])
    source = s.makefile("rb")
    send = s.sendall
else:
    relay = subprocess.Popen(where, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    source, send = relay.stdout, relay.stdin.write
lines = open(calls, "rb").read().splitlines(keepends=True)
with open(out, "w") as f:
    print(os.getpid(), file=f)
    for group in (lines[:1], lines[1:]):
        send(b"".join(group))
        answer = source.readline().decode()
        f.write(answer)
        if "error" in answer:
            break
    print("end", file=f)
if "error" not in answer:
    os.read(0, 1)
'''


@pytest.fixture(scope="module", name="arena")
def _arena() -> Iterator[Arena]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with recording() as pins, arena(root, pins) as started:
        yield started
    shutil.rmtree(root, ignore_errors=True)


def inspected(arena: Arena, pid: int) -> dict[str, Any]:
    """What attestctl inspect says of a process."""
    found: dict[str, Any] = arena.instance.ctl("inspect", "--pid", str(pid))[0]
    return found


def codes(identity: dict[str, Any]) -> set[str]:
    """Of every reason."""
    return {reason["code"] for reason in identity["reasons"]}


def relaying(arena: Arena) -> list[str | Path]:
    """The command line of a granted client that starts its relay itself."""
    argv = python(arena.instance.script("child.py", CHILD), arena.instance.scripts / "attestd-connect", "echo")
    with arena.started(*argv) as client:
        refusal = client.initialize()
        if "error" in refusal:
            arena.instance.approve(refusal["error"]["data"]["code"])
    return argv


@pytest.fixture(name="tmux")
def _tmux(arena: Arena) -> Iterator[list[str]]:
    """A tmux server: a launch ends at its windows, so the runner of this test is no launcher there."""
    if shutil.which("tmux") is None:
        pytest.skip("needs tmux")
    words = ["tmux", "-f", "/dev/null", "-S", str(arena.root / "tmux")]
    subprocess.run([*words, "new-session", "-d", "sleep", "600"], env=arena.instance.environment, check=True)
    server = int(subprocess.run([*words, "display", "-p", "#{pid}"], capture_output=True, check=True).stdout)
    yield words
    subprocess.run([*words, "kill-server"], check=True)
    until(lambda: not Path(f"/proc/{server}").exists(), "the end of tmux")


@pytest.mark.parametrize("way", ["direct", "relayed"])
def test_a_genuine_client_reaches_level_2(arena: Arena, tmux: list[str], way: str):
    """The image is confirmed, so it is no claim: who demands level 2 is served, directly and through the relay."""
    shooter = arena.instance.script("shooter.py", SHOOTER)
    where = (
        [str(arena.instance.scripts / "attestd-connect"), "echo"]
        if way == "relayed"
        else [str(arena.instance.socket())]
    )
    mark = arena.mark()

    def shoot() -> tuple[int, list[dict[str, Any]]]:
        out = arena.root / f"answers-{arena.mark()}"
        words = [*map(str, python(shooter, out, arena.shots_file(mark))), *where]
        subprocess.run([*tmux, "new-window", "-d", *words], env=arena.instance.environment, check=True)
        lines = until(lambda: out.exists() and out.read_text().endswith("end\n") and out.read_text(), "answers")
        pid, *answers, _ = lines.splitlines()
        return int(pid), [json.loads(line) for line in answers]

    pid, answers = shoot()
    if "error" in answers[0]:
        arena.instance.approve(answers[0]["error"]["data"]["code"])
    with arena.demanding_level_2():
        pid, answers = shoot()
        identity = inspected(arena, pid)["identity"]
    assert causes(answers) == {1: "", 2: ""}, identity
    assert mark in marks(arena.instance.executed())
    assert identity["recorded"] is True
    assert identity["level"] >= 2
    assert "image-claimed" not in codes(identity)


def test_the_recorder_is_shown(arena: Arena):
    """Status and doctor say that it is on, and inspect --self that the caller is recorded, at once."""
    assert arena.instance.ctl("status")[0]["recorder"]["state"] == "on"
    own = arena.instance.ctl("inspect", "--self")[0]
    assert own["identity"]["recorded"] is True


def test_no_challenge_is_needed(arena: Arena):
    """A client that started its relay itself is proven by the record: its call is served though it answers no ping."""
    argv = relaying(arena)
    mark = arena.mark()
    with arena.started(*argv) as client:
        client.send_line(shots(mark).rstrip(b"\n"))
        seen = [client.receive() for _ in range(2)]
    assert [message.get("id") for message in seen if message is not None] == [1, 2]
    assert mark in marks(arena.instance.executed())


@pytest.mark.attack("I17")
def test_a_launcher_that_dies_before_it_can_be_read(arena: Arena):
    """It started the granted client and was gone before the daemon looked: its program and its words are in the prompt."""
    hide = arena.instance.script("hide.py", HIDE)
    argv = python(hide, "stay", *python(arena.agent(), arena.instance.socket()))
    with arena.daemon_asleep(), arena.started(*argv) as client:
        client.process.wait(10)  # the launcher; its grandchild waits for the daemon
        arena.awake()
        client.send_line(shots(arena.mark()).splitlines()[0])
        (answer,) = collect(client, {1})
        assert causes([answer]) == {1: "launcher"}
        (entry,) = [each for each in arena.instance.pending() if each["code"] == answer["error"]["data"]["code"]]
    dead = [link for link in entry["chain"] if link["dead"]]
    assert [link["argv"][1:3] for link in dead][:2] == [[str(hide), "stay"]] * 2
    assert all(link["exe"]["sha256"] and link["script"]["sha256"] for link in dead[:2])
    assert any(launcher["display"].startswith("hide.py") for launcher in entry["caller"]["launchers"])
