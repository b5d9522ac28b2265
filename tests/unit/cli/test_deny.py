"""``attestctl deny``."""

from __future__ import annotations

from tests.support.control_instance import Installation


def test_a_denied_client_waits_no_more(fresh: Installation) -> None:
    """It is gone from the list, and its code with it."""
    result = fresh.run("deny", "7F3K-9QRT")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("denied 7F3K-9QRT: client.py")
    assert "7F3K-9QRT" not in [each["code"] for each in fresh.json("pending")]
    assert fresh.run("deny", "7F3K-9QRT").returncode == 9


def test_always_is_passed_on(fresh: Installation) -> None:
    """The daemon learns that it must not ask again."""
    (denied,) = fresh.json("deny", "EV1L-NAME", "--always")
    assert denied["always"] is True


def test_denying_needs_the_right_too(idle: Installation) -> None:
    """Who may not approve may not clear the queue."""
    with idle.daemon(how=""):
        assert idle.run("deny", "7F3K-9QRT").returncode == 4
        assert len(idle.json("pending")) == 4
