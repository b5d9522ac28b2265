"""``attestctl status``."""

from __future__ import annotations

from attestd.control.usermode import NOT_PROTECTED
from tests.support.control_instance import Installation


def test_user_mode_says_what_it_does_not_protect_against(looking: Installation) -> None:
    """Every sentence is shown, whole, on a line of its own."""
    lines = looking.run("status").stdout.splitlines()
    assert [f"  - {sentence}" for sentence in NOT_PROTECTED] == [line for line in lines if line.startswith("  - ")]


def test_system_mode_does_not(idle: Installation) -> None:
    """There is nothing to say there."""
    with idle.daemon(mode="system"):
        assert "does not protect" not in idle.run("status").stdout


def test_the_documented_keys(looking: Installation) -> None:
    """What scripts rely on."""
    (status,) = looking.json("status")
    assert set(status) >= {"mode", "version", "pid", "uptime_s", "recorder", "servers", "sessions", "policy", "audit"}
    assert status["sessions"] == 2


def test_no_server_says_how_to_add_one(idle: Installation) -> None:
    """A fresh daemon helps on."""
    with idle.daemon(empty=["registry"]):
        assert "attestctl servers add" in idle.run("status").stdout
