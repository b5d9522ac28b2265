"""No text from outside moves the cursor, hides, reorders or forges a line."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.cli.safe_text import quoted, safe


@given(st.text())
def test_nothing_dangerous_is_left(text: str) -> None:
    """Invariant: no control, format, separator, surrogate, private or unassigned character comes through."""
    categories = {unicodedata.category(character) for character in safe(text)}
    assert not categories & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(
    st.text(
        alphabet=st.characters(categories=("L", "N", "P"), exclude_characters="\u115f\u1160\u3164\uffa0"), max_size=200
    )
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    """Invariant: letters, digits and punctuation of any script are shown as they are."""
    assert safe(text) == text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\r", "a\\x0ab\\x0d"),
        ("\u202egnp", "\\u202egnp"),
        ("\u2066\u2069\u200b\ufeff", "\\u2066\\u2069\\u200b\\ufeff"),
        ("\x9b31m", "\\x9b31m"),
        ("\u2028", "\\u2028"),
        ("a\u00a0b", "a\\xa0b"),
        ("\u3164", "\\u3164"),
        ("\U000e0041", "\\U000e0041"),
        ("\udcff", "\\udcff"),
        ("[red]x[/red] :smile:", "[red]x[/red] :smile:"),
        ("größe · 日本", "größe · 日本"),
    ],
)
def test_examples(raw: str, shown: str) -> None:
    """Each trick is shown as what it is."""
    assert safe(raw) == shown


def test_a_long_gap_is_named() -> None:
    """Spaces cannot push the rest of a name to a row of its own unseen."""
    assert safe("a" + " " * 80 + "error: forged") == "a [80 spaces] error: forged"


def test_long_text_is_cut_with_a_remark() -> None:
    """What is left out is said."""
    assert safe("x" * 5000) == "x" * 4096 + "… (904 more characters)"


def test_a_quoted_claim_cannot_close_its_quotation_marks() -> None:
    """A name with a quotation mark stays one claim."""
    assert quoted('a" (verified)') == '"a\\" (verified)"'
