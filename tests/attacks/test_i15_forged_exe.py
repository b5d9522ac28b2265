"""I15: /proc/PID/exe forged through a user namespace (PR_SET_MM_MAP), without privilege.

Only the record of the exec tells, and this version has no recorder: the level says that the image is a claim.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.attackers import Arena
from tests.support.naive import sha256, with_image

pytestmark = [pytest.mark.attack("I15"), pytest.mark.linux("PR_SET_MM_MAP")]


def test_the_image_is_a_claim(arena: Arena):
    """The forger carries the granted binary's digest at level 1, with the reason; who demands level 2 is not served."""
    genuine, forge = arena.genuine(), arena.compiled("forge", "forge.c")

    def argv(path: Path) -> list[str | Path]:
        return [forge, genuine, path]

    probe = subprocess.run([str(word) for word in argv(Path("/nowhere"))], stdin=subprocess.DEVNULL, check=False)
    if probe.returncode == 77:
        pytest.skip("the executable cannot be forged here")
    arena.succeeds_naively(argv, with_image(sha256(genuine)))
    with arena.demanding_level_2():
        answers = arena.fails(argv, "level_too_low")
        caller = arena.caller(answers)
        assert caller["level"] == 1
        assert caller["program"] == arena.grant["subject"]["program"]
        with arena.started(*argv(arena.instance.socket())) as client:
            client.initialize()
            seen = arena.instance.ctl("inspect", "--pid", str(client.process.pid))[0]["identity"]
    assert "image-claimed" in {reason["code"] for reason in seen["reasons"] if reason["cap"] == 1}


def test_the_genuine_one_reaches_no_higher_level(arena: Arena):
    """Without the record of the exec it cannot be told from the forger, so it is level 1 as well."""
    genuine = arena.genuine()
    with arena.demanding_level_2():
        arena.fails(lambda path: [genuine, path], "level_too_low")
