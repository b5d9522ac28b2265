from __future__ import annotations

import pytest

from attestd.enforcement.bindings import Bindings

ME = (1000, "p", "c")
OTHER = (1000, "q", "c")


@pytest.mark.parametrize("sole", [True, False])
def test_what_is_bound_belongs_to_its_owner_only(sole: bool):
    """A task of one identity does not exist for another of the same uid."""
    bindings = Bindings()
    assert bindings.bind("task", "t1", ME, sole=sole)
    assert bindings.owns("task", "t1", ME)
    assert not bindings.owns("task", "t1", OTHER)


@pytest.mark.parametrize("sole", [True, False])
def test_somebody_elses_sole_binding_cannot_be_taken(sole: bool):
    """A shared server that hands the same task to a second identity neither moves nor shares it."""
    bindings = Bindings()
    bindings.bind("task", "t1", ME, sole=True)
    assert not bindings.bind("task", "t1", OTHER, sole=sole)
    assert bindings.owns("task", "t1", ME)
    assert not bindings.owns("task", "t1", OTHER)


def test_two_who_were_given_the_same_value_own_it_both():
    """Back ends of their own number their tasks alike; neither caller is refused what its own server gave it."""
    bindings = Bindings()
    assert bindings.bind("task", "1", ME, sole=False)
    assert bindings.bind("task", "1", OTHER, sole=False)
    assert bindings.owns("task", "1", ME)
    assert bindings.owns("task", "1", OTHER)


def test_kinds_are_separate():
    """A request state with the text of a task id is not that task."""
    bindings = Bindings()
    bindings.bind("task", "x", ME, sole=True)
    assert not bindings.owns("state", "x", ME)


@pytest.mark.parametrize("sole", [True, False])
def test_what_is_forgotten_belongs_to_nobody(sole: bool):
    """Beyond the limit the oldest binding goes, and refuses its former owner too."""
    bindings = Bindings(limit=2)
    for value in ("a", "b", "c"):
        bindings.bind("task", value, ME, sole=sole)
    assert not bindings.owns("task", "a", ME)
    assert bindings.owns("task", "c", ME)


@pytest.mark.parametrize("sole", [True, False])
def test_one_user_pushes_out_nothing_of_another(sole: bool):
    """Whose server hands out states without end loses its own."""
    bindings = Bindings(limit=4)
    theirs = (1001, "p", "c")
    for value in ("a", "b"):
        bindings.bind("state", value, theirs, sole=sole)
    for number in range(9):
        bindings.bind("state", str(number), ME, sole=sole)
    assert bindings.owns("state", "a", theirs)
    assert bindings.owns("state", "b", theirs)
    assert [number for number in range(9) if bindings.owns("state", str(number), ME)] == [7, 8]


def test_a_long_value_is_not_kept_whole():
    """A server's state of a mebibyte takes no more room than a short one, and is still only itself."""
    bindings = Bindings()
    long = "x" * (1 << 20)
    bindings.bind("state", long, ME, sole=False)
    held = sum(len(value) for entries in bindings._of_uid.values() for _, value, _, _ in entries)
    assert held < 100
    assert bindings.owns("state", long, ME)
    assert not bindings.owns("state", long + "x", ME)


def test_what_is_bound_again_is_young_again():
    """And counts once."""
    bindings = Bindings(limit=2)
    for value in ("a", "b", "a", "c"):
        bindings.bind("task", value, ME, sole=True)
    assert bindings.owns("task", "a", ME)
    assert not bindings.owns("task", "b", ME)
