"""What a server file may say about a server that attestd starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attestd.daemon.config import ServerLimits, ServerSettings, load_servers, validate_server, write_server
from attestd.daemon.stdio_settings import sandbox
from attestd.errors import ConfigurationError
from attestd.launch.protocol import Sandbox

SOCKETS = Path("/run/attestd/mcp")
CONFINED: dict[str, Any] = {
    "network": False,
    "read_only": True,
    "writable": ("/srv/a", "/srv/b c"),
    "limits": ServerLimits(open_files=100, processes=10, address_space_mib=500, file_mib=7),
}
SYSTEM: list[dict[str, Any]] = [
    {},
    CONFINED,
    {"run_as": "isolated", "limits": ServerLimits(memory_mib=100)},
    {"run_as": "user:root"},
    {"run_as": "user:_mcp-1", "shared": True},
    {"run_as": "isolated", "shared": True},
]
BAD: list[tuple[str, bool, dict[str, Any]]] = [
    ("run_as", True, {"run_as": "isolated"}),
    ("run_as", True, {"run_as": "user:root"}),
    ("limits.memory_mib", True, {"limits": ServerLimits(memory_mib=1)}),
    ("run_as", False, {"run_as": "root"}),
    ("run_as", False, {"run_as": "user:"}),
    ("run_as", False, {"run_as": "user:a:b"}),
    ("run_as", False, {"run_as": "caller\n"}),
    ("run_as", False, {"run_as": "user:../x"}),
    ("run_as", False, {"shared": True}),
    ("env", False, {"env": {"": "x"}}),
    ("env", True, {"env": {"A=B": "x"}}),
    ("writable", True, {"read_only": True, "writable": ("here",)}),
    ("writable", True, {"read_only": True, "writable": ("/a\0b",)}),
    ("writable", True, {"writable": ("/srv",)}),
]
UNIX: list[tuple[str, dict[str, Any]]] = [
    ("run_as", {"run_as": "isolated"}),
    ("network", {"network": False}),
    ("read_only", {"read_only": True}),
    ("writable", {"writable": ("/srv",)}),
    ("limits", {"limits": ServerLimits(open_files=1)}),
]


def settings(**changes: Any) -> ServerSettings:
    """A started server, changed."""
    return ServerSettings(**{"name": "time", "transport": "stdio", "command": ("server",), **changes})


@pytest.mark.parametrize("changes", SYSTEM)
def test_good_ones_are_written_and_read_again(tmp_path: Path, changes: dict[str, Any]):
    """Nothing is lost on the way through the file."""
    server = settings(**changes)
    write_server(tmp_path, server)
    assert load_servers(tmp_path, SOCKETS, user_mode=False) == {"time": server}


def test_user_mode_confines_without_privilege(tmp_path: Path):
    """Network, files and the limits of processes can be taken away by an ordinary user, too."""
    write_server(tmp_path, settings(**CONFINED))
    (server,) = load_servers(tmp_path, SOCKETS, user_mode=True).values()
    assert sandbox(server) == Sandbox(
        network=False,
        read_only=True,
        writable=("/srv/a", "/srv/b c"),
        limits=(("open_files", 100), ("processes", 10), ("address_space_mib", 500), ("file_mib", 7)),
    )
    assert sandbox(settings()) == Sandbox()


@pytest.mark.parametrize(("key", "user_mode", "changes"), BAD)
def test_bad_ones_name_the_key(key: str, user_mode: bool, changes: dict[str, Any]):
    """Each rule names its key, what was found and what was expected."""
    with pytest.raises(ConfigurationError, match=rf"server\.{key}: found .*, expected "):
        validate_server(settings(**changes), Path("f"), SOCKETS, user_mode=user_mode)


@pytest.mark.parametrize(("key", "changes"), UNIX)
def test_what_is_not_started_is_not_confined(key: str, changes: dict[str, Any]):
    """A key that would do nothing is refused, so that nobody relies on it."""
    server = settings(**{"transport": "unix", "command": (), "socket": "/s", **changes})
    with pytest.raises(ConfigurationError, match=rf"server\.{key}: found .*does not start"):
        validate_server(server, Path("f"), SOCKETS, user_mode=False)
