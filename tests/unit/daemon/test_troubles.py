"""The last errors, by whose affair they are."""

from __future__ import annotations

from attestd.daemon.troubles import LAST, USERS, Troubles


def said(troubles: Troubles, sees: int | None, count: int = LAST) -> list[str]:
    """The texts."""
    return [text for _, text in troubles.seen(sees, count)]


def test_each_sees_its_own_and_administrators_all():
    """A user is told neither the service's nor another user's."""
    troubles = Troubles()
    troubles.add("the service's")
    troubles.add("five's", 5)
    troubles.add("six's", 6)
    assert said(troubles, 5) == ["five's"]
    assert said(troubles, 7) == []
    assert said(troubles, None) == ["the service's", "five's", "six's"]
    assert said(troubles, None, 1) == ["six's"]


def test_one_user_pushes_nobody_elses_out():
    """However many one user meets, the service's and others' stay; of its own the last are kept."""
    troubles = Troubles()
    troubles.add("the service's")
    troubles.add("five's", 5)
    for number in range(3 * LAST):
        troubles.add(f"six's {number}", 6)
    assert said(troubles, 5) == ["five's"]
    assert said(troubles, 6)[0] == f"six's {2 * LAST}"
    assert "the service's" in said(troubles, None, 10 * LAST)


def test_there_is_a_bound_on_users():
    """With too many users those go who met an error first, never the service."""
    troubles = Troubles()
    troubles.add("the service's")
    for uid in range(USERS + 1):
        troubles.add("x", uid)
    assert said(troubles, 0) == []
    assert said(troubles, USERS) == ["x"]
    assert said(troubles, None, 2 * USERS)[0] == "the service's"
