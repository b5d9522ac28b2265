"""Depth and number of values, proven before parsing."""

from __future__ import annotations

import time

import pytest

from attestd.errors import Cause
from attestd.wire.model import Limits, WireError
from attestd.wire.shape import bound

LIMITS = Limits(depth=8, values=1000)


def verdict(data: bytes, limits: Limits = LIMITS) -> Cause | None:
    """Why the bytes are refused, or None."""
    try:
        bound(data, limits)
    except WireError as error:
        return error.cause
    return None


@pytest.mark.parametrize("depth", [1, 7, 8])
@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
def test_depth_up_to_the_limit_passes(left: bytes, right: bytes, depth: int):
    """Exactly the limit is allowed, counting arrays and objects alike."""
    times = depth // (2 if left.startswith(b"[{") else 1)
    assert verdict(left * times + b"1" + right * times) is None


def test_depth_over_the_limit_is_refused():
    """One level more is TOO_DEEP, also where siblings outweigh it."""
    assert verdict(b"[" * 9 + b"]" * 9) is Cause.TOO_DEEP
    assert verdict(b"[" + b"[]," * 50 + b"[" * 8 + b"]" * 8 + b"]") is Cause.TOO_DEEP


def test_brackets_in_strings_do_not_count():
    """Text may hold any brackets, quotes and backslashes."""
    text = rb'["' + rb"[{\"\\" * 300 + rb'"]'
    assert verdict(text, Limits(depth=1, values=1000)) is None


def test_string_that_ends_in_backslashes_does_not_hide_what_follows():
    """An escaped backslash does not escape the quote behind it."""
    assert verdict(rb'["\\",' + b"[" * 9 + b"]" * 9 + b"]") is Cause.TOO_DEEP
    assert verdict(rb'["\\\"' + b"[" * 20 + b'"]') is None


def test_brackets_that_do_not_match_are_malformed():
    """What can be no JSON is told as that."""
    assert verdict(b"][" * 20) is Cause.MALFORMED
    assert verdict(b"[" * 9) is Cause.TOO_DEEP


@pytest.mark.parametrize(
    "data", [b"[" + b"1," * 1000 + b"1]", b"[" + b"[]," * 1000 + b"[]]", b'["' + b'","' * 3000 + b'"]']
)
def test_too_many_values_are_refused(data: bytes):
    """Numbers, containers and strings all count."""
    assert verdict(data) is Cause.TOO_LARGE


def test_long_text_is_one_value():
    """The length of a string is not its number of values."""
    assert verdict(b'["' + b"a, b: c [d] " * 100_000 + b'"]') is None


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 16_000_000,
        b"[]," * 5_000_000,
        b'"",' * 5_000_000,
        b'"' + b"\\\\" * 8_000_000,
        (b"[" * 60 + b"]" * 60) * 130_000,
        b"[]]" * 5_000_000,
    ],
    ids=["opens", "pairs", "strings", "backslashes", "towers", "mismatched"],
)
def test_hostile_megabytes_are_judged_quickly(data: bytes):
    """W13: 16 MiB of anything take well under a second (measured: below 0.15 s)."""
    began = time.perf_counter()
    verdict(data, Limits())
    assert time.perf_counter() - began < 2.0
