"""Where everything lives."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from attestd.daemon.paths import Paths, policy_directory, private_directory, system_paths, user_paths
from attestd.errors import ConfigurationError

XDG = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")


def test_user_mode_follows_xdg(monkeypatch: pytest.MonkeyPatch):
    """Each variable moves its part, and every file has its place below."""
    monkeypatch.setenv("HOME", "/home/u")
    for name, value in zip(XDG, ("/c", "/s", "/r"), strict=True):
        monkeypatch.setenv(name, value)
    paths = user_paths()
    assert paths == Paths(
        config=Path("/c/attestd"), state=Path("/s/attestd"), runtime=Path("/r/attestd"), user_mode=True
    )
    assert str(paths.config_file) == "/c/attestd/attestd.toml"
    assert str(paths.servers) == "/c/attestd/servers.d"
    assert str(paths.policies) == "/c/attestd/policy.d"
    assert str(paths.sockets) == "/r/attestd/mcp"
    assert str(paths.control) == "/r/attestd/control.sock"
    assert str(paths.store) == "/s/attestd/grants.db"
    assert str(paths.audit) == "/s/attestd/audit"


def test_user_mode_without_xdg(monkeypatch: pytest.MonkeyPatch):
    """The defaults of the specification; the runtime directory is that of the uid, as the shim assumes too."""
    monkeypatch.setenv("HOME", "/home/u")
    for name in XDG:
        monkeypatch.delenv(name, raising=False)
    paths = user_paths()
    assert str(paths.config) == "/home/u/.config/attestd"
    assert str(paths.state) == "/home/u/.local/state/attestd"
    assert str(paths.runtime) == f"/run/user/{os.getuid()}/attestd"
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    assert str(user_paths().config) == "/home/u/.config/attestd"


def test_without_a_home_there_is_no_user_mode(monkeypatch: pytest.MonkeyPatch):
    """It is said which variable is missing."""
    monkeypatch.delenv("HOME", raising=False)
    with pytest.raises(ConfigurationError, match="HOME is not set") as found:
        user_paths()
    assert found.value.hint


def test_system_mode_has_the_systems_places():
    """The directories of the documents."""
    paths = system_paths()
    assert (str(paths.config), str(paths.state), str(paths.runtime)) == (
        "/etc/attestd",
        "/var/lib/attestd",
        "/run/attestd",
    )
    assert not paths.user_mode
    assert str(paths.launcher) == "/run/attestd-launcher.sock"  # the daemon may not write there


def test_system_mode_of_macos(monkeypatch: pytest.MonkeyPatch):
    """The directories that packaging/launchd makes."""
    monkeypatch.setattr(sys, "platform", "darwin")
    paths = system_paths()
    assert str(paths.config) == "/Library/Application Support/attestd"
    assert (str(paths.state), str(paths.runtime)) == ("/var/db/attestd", "/var/run/attestd")
    assert str(paths.control) == "/var/run/attestd/control.sock"


def test_the_shipped_policy_is_found():
    """In this checkout, with schema, baseline and classes."""
    found = policy_directory()
    assert {"attestd.cedarschema", "baseline.cedar", "classes.toml"} <= {path.name for path in found.iterdir()}


def test_no_policy_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Every place that was looked at is named."""
    monkeypatch.setattr("attestd.daemon.paths.__file__", str(tmp_path / "a" / "b" / "paths.py"))
    with pytest.raises(ConfigurationError, match=r"looked for attestd.cedarschema in") as found:
        policy_directory()
    assert str(tmp_path) in found.value.message


def test_a_private_directory_is_made_and_narrowed(tmp_path: Path):
    """It has exactly the mode, whatever it had before and whatever the umask is."""
    path = tmp_path / "a" / "b"
    private_directory(path, 0o700)
    assert path.stat().st_mode & 0o7777 == 0o700
    path.chmod(0o777)
    private_directory(path, 0o755)
    assert path.stat().st_mode & 0o7777 == 0o755


def test_what_is_no_directory_is_refused(tmp_path: Path):
    """A file, and a link to a directory, are not used."""
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(ConfigurationError, match=f"cannot use {tmp_path / name}"):
            private_directory(tmp_path / name, 0o700)


@pytest.mark.root
def test_somebody_elses_directory_is_refused(tmp_path: Path):
    """Both uids are named, and it stays as it was."""
    path = tmp_path / "theirs"
    path.mkdir(mode=0o777)
    os.chown(path, 60_001, 60_001)
    with pytest.raises(ConfigurationError, match="belongs to uid 60001, not to uid 0"):
        private_directory(path, 0o700)
    assert path.stat().st_uid == 60_001


@pytest.mark.ordinary
def test_no_permission_is_said_to_be_so(tmp_path: Path):
    """The directory above may not be written."""
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigurationError, match="Permission denied"):
        private_directory(tmp_path / "a", 0o700)
    tmp_path.chmod(0o700)
