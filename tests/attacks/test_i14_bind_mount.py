"""I14: a bind mount in a private mount namespace makes the path point elsewhere."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.attackers import Arena
from tests.support.naive import at_path, sha256

pytestmark = [pytest.mark.attack("I14"), pytest.mark.linux("a mount namespace")]

WAYS = [pytest.param("-m", marks=pytest.mark.root), "-Urm"]


@pytest.mark.parametrize("flags", WAYS)
def test_the_true_digest(arena: Arena, flags: str):
    """The link shows the granted binary's path, where everybody else finds the granted binary; the image is another."""
    genuine = arena.genuine()
    evil = arena.root / "evil"
    evil.write_bytes(genuine.read_bytes().replace(b"byte A", b"byte E"))
    evil.chmod(0o755)
    words = ["unshare", flags, "sh", "-c"]
    mount = f"mount --bind {shlex.quote(str(evil))} {shlex.quote(str(genuine))}"
    if subprocess.run([*words, mount], check=False, capture_output=True).returncode:
        pytest.skip("no bind mount in a private namespace here")

    def argv(path: Path) -> list[str | Path]:
        return [*words, f"{mount} && exec {genuine} {path}"]

    arena.succeeds_naively(argv, at_path(sha256(genuine)))
    answers = arena.fails(argv, "no_grant" if flags == "-m" else "unattestable")
    caller = arena.caller(answers)
    assert caller["program"] != arena.grant["subject"]["program"]
    assert caller["level"] <= (1 if flags == "-m" else 0)
