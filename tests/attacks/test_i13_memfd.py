"""I13: an executable that exists in memory only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.attackers import Arena, python
from tests.support.naive import sha256, with_image

pytestmark = [pytest.mark.attack("I13"), pytest.mark.linux("memfd")]

LOAD = '''\
"""Executes a program from memory. argv: program, its words."""
import os, sys

fd = os.memfd_create("client")
os.write(fd, open(sys.argv[1], "rb").read())
os.execv(f"/proc/self/fd/{fd}", sys.argv[1:])
'''


def test_the_granted_bytes_in_memory(arena: Arena):
    """Even with the digest of a granted binary, what lives in memory can change after it was hashed: level 0."""
    genuine = arena.genuine()
    load = arena.instance.script("load.py", LOAD)

    def argv(path: Path) -> list[str | Path]:
        return python(load, genuine, path)

    arena.succeeds_naively(argv, with_image(sha256(genuine)))
    answers = arena.fails(argv, "unattestable")
    assert arena.caller(answers)["level"] == 0
    assert "memfd" in answers[0]["error"]["message"]
