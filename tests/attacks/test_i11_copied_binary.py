"""I11: a copy of a granted binary with one byte changed; the same name, the same argv[0], a forged comm."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.attackers import Arena
from tests.support.naive import named, titled

pytestmark = pytest.mark.attack("I11")


@pytest.fixture(scope="module", name="genuine")
def _genuine(arena: Arena) -> Path:
    """A granted binary."""
    return arena.genuine()


def changed(arena: Arena, genuine: Path, name: str) -> Path:
    """The binary with another byte in a text that nobody reads, in another directory."""
    path = arena.root / "elsewhere" / name
    path.parent.mkdir(exist_ok=True)
    content = genuine.read_bytes()
    assert content.count(b"attack tests, byte A") == 1
    path.write_bytes(content.replace(b"attack tests, byte A", f"attack tests, byte {name[0].upper()}".encode()))
    path.chmod(0o755)
    return path


def test_the_unchanged_copy_is_the_same_program(arena: Arena, genuine: Path):
    """The contrast: the grant follows the content, so a true copy under any name is served."""
    copy = arena.root / "other-name"
    copy.write_bytes(genuine.read_bytes())
    copy.chmod(0o755)
    with arena.started(copy, arena.instance.socket()) as client:
        assert "result" in client.initialize()


def test_one_byte(arena: Arena, genuine: Path):
    """The same name in another directory and the same comm, one byte changed."""
    evil = changed(arena, genuine, genuine.name)
    arena.succeeds_naively(lambda path: [evil, path], titled("client"))
    arena.fails(lambda path: [evil, path], "no_grant")


def test_the_same_argv0(arena: Arena, genuine: Path):
    """The command line begins with the granted binary's path."""
    evil = changed(arena, genuine, "evil")
    arena.succeeds_naively(lambda path: [genuine, path], named(str(genuine)), executable=evil)
    arena.fails(lambda path: [genuine, path], "no_grant", executable=evil)


def test_a_forged_comm(arena: Arena, genuine: Path):
    """The process calls itself what the granted one is called."""
    evil = changed(arena, genuine, "evil")
    arena.succeeds_naively(lambda path: [evil, path, "client"], titled("client"))
    answers = arena.fails(lambda path: [evil, path, "client"], "no_grant")
    assert "evil" in arena.caller(answers)["display"]
