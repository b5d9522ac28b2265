"""Times and spans in the forms that people type and scripts read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.control.times import duration, moment, nanoseconds, utc
from attestd.errors import UsageError

NOW = datetime(2026, 7, 30, 14, 0, tzinfo=UTC)


@given(st.integers(0, 4_000_000_000_000_000))
def test_microseconds_survive(microseconds: int) -> None:
    """Nanoseconds of whole microseconds come back as they were."""
    assert nanoseconds(utc(microseconds * 1000)) == microseconds * 1000


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("8h", 28800), ("30d", 2592000), ("2w", 1209600)]
)
def test_spans_are_read(text: str, seconds: int) -> None:
    """A number and a unit."""
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "30", "-1d", "1.5h", "1 h", "1y", "\u0661d", "9999999s"])
def test_other_spans_are_usage_errors(text: str) -> None:
    """Anything else is refused, saying what is expected."""
    with pytest.raises(UsageError, match="30d"):
        duration(text)


def test_moments_are_read() -> None:
    """A span means so long ago; a time is itself, and without a zone it is the reader's."""
    assert moment("2h", NOW) == NOW - timedelta(hours=2)
    assert moment("2026-07-30T16:00:00+02:00", NOW) == NOW
    assert moment("2026-07-30T14:00:00", NOW).tzinfo is UTC


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "h"])
def test_other_moments_are_usage_errors(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(UsageError):
        moment(text, NOW)
