"""L2: whoever cannot write the registry as root puts a file where the launcher might read it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.system_launcher import ALICE, DAEMON_UID, Daemon, House, client

pytestmark = [pytest.mark.attack("L2"), pytest.mark.root, pytest.mark.linux("the launcher of system mode")]


def _mode(mode: int) -> Callable[[Path], None]:
    return lambda path: path.chmod(mode)


def _owner(uid: int) -> Callable[[Path], None]:
    return lambda path: os.chown(path, uid, 0)


def _link(path: Path) -> None:
    real = path.with_suffix(".real")
    path.rename(real)
    path.symlink_to(real)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o644)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _long(path: Path) -> None:
    path.write_text(path.read_text() + "#" * (1 << 16))


CASES: list[tuple[str, Callable[[Path], None], str]] = [
    ("group", _mode(0o664), "may be written by others, got mode 0664"),
    ("others", _mode(0o646), "may be written by others, got mode 0646"),
    ("the daemon's", _owner(DAEMON_UID), f"belongs to uid {DAEMON_UID}, expected root"),
    ("link", _link, "is a link, or no directory"),
    ("fifo", _fifo, "is not a regular file"),
    ("directory", _directory, "is not a regular file"),
    ("long", _long, "is above 65536 bytes"),
    ("hidden", _mode(0o600), "cannot read"),
]


@pytest.mark.parametrize(("kind", "change", "why"), CASES, ids=[case[0] for case in CASES])
def test_a_file_that_others_may_have_written(
    house: House, daemon: Daemon, kind: str, change: Callable[[Path], None], why: str
):
    """The same file starts its server when it is root's alone, and none when it is not; the reason is told."""
    name = kind.replace(" ", "-").replace("'", "")
    path = house.register(name)
    with client(ALICE) as alice:
        assert daemon.order(name, alice).word()[0] == "started"
        change(path)
        words = daemon.order(name, alice).word()
    assert words[0] == "refused"
    assert why in words[1]


@pytest.mark.parametrize("above", [0, 1, 2])
@pytest.mark.parametrize("kind", ["mode", "owner"])
def test_a_directory_that_others_may_write(house: House, daemon: Daemon, above: int, kind: str):
    """Who can rename a directory above the file could put another there: every one up to the root must be root's alone."""
    path = house.register("tell")
    directory = path.parents[above]
    with client(ALICE) as alice:
        if kind == "mode":
            directory.chmod(0o777)
        else:
            os.chown(directory, ALICE, 0)
        refused = daemon.order("tell", alice).word()
        os.chown(directory, 0, 0)
        directory.chmod(0o755)
        started = daemon.order("tell", alice).word()
    assert refused[0] == "refused"
    assert refused[1].startswith(str(directory))
    assert started[0] == "started"


def test_a_linked_directory(house: House, daemon: Daemon):
    """A registry that is a link is refused, although what it names now would do."""
    house.register("tell")
    real = house.registry.with_name("elsewhere")
    house.registry.rename(real)
    house.registry.symlink_to(real)
    with client(ALICE) as alice:
        words = daemon.order("tell", alice).word()
    house.registry.unlink()
    real.rename(house.registry)
    assert words[:2] == ["refused", f"{house.registry} is a link, or no directory"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[server", "not valid TOML"),
        ("[other]\n", "no table [server]"),
        ('[server]\nname = "odd"\ntransport = "stdio"\ncommand = "sh"\n', "server.command = 'sh'"),
        ('[server]\nname = "odd"\ntransport = "stdio"\ncommand = []\n', "its command is empty"),
        ('[server]\nname = "odd"\ntransport = "stdio"\ncommand = ["a"]\nrun_as = "root"\n', "server.run_as = 'root'"),
        ('[server]\nname = "odd"\ntransport = "stdio"\ncommand = ["a"]\nnetwork = 1\n', "server.network = 1"),
        ('[server]\nname = "odd"\ntransport = "stdio"\ncommand = ["a"]\nenv = {"A=B" = "x"}\n', "server.env"),
        ('[server]\nname = "odd"\ntransport = "stdio"\ncommand = ["a"]\nlimits = {open = 1}\n', "server.limits"),
    ],
)
def test_a_file_that_says_too_little(house: House, daemon: Daemon, text: str, why: str):
    """Nothing is guessed: a file that is not understood starts nothing, and the next order is served."""
    house.write("odd", text)
    house.register("tell")
    with client(ALICE) as alice:
        words = daemon.order("odd", alice).word()
        assert daemon.order("tell", alice).word()[0] == "started"
    assert words[0] == "refused"
    assert why in words[1]
