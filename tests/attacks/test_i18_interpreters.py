"""I18: the granted client's interpreter with other code: a script, -c, -m, stdin, a link, a directory that was left.

A rewritten command line and a working directory that was left are a process's own words; only the record of the exec
could correct them. Without it they end at level 1, with the reason that the image is a claim.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import machine
from tests.support.attackers import Arena, collect, python, shots, until
from tests.support.instance import TALK
from tests.support.naive import named

pytestmark = pytest.mark.attack("I18")


def elsewhere(arena: Arena, name: str = "agent.py") -> Path:
    """Another client's script under the granted one's name, in another directory."""
    path = arena.root / "elsewhere" / name
    path.parent.mkdir(exist_ok=True)
    return arena.instance.script(f"elsewhere/{name}", TALK.replace("{mark}", "evil"))


def text(arena: Arena) -> str:
    """The granted script's text."""
    return arena.agent().read_text()


def linked(arena: Arena) -> Path:
    """A symbolic link with the granted script's name that leads to another."""
    link = arena.root / "links" / "agent.py"
    link.parent.mkdir(exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(elsewhere(arena, "behind.py"))
    return link


Argv = Callable[[Arena, Path], list[str | Path]]
WAYS: dict[str, tuple[Argv, str]] = {
    "another script": (lambda a, p: python(elsewhere(a), p), "no_grant"),
    "another script first": (lambda a, p: python(elsewhere(a), p, a.agent()), "no_grant"),
    "symbolic link": (lambda a, p: python(linked(a), p), "no_grant"),
    "-c": (lambda a, p: python("-c", text(a), p, a.agent()), "no_grant"),
    "-c exec": (lambda a, p: python("-c", f"exec(open({str(a.agent())!r}).read())", p), "no_grant"),
}


@pytest.mark.parametrize("way", WAYS)
def test_other_code(arena: Arena, way: str):
    """The program is interpreter and code, by content: the granted script's name in the command line is nothing."""
    build, expected = WAYS[way]
    arena.succeeds_naively(lambda path: build(arena, path), named("agent.py"))
    answers = arena.fails(lambda path: build(arena, path), expected)
    assert arena.caller(answers)["program"] != arena.granted_program


def test_a_module_of_the_same_name(arena: Arena):
    """``-m agent`` in another directory runs that directory's module."""
    there = elsewhere(arena).parent

    def argv(path: Path) -> list[str | Path]:
        return python("-m", "agent", path)

    arena.succeeds_naively(argv, named("agent"), cwd=there)
    answers = arena.fails(argv, "no_grant", "policy_forbid", "unattestable", cwd=there)
    assert arena.caller(answers)["program"] != arena.granted_program


def test_code_from_standard_input(arena: Arena):
    """A script read from a pipe leaves nothing to hash: level 0."""
    mark = arena.mark()
    for path in (arena.naive.path, arena.instance.socket()):
        program = (
            f"import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect({str(path)!r})\n"
            f"s.sendall({shots(mark)!r})\nlines = s.makefile()\n"
            "print(lines.readline() + lines.readline(), end='', flush=True)\n"
        )
        with arena.since() as seen, arena.started(*python("-", path, arena.agent())) as client:
            client.process.stdin.write(program.encode())
            client.process.stdin.close()
            if path == arena.naive.path:
                assert arena.naive.serve(named("agent.py"))
                assert arena.naive.executed(mark)
                arena.naive.end()
                mark = arena.mark()
            else:
                arena.refused(collect(client, {1, 2}), seen, mark, "unattestable")


def lying(arena: Arena, way: str) -> tuple[Path, str]:
    """An evil script that poses as the granted one after its start, and the name that it is started by."""
    pose = {
        "chdir": f"import os\nos.chdir({str(arena.root)!r})\n",
        "title": f"""import ctypes, os, sys
words = [sys.executable, {str(arena.agent())!r}, sys.argv[1]]
fields = open("/proc/self/stat", "rb").read().rpartition(b")")[2].split()
start, end = int(fields[45]), int(fields[46])
forged = b"\\0".join(map(os.fsencode, words)) + b"\\0"
ctypes.memset(start, 0, end - start)
ctypes.memmove(start, forged, min(len(forged), end - start))
""",
    }[way]
    name = "agent.py" if way == "chdir" else "a-name-that-is-long-enough-for-the-forged-command-line-to-fit.py"
    (arena.root / way).mkdir(exist_ok=True)
    return arena.instance.script(f"{way}/{name}", pose + TALK.replace("{mark}", way)), name


@pytest.mark.parametrize("way", ["chdir", "title"])
def test_a_process_that_lies_about_itself(arena: Arena, way: str):
    """Level 1, on Linux with the reason that the image is a claim: who demands level 2 is not served."""
    script, name = lying(arena, way)

    def argv(path: Path) -> list[str | Path]:
        return python(name if way == "chdir" else script, path)

    options: dict[str, Any] = {"cwd": script.parent}
    arena.succeeds_naively(argv, lambda pid, uid: until(lambda: named("agent.py")(pid, uid), "the lie"), **options)
    with arena.demanding_level_2(), arena.started(*argv(arena.instance.socket()), **options) as client:
        client.initialize()
        seen = arena.instance.ctl("inspect", "--pid", str(client.process.pid))[0]["identity"]
        capped = {reason["code"] for reason in seen["reasons"] if reason["cap"] == 1}
        assert "image-claimed" in capped or (capped and machine.chosen == "darwin")
        answers = arena.fails(argv, "level_too_low", **options)
    assert arena.caller(answers)["level"] == 1
