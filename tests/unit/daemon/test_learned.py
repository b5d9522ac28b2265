from __future__ import annotations

from attestd.daemon.learned import CHARACTERS, TOOL, remember


def test_pages_add_up():
    """And a later word of one tool replaces the earlier one."""
    known: dict[str, bool] = {}
    remember(known, {"a": True, "b": False})
    remember(known, {"b": True, "c": False})
    assert known == {"a": True, "b": True, "c": False}


def test_a_server_with_other_names_in_every_list_fills_nothing():
    """However often it is asked, no more is held than the bound, and its last list is among it."""
    known: dict[str, bool] = {}
    for number in range(20):
        remember(known, {f"{number}-{tool}" + "x" * 1000: True for tool in range(300)})
        assert sum(map(len, known)) + TOOL * len(known) <= CHARACTERS
    assert f"19-299{'x' * 1000}" in known


def test_one_list_that_is_too_much_is_kept_in_part():
    """A name of megabytes finds no room; the others do."""
    known: dict[str, dict[str, str]] = {}
    remember(known, {"a": {}, "b" * (CHARACTERS + 1): {}, "c": {"path": "y" * (CHARACTERS + 1)}})
    assert set(known) == {"a"}
