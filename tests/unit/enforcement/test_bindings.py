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
