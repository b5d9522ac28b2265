"""Rows I7, I8, I10, I15, I17, I18 and I19, each with the kernel recorder, with process events only, and with neither.

With the recorder on what lies is refused for what it is. Otherwise it ends at a level that is capped, with the reason:
``Arena.fails`` under ``demanding_level_2`` shows that whoever wants to be sure is not served. What needs no recorder
(the writer of a message, the order of bytes) is refused alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attestd.kernel.linux.connector.fallback import open_fallback
from tests.support.attackers import Arena, arena, attempt, causes, collect, modern_shot, python, shots
from tests.support.hostile_launchers import HIDE, PIPED
from tests.support.instance import TALK
from tests.support.naive import marks
from tests.support.recorder import recording

pytestmark = pytest.mark.linux("the recorder and the process events")

TITLE = """import ctypes, os, sys
fields = open("/proc/self/stat", "rb").read().rpartition(b")")[2].split()
start, end = int(fields[45]), int(fields[46])
forged = b"\\0".join(map(os.fsencode, [sys.executable, {granted!r}, sys.argv[1]])) + b"\\0"
ctypes.memset(start, 0, end - start)
ctypes.memmove(start, forged, min(len(forged), end - start))
"""
WIPING = '''\
"""Found through PYTHONPATH: wipes the environment as /proc shows it, and calls in the granted client's name."""
import ctypes, os, socket, sys

if "EVIL_TEXT" in os.environ and len(sys.orig_argv) > 2:
    fields = open("/proc/self/stat", "rb").read().rpartition(b")")[2].split()
    start, end = int(fields[47]), int(fields[48])
    ctypes.memset(start, 0, end - start)
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.orig_argv[2])
    s.sendall(open(os.environ["EVIL_TEXT"], "rb").read())
    while data := s.recv(65536):
        os.write(1, data)
    os._exit(0)
'''
ON = pytest.param("on", marks=pytest.mark.root)


@pytest.fixture(scope="module", name="state", params=[ON, "fallback", "absent"])
def _state(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", name="arena")
def _arena(state: str) -> Iterator[Arena]:
    """A daemon with the recorder in this state, and no other."""
    if state == "fallback":
        events = open_fallback()
        found, reason = events.state()
        events.close()
        if found != state:
            pytest.skip(reason)
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    if state == "on":
        with recording() as pins, arena(root, pins) as started:
            yield started
    else:
        with arena(root, process_events=state == "fallback") as started:
            yield started
    shutil.rmtree(root, ignore_errors=True)


def inspected(arena: Arena, pid: int) -> dict[str, Any]:
    """The identity that attestctl inspect says a process has."""
    found: dict[str, Any] = arena.instance.ctl("inspect", "--pid", str(pid))[0]["identity"]
    return found


def claimed(identity: dict[str, Any]) -> str:
    """Why the image is no more than a claim."""
    (reason,) = (each for each in identity["reasons"] if each["code"] == "image-claimed")
    assert reason["cap"] == 1
    return str(reason["detail"])


def test_status_doctor_and_inspect_say_which_it_is_and_why(arena: Arena, state: str):
    """The state has one name everywhere, and where it is not the recorder the reason says how to get it."""
    own = arena.instance.ctl("inspect", "--self")[0]
    told = [arena.instance.ctl("status")[0]["recorder"], own["recorder"]]
    checks = {check["name"]: check for check in arena.instance.ctl("doctor")}
    assert [each["state"] for each in told] == [state] * 2
    assert checks["recorder"]["detail"] == f"{state}: {told[0]['reason']}"
    assert own["identity"]["recorded"] is (state == "on")
    if state == "on":
        assert (checks["recorder"]["status"], checks["recorder tp_btf"]["status"]) == ("ok", "ok")
        return
    assert "attestd-recorder load" in told[0]["reason"]
    assert checks["recorder"]["status"] == "warn"
    assert checks["recorder"]["cost"]
    assert claimed(own["identity"])[:40] == told[0]["reason"][:40]


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
    assert later in marks(arena.instance.executed())
    arena.not_executed(mark)


@pytest.mark.attack("I8")
@pytest.mark.parametrize("era", ["legacy", "modern"])
def test_written_into_the_shim(arena: Arena, era: str):
    """The accountable client executed another program after it had started the relay: not proven, so challenged."""
    mark = arena.mark()
    text = arena.root / f"old-{mark}"
    text.write_bytes(shots(mark) if era == "legacy" else modern_shot(mark))
    piped = arena.instance.script("piped.py", PIPED)
    argv = python(
        piped, text, arena.instance.scripts / "attestd-connect", "echo", "--", *python(arena.agent(), "fd:FDS")
    )
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
def test_a_forged_executable(arena: Arena, state: str):
    """On: the record of the exec names another file, level 0, and the reason says so. Else a claim at level 1."""
    genuine, forge = arena.genuine(), arena.compiled("forge", "forge.c")
    words = [str(forge), str(genuine), "/nowhere"]
    if subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode == 77:
        pytest.skip("the executable cannot be forged here")

    def argv(path: Path) -> list[str | Path]:
        return [forge, genuine, path]

    with arena.demanding_level_2():
        answers = arena.fails(argv, "unattestable" if state == "on" else "level_too_low")
        with arena.started(*argv(arena.instance.socket())) as client:
            client.initialize()
            found = inspected(arena, client.process.pid)
    assert arena.caller(answers)["level"] == (0 if state == "on" else 1)
    if state == "on":
        assert "image-forged" in {reason["code"] for reason in found["reasons"]}
        arena.fails(argv, "unattestable")
    else:
        assert claimed(found)


@pytest.mark.attack("I17")
@pytest.mark.parametrize("how", ["setsid", "stay", "clone"])
def test_a_hidden_launcher(arena: Arena, state: str, how: str):
    """On: the dead launcher is known, and the grant does not name it. Process events: it was there, level 1; but who
    lets the reaper adopt its child at birth is not believed. Neither: an orphan, level 0."""
    hide = arena.instance.script("hide.py", HIDE)

    def argv(path: Path) -> list[str | Path]:
        return python(hide, how, *python(arena.agent(), path))

    if state == "on":
        caller = arena.caller(arena.fails(argv, "launcher"))
        assert caller["program"] == arena.granted_program
        assert "launched by" in caller["display"]
        assert "orphan" not in caller["display"]
    elif state == "fallback" and how != "clone":
        with arena.demanding_level_2():
            caller = arena.caller(arena.fails(argv, "level_too_low", "launcher"))
        assert caller["level"] == 1
        assert "orphan" not in caller["display"]
    else:
        caller = arena.caller(arena.fails(argv, "unattestable"))
        assert caller["level"] == 0
        assert "orphan" in caller["display"]


@pytest.mark.attack("I18")
@pytest.mark.parametrize("way", ["chdir", "title"])
def test_a_process_that_lies_about_itself(arena: Arena, state: str, way: str):
    """On: command line and directory are those of the exec, so another program is seen. Else level 1, a claim."""
    lie = "import os\nos.chdir({root!r})\n" if way == "chdir" else TITLE
    text = lie.format(root=str(arena.root), granted=str(arena.agent())) + TALK.replace("{mark}", way)
    name = "agent.py" if way == "chdir" else "a-name-that-is-long-enough-for-the-forged-command-line-to-fit.py"
    (arena.root / way).mkdir(exist_ok=True)
    script = arena.instance.script(f"{way}/{name}", text)

    def argv(path: Path) -> list[str | Path]:
        return python(name if way == "chdir" else script, path)

    if state == "on":
        answers = arena.fails(argv, "no_grant", cwd=script.parent)
        assert arena.caller(answers)["program"] not in ("", arena.granted_program)
        return
    with arena.demanding_level_2():
        answers = arena.fails(argv, "level_too_low", cwd=script.parent)
    assert arena.caller(answers)["level"] == 1


@pytest.mark.attack("I19")
def test_a_wiped_environment(arena: Arena, state: str):
    """A module on PYTHONPATH wipes the variable and calls in the granted client's name. On: the record still has it,
    and the grant does not allow it. Else nothing is left to see: level 1, so who demands level 2 does not serve it."""
    (arena.root / "path").mkdir(exist_ok=True)
    arena.instance.script("path/sitecustomize.py", WIPING)
    mark = arena.mark()
    env = {
        **arena.instance.environment,
        "PYTHONPATH": str(arena.root / "path"),
        "EVIL_TEXT": str(arena.shots_file(mark)),
    }
    demand = contextlib.nullcontext() if state == "on" else arena.demanding_level_2()
    with demand, arena.since() as seen:
        with arena.started(*python(arena.agent(), arena.instance.socket()), env=env) as client:
            answers = collect(client, {1, 2})
            found = inspected(arena, client.process.pid)
            assert b"PYTHONPATH" not in Path(f"/proc/{client.process.pid}/environ").read_bytes()
        arena.refused(answers, seen, mark, "search_path" if state == "on" else "level_too_low")
    assert arena.caller(answers)["level"] <= 1
    seen_it = "PYTHONPATH" in json.dumps([r["detail"] for r in found["reasons"] if r["code"] == "search-path"])
    assert seen_it is (state == "on")
    if state != "on":
        assert claimed(found)
