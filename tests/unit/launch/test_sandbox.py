"""What a started server has to do without, tried by servers that do it."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from attestd.launch import sandbox
from attestd.launch.client import ProcessLauncher
from attestd.launch.protocol import Command, LaunchError, Sandbox
from tests.support.launching import Mark, text_of

TRIES = """
import json, os, subprocess, sys
inside, outside = sys.argv[1], sys.argv[2]
found = {}
def tried(name, work):
    try:
        work(); found[name] = "done"
    except OSError as error:
        found[name] = error.strerror
def write(path):
    with open(path, "w") as file: file.write("x")
tried("write inside", lambda: write(inside + "/new"))
tried("make inside", lambda: os.mkdir(inside + "/directory"))
tried("rename inside", lambda: os.rename(inside + "/new", inside + "/directory/new"))
tried("write outside", lambda: write(outside + "/new"))
tried("overwrite outside", lambda: write(outside + "/old"))
tried("truncate outside", lambda: os.truncate(outside + "/old", 0))
tried("make outside", lambda: os.mkdir(outside + "/directory"))
tried("link outside", lambda: os.symlink("x", outside + "/link"))
tried("remove outside", lambda: os.unlink(outside + "/old"))
tried("move out", lambda: os.rename(inside + "/directory/new", outside + "/new"))
tried("read outside", lambda: open(outside + "/old").read())
tried("write to /dev/null", lambda: write("/dev/null"))
found["a child"] = subprocess.run(["sh", "-c", 'echo x >"$0/old" 2>/dev/null', outside]).returncode != 0
print(json.dumps(found))
"""
REFUSED = "Permission denied"

NETWORK = """
import json, os, socket, sys
found = {}
def tried(name, work):
    try:
        work(); found[name] = "done"
    except OSError as error:
        found[name] = error.strerror
tried("connect", lambda: socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5))
tried("send", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", int(sys.argv[1]))))
pair = socket.socketpair()
found["up"] = [name for _, name in socket.if_nameindex() if int(open(f"/proc/net/dev").read().count(name + ":")) > 1]
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status"))
found["uid"], found["gid"] = os.getuid(), os.getgid()
found["capabilities"] = [int(status[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")]
print(json.dumps(found))
"""


@pytest.fixture
async def launcher() -> AsyncIterator[ProcessLauncher]:
    """The launcher of user mode."""
    made = ProcessLauncher(grace_s=0.2)
    yield made
    await made.close()


async def told(launcher: ProcessLauncher, mark: Mark, source: str, *words: str, **kept: Any) -> dict[str, Any]:
    """What a confined server found out."""
    whole = mark.command(sys.executable, "-I", "-c", source, *words)
    command = Command(argv=whole.argv, env=whole.env, cwd="/", sandbox=Sandbox(**kept))
    server = await launcher.start(command, lambda _: None)
    found: dict[str, Any] = json.loads(await text_of(server))
    server.stop()
    return found


async def test_without_a_sandbox_everything_works(launcher: ProcessLauncher, mark: Mark, tmp_path: Path) -> None:
    """The attempts of the next test succeed when nothing forbids them."""
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "out" / "old").write_text("old")
    found = await told(launcher, mark, TRIES, str(tmp_path / "in"), str(tmp_path / "out"))
    assert {name: end for name, end in found.items() if end != "done"} == {
        "read outside": "No such file or directory",  # removed just before
        "a child": False,
    }


async def test_read_only_leaves_what_is_writable(launcher: ProcessLauncher, mark: Mark, tmp_path: Path) -> None:
    """Below ``writable`` everything works; elsewhere nothing is written, made, moved or removed, by no descendant either."""
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    old = tmp_path / "out" / "old"
    old.write_text("old")
    words = str(tmp_path / "in"), str(tmp_path / "out")
    found = await told(launcher, mark, TRIES, *words, read_only=True, writable=(str(tmp_path / "in"),))
    allowed = {name for name, end in found.items() if end == "done"}
    assert allowed == {"write inside", "make inside", "rename inside", "read outside", "write to /dev/null"}
    assert found.pop("a child") is True
    assert {end for name, end in found.items() if name not in allowed} <= {REFUSED, "Invalid cross-device link"}
    assert [path.name for path in old.parent.iterdir()] == ["old"]
    assert old.read_text() == "old"


async def test_without_network_nothing_is_reached(launcher: ProcessLauncher, mark: Mark) -> None:
    """A listener on loopback is reached without the sandbox and not with it; uid and gid are the same, no capability more."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        before = await told(launcher, mark, NETWORK, port)
        after = await told(launcher, mark, NETWORK, port, network=False)
    assert before["connect"] == "done"
    assert (after["connect"], after["send"], after["up"]) == ("Network is unreachable", "Network is unreachable", [])
    assert [after[key] for key in ("uid", "gid", "capabilities")] == [
        before[key] for key in ("uid", "gid", "capabilities")
    ]


async def test_limits_are_hard(launcher: ProcessLauncher, mark: Mark) -> None:
    """Each limit is what was said, in its unit, and is soft and hard alike."""
    source = (
        "import json, resource as r; print(json.dumps({n: r.getrlimit(getattr(r, n)) for n in"
        " ('RLIMIT_NOFILE', 'RLIMIT_NPROC', 'RLIMIT_AS', 'RLIMIT_FSIZE')}))"
    )
    limits = (("open_files", 64), ("processes", 5000), ("address_space_mib", 2000), ("file_mib", 3))
    found = await told(launcher, mark, source, limits=limits)
    assert found == {
        "RLIMIT_NOFILE": [64, 64],
        "RLIMIT_NPROC": [5000, 5000],
        "RLIMIT_AS": [2000 << 20] * 2,
        "RLIMIT_FSIZE": [3 << 20] * 2,
    }


@pytest.mark.parametrize(
    ("kept", "message", "hint"),
    [
        ({"read_only": True, "writable": ("/no/such",)}, "cannot make /no/such writable: No such file", "make that"),
        ({"limits": (("open_files", 1 << 40),)}, "cannot limit open_files to 1099511627776: ", "above the launcher's"),
    ],
)
async def test_what_cannot_be_confined_is_not_started(
    launcher: ProcessLauncher, mark: Mark, kept: dict[str, Any], message: str, hint: str
) -> None:
    """The error says what could not be done and what helps; the program does not run."""
    whole = mark.command("true")
    command = Command(argv=whole.argv, env=whole.env, cwd="/", sandbox=Sandbox(**kept))
    with pytest.raises(LaunchError, match=message) as raised:
        await launcher.start(command, lambda _: None)
    assert hint in raised.value.hint


def test_this_kernel_can_confine() -> None:
    """The tests above mean something: Landlock here is at least what ``read_only`` asks for."""
    assert sandbox.landlock_abi() >= sandbox.LANDLOCK_ABI
