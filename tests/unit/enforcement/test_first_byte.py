"""The first byte decides."""

from __future__ import annotations

import asyncio
import socket
from functools import partial

import pytest

from attestd.enforcement.first_byte import FirstBytes, speaks_http
from tests.support.waiting import until


@pytest.mark.parametrize(
    ("first", "http"),
    [(b"{", False), (b"[", False), (b"\n", False), (b"", False), (b"P", True), (b"G", True), (b"p", False)],
)
def test_capital_letters(first: bytes, http: bool):
    """No JSON text begins with one; every method of HTTP does."""
    assert speaks_http(first) is http


async def test_at_once_later_and_at_the_end():
    """Bytes that wait decide at once and stay; silence waits; the end of the stream is a matter of lines."""
    first = FirstBytes(asyncio.get_running_loop())
    found: list[bool] = []
    for number, (early, late) in enumerate(((b"POST", b""), (b"", b"{"), (b"", b"")), 1):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs:
            theirs.send(early) if early else None
            first.await_one(ours, found.append, lambda: None, lambda: False)
            if not early:
                assert len(found) == number - 1
                theirs.send(late) if late else theirs.close()
            await until(lambda: not first._silent)
            assert len(found) == number
            if early:
                assert ours.recv(10) == early
    assert found == [True, False, False]


async def test_the_silent_are_forgotten():
    """Whoever has said nothing when everything ends is let go."""
    first = FirstBytes(asyncio.get_running_loop())
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    forgotten: list[bool] = []
    with ours, theirs:
        first.await_one(ours, lambda _: None, lambda: forgotten.append(True), lambda: False)
        first.close()
        first.close()
    assert forgotten == [True]


async def test_who_changes_in_silence_is_forgotten():
    """The periodic look finds the one that is not who was attested any more, and leaves the other."""
    first = FirstBytes(asyncio.get_running_loop())
    forgotten: list[str] = []
    ends = [socket.socketpair() for _ in range(2)]
    for (ours, _), name in zip(ends, ("changed", "same"), strict=True):
        ours.setblocking(False)
        first.await_one(ours, lambda _: None, partial(forgotten.append, name), partial(str.__eq__, name, "changed"))
    first.tick()
    assert forgotten == ["changed"]
    first.close()
    assert forgotten == ["changed", "same"]
    for pair in ends:
        for end in pair:
            end.close()
