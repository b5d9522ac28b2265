"""``attestctl why``."""

from __future__ import annotations

from tests.support.control_instance import Installation


def test_a_refusal_says_what_would_change_it(looking: Installation) -> None:
    """The failing clause and the remedy are shown."""
    shown = looking.run("why", "--server", "other", "--tool", "x").stdout
    for expected in ("deny  tools/call x on other", "[fails] grant:", "to change it: approve it with"):
        assert expected in shown


def test_nothing_has_happened(looking: Installation) -> None:
    """There is no decision id and no time."""
    (explanation,) = looking.json("why", "--server", "time", "--resource", "file:///x")
    assert (explanation["decision"], explanation["time"], explanation["name"]) == ("", None, "file:///x")
