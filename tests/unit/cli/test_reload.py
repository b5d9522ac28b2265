"""``attestctl reload``."""

from __future__ import annotations

from tests.support.control_instance import Installation


def test_what_changed_is_told(fresh: Installation) -> None:
    """Generation and changes."""
    assert fresh.run("reload").stdout == "reloaded generation 4\n  - servers.d/time.toml: read again\n"


def test_reloading_needs_the_right(idle: Installation) -> None:
    """Who may not approve may not reload."""
    with idle.daemon(how=""):
        assert idle.run("reload").returncode == 4
