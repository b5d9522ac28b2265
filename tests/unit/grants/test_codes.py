"""Approval codes and guessing them."""

from __future__ import annotations

import itertools

import pytest

from attestd.errors import NotPermittedError
from attestd.grants.codes import ALPHABET, LOCK_NS, TRIES, UNBIASED, Guesses, new_code, normalise, same


def test_alphabet_has_no_lookalikes():
    """31 letters, none of which is taken for another."""
    assert len(ALPHABET) == len(set(ALPHABET)) == 31
    assert not set(ALPHABET) & set("01IOL")


def test_code_is_drawn_without_bias():
    """Bytes beyond the last whole multiple of 31 are thrown away and drawn again."""
    draws = itertools.chain([bytes([255] * 8), bytes([UNBIASED] * 8)], itertools.repeat(bytes(range(8))))
    assert new_code(lambda _: next(draws)) == "2345-6789"


@pytest.mark.parametrize("typed", ["7F3K-9QRT", "7f3k9qrt", " 7f3k-9qrt\n", "7-F-3-K-9-Q-R-T"])
def test_typed_forms(typed: str):
    """Case, dashes and blanks around do not count."""
    assert normalise(typed) == "7F3K-9QRT"


@pytest.mark.parametrize("typed", ["", "7F3K", "7F3K-9QRT2", "7F3K-9QR0", "7F3K-9QRO", "7F3K 9QRT", "ßßßßßßßß"])
def test_not_a_code(typed: str):
    """What cannot be a code becomes the empty string, which equals no code."""
    assert normalise(typed) == ""
    assert not same("7F3K-9QRT", normalise(typed))


def test_lockout_and_its_end():
    """Ten wrong codes lock that approver, and nobody else, out for a minute."""
    guesses = Guesses()
    for _ in range(TRIES):
        guesses.admit("pid 1", 0)
        guesses.wrong("pid 1", 0)
    with pytest.raises(NotPermittedError) as refused:
        guesses.admit("pid 1", LOCK_NS - 1)
    assert "10 wrong codes" in refused.value.message
    assert "wait 1 s" in refused.value.hint
    guesses.admit("pid 2", 0)
    guesses.admit("pid 1", LOCK_NS)
    guesses.wrong("pid 1", LOCK_NS)
    guesses.admit("pid 1", LOCK_NS)


def test_right_code_forgets():
    """A right code clears the count."""
    guesses = Guesses()
    for _ in range(TRIES - 1):
        guesses.wrong("a", 0)
    guesses.right("a")
    guesses.wrong("a", 0)
    guesses.admit("a", 0)


def test_memory_is_bounded():
    """Counting a thousand and more approvers keeps the newest."""
    guesses = Guesses()
    for number in range(3000):
        guesses.wrong(str(number), 0)
    assert len(guesses._wrong) == 1024
