"""Globs of grants."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.grants.globs import any_match, is_exact, literal, matches, meets, spans


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


@pytest.mark.parametrize(
    ("pattern", "template", "some", "every"),
    [
        ("*", "file:///{path}", True, True),
        ("file:///*", "file:///{path}", True, True),
        ("file:///docs/*", "file:///{path}", False, False),  # a plain variable holds no slash
        ("file:///docs/*", "file:///{+path}", True, False),
        ("file:///docs*", "file:///{path}", True, False),
        ("file:///a", "file:///{path}", True, False),
        ("file:///a", "file:///{path}/x", False, False),
        ("db://*/public", "db://{x}/secret", False, False),
        ("db://*/public", "db://{x}/public", True, True),
        ("db://?/public", "db://{x}/public", True, False),
        ("db://a?c", "db://{x}", True, False),
        ("=file:///{path}", "file:///{path}", False, False),  # a literal brace is in no URI of the template
        ("=file:///a", "file:///{path}", True, False),
        ("file:///fixed", "file:///fixed", True, True),
        ("file:///other", "file:///fixed", False, False),
        ("", "file:///{path}", False, False),
        ("=", "file:///{path}", False, False),
        ("*", "file:///{path", False, False),
        ("*", "file:///path}", False, False),
        ("*", "file:///{}", False, False),
        ("http://h/x?q=*", "http://h/x{?q}", True, False),
        ("http://h/a/b", "http://h{/x,y}", True, False),
        ("http://h/a#b", "http://h/a{#f}", True, False),
        ("http://h/a#b", "http://h/a{f}", False, False),
        ("http://h/%41*", "http://h/{x}", True, False),
    ],
)
def test_templates(pattern: str, template: str, some: bool, every: bool):
    """Whether a pattern covers a URI of a template, and whether it covers every one."""
    assert meets(pattern, template) is some
    assert spans(pattern, template) is every


VALUES = st.text("abc/", max_size=4)


@given(
    pattern=st.text("ab/*?", min_size=1, max_size=8),
    before=st.text("ab/", max_size=3),
    value=VALUES,
    after=st.text("ab/", max_size=3),
)
def test_templates_agree_with_their_uris(pattern: str, before: str, value: str, after: str):
    """What every URI of a template is covered by covers each, and what covers one meets the template."""
    covered = matches(pattern, before + value + after)
    if spans(pattern, f"{before}{{+v}}{after}"):
        assert covered
    if covered:
        assert meets(pattern, f"{before}{{+v}}{after}")
    if covered and "/" not in value:
        assert meets(pattern, f"{before}{{v}}{after}")
