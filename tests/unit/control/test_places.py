"""Where sockets lie when nobody says so."""

from __future__ import annotations

import pwd
import sys

import pytest

from attestd.control import places


def test_on_linux():
    """What systemd makes for a user, and the service's own."""
    assert places.user_runtime(7) == "/run/user/7"
    assert places.system_runtime() == "/run/attestd"


def test_on_macos(monkeypatch: pytest.MonkeyPatch):
    """Below the home directory that the account has, not that the environment says; short enough for a socket."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("HOME", "/elsewhere")
    assert places.user_runtime(0) == f"{pwd.getpwuid(0).pw_dir}/.local/run"
    assert places.user_runtime(1_999_999_999) == "/var/empty"
    assert places.system_runtime() == "/var/run/attestd"
    assert len(f"/Users/{'x' * 20}/.local/run/attestd/mcp/{'s' * 30}.sock") < 104
