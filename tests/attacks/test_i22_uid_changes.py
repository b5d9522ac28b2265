"""I22: the uid changes after connect; a setuid wrapper; sudo: both identities are reported, the weaker one decides."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import machine
from tests.support.attackers import Arena, python
from tests.support.instance import TALK
from tests.support.naive import owned

pytestmark = [pytest.mark.attack("I22"), pytest.mark.root]

NOBODY = 65534


@pytest.fixture(scope="module", name="outside")
def _outside(arena: Arena) -> Iterator[Path]:
    """A directory that every user can read; the sockets can be reached by every user too."""
    path = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    path.chmod(0o755)
    for directory in (arena.root, arena.root / "r", arena.instance.control.parent, arena.instance.socket().parent):
        directory.chmod(0o755)
    yield path
    shutil.rmtree(path)


def identity(arena: Arena, argv: Callable[[Path], list[str | Path]]) -> tuple[dict[str, Any], set[str]]:
    """What attestd says of a running client: the identity, and the uids in its reasons."""
    with arena.started(*argv(arena.instance.socket())) as client:
        client.initialize()
        session = arena.instance.ctl("ps")[-1]
        seen = arena.instance.ctl("inspect", "--pid", str(session["pid"]))[0]["identity"]
    return seen, {reason["detail"] for reason in seen["reasons"] if reason["code"].startswith("uid-")}


@pytest.mark.usefixtures("outside")
def test_a_uid_dropped_after_connect(arena: Arena):
    """Connected as root, running as nobody: the socket says root for ever; nobody decides."""
    text = TALK.replace("{mark}", "drops").replace(
        "s.connect(sys.argv[1])", f"s.connect(sys.argv[1])\nif len(sys.argv) > 2: os.setuid({NOBODY})"
    )
    script = arena.instance.script("drops.py", text)
    arena.instance.grant(argv=[str(word) for word in python(script, arena.instance.socket())])

    def argv(path: Path) -> list[str | Path]:
        return python(script, path, "drop")

    arena.succeeds_naively(argv, owned(0))
    with arena.since() as seen:
        causes = ("no_grant", "inconsistent", *(("unattestable",) if machine.chosen == "darwin" else ()))
        arena.fails(argv, *causes)
        decided = arena.recorded(seen, *causes)
        opened = next(record for record in seen() if record["kind"] == "session")
    if decided["cause"] == "unattestable":  # macOS names both uids of the socket at once, and nobody is attested
        assert "uid 0 connected, and a process of uid" in decided["detail"]["why"]
        return
    assert opened["uid"] == 0
    assert decided["uid"] == {"no_grant": NOBODY, "inconsistent": 0}[decided["cause"]]


def test_a_setuid_wrapper(arena: Arena, outside: Path):
    """Nobody runs a setuid-root copy of the granted binary: root by the socket, nobody by the real uid: it decides."""
    genuine = arena.genuine()
    wrapper = outside / "client"
    shutil.copy(genuine, wrapper)
    wrapper.chmod(0o4755)

    def argv(path: Path) -> list[str | Path]:
        return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", wrapper, path]

    arena.succeeds_naively(argv, owned(0))
    with arena.since() as seen:
        arena.fails(argv, "no_grant")
        decided = arena.recorded(seen, "no_grant")
        opened = next(record for record in seen() if record["kind"] == "session")
    if decided["cause"] == "unattestable":  # macOS names both uids of the socket at once, and nobody is attested
        assert "uid 0 connected, and a process of uid" in decided["detail"]["why"]
        return
    assert opened["uid"] == 0
    assert decided["uid"] == {"no_grant": NOBODY, "inconsistent": 0}[decided["cause"]]
    seen_now, uids = identity(arena, argv)
    assert seen_now["uid"] == NOBODY
    assert f"uids {NOBODY}/0/0/0" in uids


def test_sudo(arena: Arena, outside: Path):
    """Root starts the granted binary as nobody by sudo: the grant is root's, the caller nobody, both are named."""
    if shutil.which("sudo") is None:
        pytest.skip("needs sudo")
    copy = outside / "copy"
    shutil.copy(arena.genuine(), copy)

    def argv(path: Path) -> list[str | Path]:
        return ["sudo", "-n", "-u", "nobody", copy, path]

    arena.succeeds_naively(argv)
    with arena.since() as seen:
        arena.fails(argv, "no_grant")
        assert arena.recorded(seen, "no_grant")["uid"] == NOBODY
    seen_now, uids = identity(arena, argv)
    assert seen_now["uid"] == NOBODY
    assert f"uids 0, {NOBODY}" in uids
