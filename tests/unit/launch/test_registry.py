"""The registry as the launcher reads it; who may have written it is in tests/attacks/test_l02_registry_of_others.py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from attestd.daemon.config import ServerLimits, ServerSettings, write_server
from attestd.launch.refusal import RefusedError
from attestd.launch.registry import Registered, read, read_trusted

GOOD: dict[str, Any] = {"name": "x", "transport": "stdio", "command": ["a", "b"]}


def refused(**changes: Any) -> RefusedError:
    """How that table is refused."""
    with pytest.raises(RefusedError) as found:
        Registered("x", {**GOOD, **changes})
    return found.value


def test_what_the_daemon_writes_is_read(tmp_path: Path):
    """Every key of a file that attestd writes means the same to the launcher."""
    server = ServerSettings(
        name="x",
        transport="stdio",
        command=("a", "ü b"),
        env={"A": "1"},
        cwd="/srv",
        run_as="isolated",
        shared=True,
        network=False,
        read_only=True,
        writable=("/srv/ü",),
        limits=ServerLimits(open_files=5, memory_mib=7),
    )
    import tomllib

    found = Registered("x", tomllib.loads(write_server(tmp_path, server).read_text("utf-8"))["server"])
    assert (found.argv, found.env, found.cwd) == (["a", "ü b"], {"A": "1"}, "/srv")
    assert (found.run_as, found.shared) == ("isolated", True)
    assert (found.sandbox.network, found.sandbox.read_only) == (False, True)
    assert found.sandbox.writable == [os.fsencode("/srv/ü")]
    assert found.sandbox.limits == {b"open_files": 5, b"memory_mib": 7}


def test_the_defaults_are_those_of_the_daemon():
    """What a file leaves out is what the configuration's reference says."""
    found, usual = Registered("x", GOOD), ServerSettings(name="x", transport="stdio")
    assert (found.env, found.cwd, found.run_as, found.shared) == (usual.env, usual.cwd, usual.run_as, usual.shared)
    assert (found.sandbox.network, found.sandbox.read_only) == (usual.network, usual.read_only)
    assert (found.sandbox.writable, found.sandbox.limits) == ([], {})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"name": "y"}, "server.name = 'y'"),
        ({"name": 1}, "server.name = 1"),
        ({"transport": "unix"}, "transport is not stdio"),
        ({"command": []}, "its command is empty"),
        ({"command": [""]}, "its command is empty"),
        ({"command": ["a\0"]}, "server.command"),
        ({"command": ["a" * (128 << 10), "b"]}, "above 131072 bytes"),
        ({"env": {"": "x"}}, "server.env"),
        ({"env": {"A": 1}}, "server.env"),
        ({"cwd": 1}, "server.cwd = 1"),
        ({"shared": "yes"}, "server.shared"),
        ({"writable": "/x"}, "server.writable"),
        ({"limits": {"open_files": True}}, "server.limits"),
        ({"limits": {"open_files": -1}}, "server.limits"),
        ({"limits": {"others": 1}}, "server.limits"),
    ],
)
def test_what_is_not_understood_is_refused(changes: dict[str, Any], text: str):
    """Each error says key and value."""
    assert text in refused(**changes).text


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "X", "a\n", "a\0", "-a", "a" * 65, "ü"])
def test_a_name_is_no_path(name: str):
    """What is not one file name is refused before a file is looked for."""
    with pytest.raises(RefusedError, match="that is no server's name"):
        read("/nonexistent", name)


def test_a_file_of_roots_is_read_by_anybody():
    """/etc/passwd and all above it belong to root and to nobody else."""
    assert read_trusted("/etc/passwd") == Path("/etc/passwd").read_bytes()


def test_a_file_of_somebody_else_is_not_read(tmp_path: Path):
    """A directory that others may write, such as /tmp, or that is not root's, is enough to refuse."""
    path = tmp_path / "x.toml"
    path.write_text("")
    with pytest.raises(RefusedError, match=r"may be written by others|belongs to uid"):
        read_trusted(str(path))
    with pytest.raises(RefusedError, match="there is no /etc/no-such-file"):
        read_trusted("/etc/no-such-file")
    with pytest.raises(RefusedError, match="is not a regular file"):
        read_trusted("/etc/ssl")


def test_nothing_stays_open():
    """Neither a good file nor a refusal leaves a descriptor behind."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("/etc/passwd", "/etc/no-such-file", "/etc/ssl", "/etc/passwd/x", "/tmp/x"):
        try:
            read_trusted(path)
        except RefusedError:
            continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before
