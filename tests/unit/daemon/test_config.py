"""Configuration files: strict, and every error says file, line or key, what was found and what is allowed."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.daemon.config import (
    BackPeer,
    LimitSettings,
    ServerSettings,
    Settings,
    load_servers,
    load_settings,
    remove_server,
    server_file,
    validate_server,
    write_server,
)
from attestd.errors import ConfigurationError

SOCKETS = Path("/run/user/1000/attestd/mcp")
GOOD: dict[str, Any] = {"name": "time", "transport": "stdio", "command": ("mcp-server-time",)}


def settings(tmp_path: Path, text: str) -> Settings:
    """attestd.toml with this text."""
    path = tmp_path / "attestd.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path)


def refused(tmp_path: Path, text: str) -> ConfigurationError:
    """How that text is refused."""
    with pytest.raises(ConfigurationError) as found:
        settings(tmp_path, text)
    return found.value


def test_a_missing_file_is_all_defaults(tmp_path: Path):
    """The defaults are those of the documents: 16 MiB, depth 64, 256 open requests, nobody approves by configuration."""
    found = load_settings(tmp_path / "nosuch.toml")
    assert found == Settings()
    assert (found.limits.message_bytes, found.limits.depth, found.limits.open_requests) == (16 << 20, 64, 256)
    assert found.limits.attest_seconds == 20.0
    assert found.approval.approvers == ()


def test_every_key_is_read(tmp_path: Path):
    """A whole file."""
    found = settings(
        tmp_path,
        'note = "test"\n[limits]\nmessage_bytes = 1000\ndepth = 9\nopen_requests = 2\nheld_bytes = 7\n'
        "connections_per_uid = 3\nattesting_per_uid = 4\nattest_seconds = 1.5\n"
        '[approval]\napprovers = ["aa"]\ncode_minutes = 1\n[identity]\ntrust_domain = "x"\nhost_id = "h"\n',
    )
    assert found.note == "test"
    assert found.limits.wire.message_bytes == 1000
    assert (found.limits.connections_per_uid, found.limits.attesting_per_uid, found.limits.attest_seconds) == (
        3,
        4,
        1.5,
    )
    assert (found.approval.approvers, found.approval.code_minutes) == (("aa",), 1)
    assert (found.identity.trust_domain, found.identity.host_id) == ("x", "h")


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("[limits]\n\nbyte = 1\n", ["attestd.toml", "unknown field `byte`", "(line 3)"], "message_bytes"),
        ("nosuch = 1\n", ["unknown field `nosuch`", "(line 1)"], "limits, approval, identity"),
        (
            '[approval]\napprovers = "me"\n',
            ["Expected `array`, got `str`", "approval.approvers", "(line 2)"],
            "correct",
        ),
        ("[limits]\ndepth = 1.5\n", ["Expected `int`, got `float`", "(line 2)"], "correct"),
        ("[limits]\ndepth = 1\ndepth = 2\n", ["not valid TOML", "line 3"], "correct"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: list[str], hint: str):
    """File, key, line, what was found, what is allowed."""
    error = refused(tmp_path, text)
    for word in words:
        assert word in error.message
    assert hint in error.hint
    assert error.exit_code == 3


@pytest.mark.parametrize(
    ("key", "value"), [("message_bytes", 0), ("depth", -1), ("open_requests", 0), ("attest_seconds", 0)]
)
def test_a_limit_is_positive(tmp_path: Path, key: str, value: int):
    """A limit of nothing would refuse everything: it is refused itself."""
    assert key in refused(tmp_path, f"[limits]\n{key} = {value}\n").message


def test_a_file_that_is_not_text(tmp_path: Path):
    """Not UTF-8 is said to be so."""
    (tmp_path / "attestd.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="it is not UTF-8"):
        load_settings(tmp_path / "attestd.toml")


# -- servers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"name": "Time"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "../x"}, "name"),
        ({"name": "a" * 65}, "name"),
        ({"name": "time\n"}, "name"),
        ({"command": ()}, "command"),
        ({"command": ("a\0b",)}, "command"),
        ({"env": {"A": "b\0"}}, "command"),
        ({"socket": "/x"}, "socket"),
        ({"run_as": "user:root"}, "run_as"),
        ({"transport": "unix", "command": ()}, "socket"),
        ({"transport": "unix", "command": (), "socket": "here"}, "socket"),
        ({"transport": "unix", "socket": "/x"}, "command"),
    ],
)
def test_what_a_server_may_not_be(changes: dict[str, Any], key: str):
    """Each rule names its key, what was found and what was expected."""
    server = ServerSettings(**{**GOOD, **changes})
    with pytest.raises(ConfigurationError, match=rf"f\.toml: server\.{key}: found .*, expected ") as found:
        validate_server(server, Path("f.toml"), SOCKETS, user_mode=True)
    assert found.value.hint


def test_in_system_mode_a_started_servers_file_is_called_like_it(tmp_path: Path):
    """The launcher finds it by the name that the daemon says, so another file name is refused; user mode does not mind."""
    (tmp_path / "b.toml").write_text('[server]\nname = "a"\ntransport = "stdio"\ncommand = ["y"]\n')
    assert list(load_servers(tmp_path, SOCKETS, user_mode=True)) == ["a"]
    with pytest.raises(ConfigurationError, match=r"b\.toml: server\.name: found 'a', expected 'b'"):
        load_servers(tmp_path, SOCKETS, user_mode=False)
    (tmp_path / "b.toml").rename(tmp_path / "a.toml")
    assert list(load_servers(tmp_path, SOCKETS, user_mode=False)) == ["a"]


def test_a_socket_path_must_fit():
    """The kernel takes 107 bytes; a name that does not fit below its directory is refused."""
    deep = Path("/" + "d" * 90)
    validate_server(ServerSettings(**{**GOOD, "name": "n" * 10}), Path("f"), deep, user_mode=True)
    with pytest.raises(ConfigurationError, match="at most 107 bytes"):
        validate_server(ServerSettings(**{**GOOD, "name": "n" * 12}), Path("f"), deep, user_mode=True)


def test_two_servers_of_one_name_name_both_files(tmp_path: Path):
    """Which of them would be served is not left to chance."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text('[server]\nname = "x"\ntransport = "stdio"\ncommand = ["y"]\n')
    with pytest.raises(ConfigurationError, match=r"b\.toml: server 'x' is already defined in .*a\.toml"):
        load_servers(tmp_path, SOCKETS, user_mode=True)


def test_no_directory_is_no_server(tmp_path: Path):
    """A fresh installation has none, and other files there are left alone."""
    assert load_servers(tmp_path / "nosuch", SOCKETS, user_mode=True) == {}
    (tmp_path / "README").write_text("not toml")
    assert load_servers(tmp_path, SOCKETS, user_mode=True) == {}


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(
    command=st.lists(TEXT, min_size=1, max_size=4),
    env=st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), TEXT, max_size=3),
    cwd=TEXT,
    shared=st.booleans(),
)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, **facts: Any):
    """Whatever words a server has, its file gives exactly them back."""
    server = ServerSettings(
        name="x",
        transport="stdio",
        command=tuple(facts["command"]),
        env=facts["env"],
        cwd=facts["cwd"],
        shared=facts["shared"],
    )
    directory = tmp_path_factory.mktemp("servers")
    write_server(directory, server)
    assert load_servers(directory, SOCKETS, user_mode=True) == {"x": server}


def test_a_unix_server_is_written_with_its_peer(tmp_path: Path):
    """Who must listen there is kept, uid 0 too; nothing half-written is left."""
    server = ServerSettings(name="x", transport="unix", socket="/s", peer=BackPeer(uid=0, exe_sha256="ab"))
    path = write_server(tmp_path / "new", server)
    assert load_servers(path.parent, SOCKETS, user_mode=True) == {"x": server}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["x.toml"]


def test_a_file_that_cannot_be_written(tmp_path: Path):
    """The reason of the operating system is told."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot write .*x\.toml"):
        write_server(tmp_path / "file", ServerSettings(**{**GOOD, "name": "x"}))


def test_limits_carry_over_to_the_wire():
    """Every limit of a session comes from configuration."""
    limits = LimitSettings(message_bytes=1, depth=2, open_requests=3, held_bytes=4).wire
    assert (limits.message_bytes, limits.depth, limits.open_requests, limits.held_bytes) == (1, 2, 3, 4)


def test_a_server_is_removed_from_the_file_that_defines_it(tmp_path: Path):
    """Whatever that file is called; broken files in between are passed over."""
    text = '[server]\nname = "x"\ntransport = "stdio"\ncommand = ["y"]\n'
    (tmp_path / "a.toml").write_text("broken")
    (tmp_path / "odd.toml").write_text(text)
    assert server_file(tmp_path, "x") == tmp_path / "odd.toml"
    assert server_file(tmp_path, "y") == tmp_path / "y.toml"
    remove_server(tmp_path, "x")
    assert [path.name for path in tmp_path.iterdir()] == ["a.toml"]
    remove_server(tmp_path, "x")
