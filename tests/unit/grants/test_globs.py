"""Globs of grants."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.grants.globs import any_match, is_exact, literal, matches


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("get", "get", True),
        ("get", "Get", False),
        ("get", "get_all", False),
        ("get", "", False),
        ("", "", False),
        ("", "get", False),
        ("*", "anything/at all", True),
        ("*", "", True),
        ("get_*", "get_", True),
        ("get_*", "forget_x", False),
        ("*_get", "a/b_get", True),
        ("a*b*c", "aXbYc", True),
        ("a*b*c", "aXcYb", False),
        ("a**b", "ab", True),
        ("?", "x", True),
        ("?", "", False),
        ("?", "xy", False),
        ("f?o*", "fooo", True),
        ("file:///srv/*", "file:///srv/a/b?c=d", True),
        ("file:///srv/*", "file:///etc/passwd", False),
        ("[a-z]", "a", False),
        ("[a-z]", "[a-z]", True),
        ("a.c", "abc", False),
        ("a\\*", "a*", False),
        ("a\\*", "a\\z", True),
        ("=a*", "a*", True),
        ("=a*", "ab", False),
        ("=", "", False),
        ("==x", "=x", True),
        ("a\n*", "a\nb", True),
    ],
)
def test_anchored(pattern: str, text: str, expected: bool):
    """A pattern covers the whole text or nothing, and only star and question mark are special."""
    assert matches(pattern, text) is expected


def test_no_pattern_matches_nothing():
    """An empty list of patterns grants nothing."""
    assert not any_match((), "x")
    assert any_match(("a", "x"), "x")


@given(st.text(alphabet="ab*?=", max_size=12), st.text(alphabet="ab*?=", max_size=12))
def test_literal_is_exact(name: str, other: str):
    """The literal pattern of a name matches that name and no other."""
    if name:
        assert is_exact(literal(name))
        assert matches(literal(name), name)
        assert matches(literal(name), other) is (other == name)


@given(st.text(alphabet="ab/*?", min_size=1, max_size=10), st.text(alphabet="ab/", max_size=12))
def test_agrees_with_fnmatch(pattern: str, text: str):
    """Without brackets the result is that of the standard library's translation of globs."""
    expected = re.fullmatch(fnmatch.translate(pattern), text) is not None
    assert matches(pattern, text) is expected


def test_hostile_pattern_is_linear():
    """A pattern that makes back-tracking matchers explode is answered at once."""
    assert not matches("*a" * 200 + "b", "a" * 8000)
    assert matches("*a" * 200 + "*", "a" * 8000)
