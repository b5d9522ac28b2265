"""Which servers there are, and whose."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from attestd.control.routes import Right
from attestd.daemon.app import Front
from attestd.daemon.config import BackPeer, RegistrySettings, ServerSettings, Settings
from attestd.daemon.paths import Paths
from attestd.daemon.registry import MOST_OWN, Registered, Registry, own_name, socket_of, visible
from attestd.errors import ConfigurationError, NothingToDoError

OWN_ALLOWED = Settings(servers=RegistrySettings(users_may_add=True))
NOTES = ServerSettings(name="notes", transport="unix", socket="/run/notes.sock")


@pytest.fixture(name="paths")
def _paths(short_tmp: Path) -> Paths:
    paths = Paths(config=short_tmp / "c", state=short_tmp / "s", runtime=short_tmp / "r", user_mode=False)
    paths.servers.mkdir(parents=True)
    paths.state.mkdir()
    return paths


def fronts(found: dict[str, Registered]) -> dict[str, Front]:
    """As the daemon would serve them, as far as the registry looks."""
    return {
        name: Front(settings=each.settings, owner=each.owner, listener=None, path=each.file, bindings=None, silent=None)  # type: ignore[arg-type]
        for name, each in found.items()
    }


def write(directory: Path, name: str, text: str = "") -> Path:
    """A server file."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.toml"
    path.write_text(text or f'[server]\nname = "{name}"\ntransport = "unix"\nsocket = "/run/{name}.sock"\n')
    return path


def test_everybodys_and_ones_own_are_told_apart(paths: Paths):
    """Root's file, an added one and two users' own of one name are four servers; a user's is held to that user."""
    write(paths.servers, "time")
    registry = Registry(paths)
    registry.add(NOTES, None)
    registry.add(NOTES, 5)
    write(paths.registry / "6", "clock")
    found = registry.load(OWN_ALLOWED)
    assert {name: each.owner for name, each in found.items()} == {"time": None, "notes": None, "clock@6": 6}
    assert "registered for everybody" in registry.troubles[5]
    assert found["clock@6"].settings.peer == BackPeer(uid=6)
    assert registry.load(Settings()).keys() == {"time", "notes"}
    assert (paths.registry / "5").stat().st_mode & 0o077 == 0


def test_names_and_sockets(paths: Paths):
    """A user's own server is called and found by its uid too, so it meets nobody else's."""
    assert own_name(5, "notes") == "notes@5"
    assert socket_of(paths.sockets, "notes@5") == paths.sockets / "5" / "notes.sock"
    assert socket_of(paths.sockets, "notes") == paths.sockets / "notes.sock"
    assert (visible(None, 5), visible(5, 5), visible(5, 6), visible(5, None)) == (True, True, False, True)


def test_a_name_is_found_by_whom_it_exists_for(paths: Paths):
    """What a user calls notes is that user's; another's does not exist, by either name; administrators name it whole."""
    registry = Registry(paths)
    registry.add(NOTES, 5)
    served = fronts(registry.load(OWN_ALLOWED))
    assert registry.find("notes", served, 5, 5) == registry.find("notes@5", served, 5, 5) == "notes@5"
    assert registry.find("notes@5", served, 6, None) == "notes@5"
    for name in ("notes", "notes@5", "nothing"):
        with pytest.raises(NothingToDoError, match="cannot find the server"):
            registry.find(name, served, 6, 6)
    assert registry.right("notes", served, 5) is Right.APPROVE
    assert registry.right("notes@5", served, 6) is Right.MANAGE
    assert registry.right("../5/notes", served, 6) is Right.MANAGE


@pytest.mark.parametrize(
    ("server", "what"),
    [
        (ServerSettings(name="x", transport="http", url="http://127.0.0.1:1/mcp", token_file="/etc/shadow"), "token"),
        (ServerSettings(name="x", transport="http", url="https://a.example/mcp", ca_file="/etc/shadow"), "token_file"),
        (ServerSettings(name="x", transport="unix", socket="/run/x", shared=True), "shared"),
        (ServerSettings(name="../x", transport="unix", socket="/run/x"), "name"),
        (ServerSettings(name="time", transport="unix", socket="/run/x"), "there is one of that name"),
        (ServerSettings(name="x@6", transport="unix", socket="/run/x"), "name"),
    ],
)
def test_what_a_user_may_not_add_for_itself(paths: Paths, server: ServerSettings, what: str):
    """Files that the daemon would read, what others would share, places of others, names that are taken."""
    write(paths.servers, "time")
    registry = Registry(paths)
    served = fronts(registry.load(OWN_ALLOWED))
    with pytest.raises(ConfigurationError, match=what):
        registry.check(server, 5, served)


def test_a_user_may_have_so_many(paths: Paths):
    """Then no more."""
    for number in range(MOST_OWN + 3):
        write(paths.registry / "5", f"n{number:02}")
    registry = Registry(paths)
    served = fronts(registry.load(OWN_ALLOWED))
    assert len(served) == MOST_OWN
    with pytest.raises(ConfigurationError, match="the most allowed"):
        registry.check(NOTES, 5, served)
    registry.check(NOTES, 6, served)


def test_a_users_bad_file_stops_nobody(paths: Paths):
    """It is left out and its user is told; an administrator's bad file is an error."""
    write(paths.registry / "5", "bad", "[server\n")
    write(paths.registry / "5", "secret", '[server]\nname = "secret"\ntransport = "stdio"\ncommand = ["/bin/sh"]\n')
    write(paths.registry / "5", "good")
    registry = Registry(paths)
    assert registry.load(OWN_ALLOWED).keys() == {"good@5"}
    assert "not valid TOML" in registry.troubles[5]
    write(paths.registry / "all", "bad", "[server\n")
    with pytest.raises(ConfigurationError, match="not valid TOML"):
        registry.load(OWN_ALLOWED)


def test_what_root_wrote_is_roots(paths: Paths):
    """A server of servers.d is not removed here; one that was added is, and one defined twice is an error."""
    write(paths.servers, "time")
    registry = Registry(paths)
    added = registry.add(NOTES, None)
    served = fronts(registry.load(OWN_ALLOWED))
    with pytest.raises(ConfigurationError, match="it is defined in") as refused:
        registry.demand_removable(served["time"])
    assert "remove that file as root" in refused.value.hint
    registry.demand_removable(served["notes"])
    assert registry.file(served["notes"]) == added.file
    registry.remove(served["notes"])
    assert not added.file.exists()
    write(paths.registry / "all", "time")
    with pytest.raises(ConfigurationError, match="already defined"):
        registry.load(OWN_ALLOWED)


def test_user_mode_has_one_place(paths: Paths):
    """Everything is servers.d, also what is added; state is not looked at."""
    user = Paths(config=paths.config, state=paths.state, runtime=paths.runtime, user_mode=True)
    write(user.registry / str(os.getuid()), "hidden")
    registry = Registry(user)
    registry.check(NOTES, None, {})
    assert registry.add(NOTES, None).file == user.servers / "notes.toml"
    assert registry.load(OWN_ALLOWED).keys() == {"notes"}
