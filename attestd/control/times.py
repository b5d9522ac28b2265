"""Times as people and scripts read them: nanoseconds become UTC date-times, which JSON shows as RFC 3339."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from attestd.errors import UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def utc(ns: int) -> datetime:
    """Return nanoseconds since the epoch as an aware date-time in UTC, cut to microseconds."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=rest // 1000)


def nanoseconds(moment: datetime) -> int:
    """Return an aware date-time as nanoseconds since the epoch."""
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000


def duration(text: str) -> int:
    """Return the seconds of ``90s``, ``15m``, ``8h``, ``30d`` or ``2w``. Raises UsageError."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not (number.isascii() and number.isdigit()) or len(number) > 6:
        raise UsageError(f"cannot read the duration {text!r}: expected a number and one of s, m, h, d, w, such as 30d")
    return int(number) * _UNITS[unit]


def moment(text: str, now: datetime) -> datetime:
    """Return ``2h`` as two hours before ``now``, or an RFC 3339 time as it is (local where it has no zone).

    Raises UsageError.
    """
    if text[-1:] in _UNITS and text[:-1].isdigit():
        return now - timedelta(seconds=duration(text))
    try:
        read = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"cannot read the time {text!r}: expected a duration such as 2h or a time such as 2026-07-30T14:00:00Z"
        ) from error
    return read.astimezone(UTC)
