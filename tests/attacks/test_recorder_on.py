"""Rows I7, I8, I10, I15, I17, I18 and I19 once more, with the kernel recorder on (pinned in a directory of its own).

What ends at a capped level without it is served at level 2 here if it is genuine, and told exactly if it is not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.attackers import Arena, arena, attempt, causes, collect, modern_shot, python, shots, until
from tests.support.hostile_launchers import HIDE, PIPED
from tests.support.instance import SCRIPTS, TALK
from tests.support.naive import marks
from tests.support.recorder import recording

pytestmark = pytest.mark.root

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
WIPE = """import ctypes
fields = open("/proc/self/stat", "rb").read().rpartition(b")")[2].split()
start, end = int(fields[47]), int(fields[48])
ctypes.memset(start, 0, end - start)
"""
TITLE = """import ctypes, os, sys
fields = open("/proc/self/stat", "rb").read().rpartition(b")")[2].split()
start, end = int(fields[45]), int(fields[46])
forged = b"\\0".join(map(os.fsencode, [sys.executable, {granted!r}, sys.argv[1]])) + b"\\0"
ctypes.memset(start, 0, end - start)
ctypes.memmove(start, forged, min(len(forged), end - start))
"""


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
    argv = python(arena.instance.script("child.py", CHILD), SCRIPTS / "attestd-connect", "echo")
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
    where = [str(SCRIPTS / "attestd-connect"), "echo"] if way == "relayed" else [str(arena.instance.socket())]
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


@pytest.mark.attack("I7")
def test_written_before_exec(arena: Arena):
    """The connect was that of another image: the old call is refused, what follows is served."""
    mark, later = arena.mark(), arena.mark()
    argv = python(arena.launderer(), arena.instance.socket(), arena.shots_file(mark), "exec")
    with arena.daemon_asleep(), arena.started(*argv, *python(arena.agent(), "fd:FD")) as client:
        arena.becomes(client.process.pid, arena.agent())
        arena.awake()
        assert causes(collect(client, {1, 2})) == {1: "", 2: "unproven"}
        assert all("result" in answer for answer in attempt(client, later, first=11))
    arena.not_executed(mark)


@pytest.mark.attack("I8")
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_written_into_the_shim(arena: Arena, era: str):
    """The accountable client executed another program after it had started the relay: not proven, so challenged."""
    mark = arena.mark()
    text = arena.root / f"old-{mark}"
    text.write_bytes(shots(mark) if era == "legacy" else modern_shot(mark))
    piped = arena.instance.script("piped.py", PIPED)
    argv = python(piped, text, SCRIPTS / "attestd-connect", "echo", "--", *python(arena.agent(), "fd:FDS"))
    with arena.daemon_asleep(), arena.started(*argv) as client:
        arena.becomes(client.process.pid, arena.agent())
        arena.awake()
        if era == "legacy":
            assert causes(collect(client, {1, 2})) == {1: "", 2: "unproven"}
        else:
            assert collect(client, {1})[0]["result"]["resultType"] == "input_required"
    arena.not_executed(mark)


@pytest.mark.attack("I10")
def test_a_twin_writes(arena: Arena):
    """The twin of the connector is another writer."""
    mark = arena.mark()
    text = arena.shots_file(mark)
    go = Path(f"{text}.go")
    os.mkfifo(go)
    argv = python(arena.launderer(), arena.instance.socket(), text, "twin", *python(arena.agent(), "fd:FD"))
    with arena.since() as seen, arena.daemon_asleep(), arena.started(*argv) as client:
        arena.becomes(client.process.pid, arena.agent())
        arena.awake()
        assert all("result" in answer for answer in attempt(client, arena.mark()))
        with go.open("wb") as pipe:
            pipe.write(b".")
        arena.recorded(seen, "writer_mismatch")
    arena.not_executed(mark)


@pytest.mark.attack("I15")
def test_a_forged_executable(arena: Arena):
    """The record of the exec names another file: level 0, with that reason."""
    genuine, forge = arena.genuine(), arena.compiled("forge", "forge.c")
    words = [str(forge), str(genuine), "/nowhere"]
    if subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode == 77:
        pytest.skip("the executable cannot be forged here")
    answers = arena.fails(lambda path: [forge, genuine, path], "unattestable")
    assert arena.caller(answers)["level"] == 0
    with arena.started(forge, genuine, arena.instance.socket()) as client:
        client.initialize()
        found = inspected(arena, client.process.pid)
    assert "image-forged" in codes(found["identity"])


@pytest.mark.attack("I17")
@pytest.mark.parametrize("how", ["setsid", "stay", "clone"])
def test_a_hidden_launcher(arena: Arena, how: str):
    """The dead launcher is known: the caller is no orphan, and the grant does not name that launcher."""
    hide = arena.instance.script("hide.py", HIDE)
    answers = arena.fails(lambda path: python(hide, how, *python(arena.agent(), path)), "launcher")
    caller = arena.caller(answers)
    assert caller["program"] == arena.granted_program
    assert "launched by" in caller["display"]
    assert "orphan" not in caller["display"]


@pytest.mark.attack("I18")
@pytest.mark.parametrize("way", ["chdir", "title"])
def test_a_process_that_lies_about_itself(arena: Arena, way: str):
    """Command line and working directory are those of the exec: the lie changes nothing, another program is seen."""
    lie = "import os\nos.chdir({root!r})\n" if way == "chdir" else TITLE
    text = lie.format(root=str(arena.root), granted=str(arena.agent())) + TALK.replace("{mark}", way)
    name = "agent.py" if way == "chdir" else "a-name-that-is-long-enough-for-the-forged-command-line-to-fit.py"
    (arena.root / way).mkdir(exist_ok=True)
    script = arena.instance.script(f"{way}/{name}", text)
    answers = arena.fails(lambda path: python(name if way == "chdir" else script, path), "no_grant", cwd=script.parent)
    assert arena.caller(answers)["program"] not in ("", arena.granted_program)


@pytest.mark.attack("I19")
def test_a_wiped_environment(arena: Arena):
    """The variable is gone from /proc/PID/environ, and stands in the record."""
    script = arena.instance.script("wiped.py", WIPE + TALK.replace("{mark}", "wiped"))
    env = {**arena.instance.environment, "PYTHONHOME": "", "PYTHONPATH": str(arena.root / "path")}
    with arena.started(*python(script, arena.instance.socket()), env=env) as client:
        client.initialize()
        until(lambda: b"PYTHONPATH" not in Path(f"/proc/{client.process.pid}/environ").read_bytes(), "the wipe")
        found = inspected(arena, client.process.pid)
    assert "search-path" in codes(found["identity"])
    assert "PYTHONPATH" in json.dumps(found["identity"]["reasons"])
