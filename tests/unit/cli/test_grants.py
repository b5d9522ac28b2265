"""``attestctl grants``."""

from __future__ import annotations

from tests.support.control_instance import Installation


def test_the_list_has_hits_and_last_use(looking: Installation) -> None:
    """A table with the grant's id in one piece."""
    shown = looking.run("grants", "list").stdout
    assert shown.splitlines()[0].split() == ["grant", "server", "to", "what", "lasts", "used", "last", "use"]
    assert "g-1" in shown
    assert "never" in shown


def test_filters_are_passed_on(looking: Installation) -> None:
    """Server and disuse."""
    assert len(looking.json("grants", "list", "--unused", "30d", "--server", "time")) == 1
    result = looking.run("grants", "list", "--server", "other")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "no grant matches\n")


def test_one_grant_is_shown_whole(looking: Installation) -> None:
    """To whom, for what, until when, by whom."""
    shown = looking.run("grants", "show", "g-1").stdout
    for expected in (
        "ab" * 32,
        "get_current_time",
        "approved by  root (root) from 7F3K-9QRT",
        "level        at least 1",
    ):
        assert expected in shown


def test_revoking_ends_a_grant(fresh: Installation) -> None:
    """It is out of the list, and with --all still there as revoked."""
    assert fresh.run("grants", "revoke", "g-1").stdout.startswith("revoked g-1: client.py")
    assert fresh.run("grants", "list", "--json").stdout == ""
    (ended,) = fresh.json("grants", "list", "--all")
    assert ended["revoked"]


def test_revoking_an_unknown_grant_revokes_none(fresh: Installation) -> None:
    """All or nothing."""
    assert fresh.run("grants", "revoke", "g-1", "g-9").returncode == 9
    assert len(fresh.json("grants", "list")) == 1


def test_renewing_moves_the_end(fresh: Installation) -> None:
    """A later end."""
    (before,) = fresh.json("grants", "show", "g-1")
    (after,) = fresh.json("grants", "renew", "g-1", "--for", "8h")
    assert after["expires"] != before["expires"]
    assert "renewed g-1: lasts until" in fresh.run("grants", "renew", "g-1", "--for", "1h").stdout
