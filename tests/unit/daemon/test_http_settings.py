"""What a server file may say about an HTTP back end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attestd.daemon.config import BackPeer, ServerSettings, load_servers, validate_server, write_server
from attestd.errors import ConfigurationError

GOOD: list[dict[str, Any]] = [
    {"url": "http://127.0.0.1:8000/mcp"},
    {"url": "http://[::1]:8000/mcp", "peer": BackPeer(program="ab" * 32, uid=0)},
    {"url": "http://localhost:8000/sse", "transport": "sse", "shared": True},
    {"url": "https://mcp.example.org/mcp", "token_file": "/etc/token", "header_files": {"X-Api-Key": "/etc/key"}},
    {"url": "https://127.0.0.1/mcp", "ca_file": "/etc/ca.pem", "peer": BackPeer(uid=0)},
    {"url": "http://name/mcp", "socket": "/run/server.sock"},
]
BAD: list[tuple[str, dict[str, Any]]] = [
    ("url", {}),
    ("url", {"url": "http://mcp.example.org/mcp"}),
    ("url", {"url": "http://192.168.0.1/mcp"}),
    ("url", {"url": "https://mcp.example.org/mcp", "socket": "/run/s.sock"}),
    ("url", {"url": "http://user:word@127.0.0.1/"}),
    ("socket", {"url": "http://name/", "socket": "relative.sock"}),
    ("command", {"url": "http://127.0.0.1/", "command": ("server",)}),
    ("env", {"url": "http://127.0.0.1/", "env": {"A": "b"}}),
    ("header_files", {"url": "http://127.0.0.1/", "header_files": {"Host": "/etc/x"}}),
    ("header_files", {"url": "http://127.0.0.1/", "header_files": {"Mcp-Session-Id": "/etc/x"}}),
    ("header_files", {"url": "http://127.0.0.1/", "header_files": {"A\r\nB": "/etc/x"}}),
    ("header_files", {"url": "http://127.0.0.1/", "header_files": {"Content-Length": "/etc/x"}}),
    ("token_file", {"url": "http://127.0.0.1/", "token_file": "token"}),
    ("ca_file", {"url": "http://127.0.0.1/", "ca_file": "/etc/ca.pem"}),
    ("peer", {"url": "https://mcp.example.org/", "peer": BackPeer(uid=0)}),
    ("peer.program", {"url": "http://127.0.0.1/", "peer": BackPeer(program="xy")}),
    ("url", {"transport": "stdio", "command": ("server",), "url": "http://127.0.0.1/"}),
    ("token_file", {"transport": "unix", "socket": "/s", "token_file": "/etc/token"}),
]


def settings(**changes: Any) -> ServerSettings:
    """A server of transport http, changed."""
    return ServerSettings(**{"name": "far", "transport": "http", **changes})


@pytest.mark.parametrize("changes", GOOD)
def test_good_ones_are_written_and_read_again(tmp_path: Path, changes: dict[str, Any]):
    """Nothing is lost on the way through the file."""
    server = settings(**changes)
    validate_server(server, Path("f"), tmp_path, user_mode=True)
    validate_server(server, Path("f"), tmp_path, user_mode=False)
    write_server(tmp_path, server)
    assert load_servers(tmp_path, tmp_path, user_mode=True) == {"far": server}


@pytest.mark.parametrize(("key", "changes"), BAD)
def test_bad_ones(tmp_path: Path, key: str, changes: dict[str, Any]):
    """The key, what was found, what is expected."""
    with pytest.raises(ConfigurationError, match=rf"server\.{key}: found .*, expected "):
        validate_server(settings(**changes), Path("f"), tmp_path, user_mode=True)


def test_the_content_of_a_secret_is_never_in_a_message(tmp_path: Path):
    """Not even its path where a value was written by mistake."""
    with pytest.raises(ConfigurationError) as found:
        validate_server(settings(url="http://127.0.0.1/", token_file="ghp_secret"), Path("f"), tmp_path, user_mode=True)
    assert "ghp_secret" not in found.value.message
