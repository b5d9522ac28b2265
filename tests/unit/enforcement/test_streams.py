"""The log of events: what follows an event on its own stream, once, and what is missed."""

from __future__ import annotations

import pytest

from attestd.enforcement.streams import EventLog, LostError


def test_what_followed_on_this_stream_only():
    """Other streams of the session are not mixed in."""
    log = EventLog("ab")
    one, two = log.open(), log.open()
    first = log.append(one, (b"1",))
    log.append(two, (b"2",))
    third = log.append(one, (b"3",))
    assert (first, third) == ("ab.0.1", "ab.0.2")
    assert log.after("ab.0.0") == (one, [(first, (b"1",)), (third, (b"3",))])
    assert log.after(first) == (one, [(third, (b"3",))])
    assert log.after(third) == (one, [])
    assert log.last(two) == "ab.1.1"


@pytest.mark.parametrize(
    "event_id", ["", "ab", "cd.0.0", "ab.1.0", "ab.0.2", "ab.0.-1", "ab.0.0 ", "ab.0.0.0", "AB.0.0"]
)
def test_what_does_not_exist(event_id: str):
    """Another session's word, another stream, an event that was never sent."""
    log = EventLog("ab")
    log.append(log.open(), (b"1",))
    assert log.after(event_id) is None


def test_memory_is_bounded_and_a_gap_is_an_error():
    """The oldest goes first, by number and by size; who asks for it is told."""
    log = EventLog("ab", events=3, size=10)
    stream = log.open()
    for _ in range(5):
        log.append(stream, (b"12",))
    assert log.held == 6
    with pytest.raises(LostError):
        log.after("ab.0.1")
    assert len(log.after("ab.0.2")[1]) == 3  # type: ignore[index]
    log.append(stream, (b"123456789",))
    assert log.held == 9
    log.append(stream, (b"12345678901",))
    assert log.held == 9
    with pytest.raises(LostError):
        log.after("ab.0.6")
    assert log.after("ab.0.7") == (stream, [])


def test_a_stream_is_forgotten_with_its_last_event():
    """Not while it may go on, nor while something of it is kept; who asks for it afterwards is told that it is lost."""
    log = EventLog("ab", events=2)
    own = log.open()
    for _ in range(3):
        stream = log.open()
        log.append(stream, (b"1",))
        log.end(stream)
        assert log.after(f"ab.{stream}.0") == (stream, [(f"ab.{stream}.1", (b"1",))])
    with pytest.raises(LostError):
        log.after("ab.1.1")
    silent = log.open()
    log.end(silent)
    with pytest.raises(LostError):
        log.after(f"ab.{silent}.0")
    assert log.after(f"ab.{silent + 1}.0") is None
    assert log.last(own) == "ab.0.0"
    assert len(log._streams) == 3
