"""Framing: lines out of chunks, in bounded memory and linear time."""

from __future__ import annotations

import tracemalloc

import pytest

from attestd.errors import Cause
from attestd.wire.framing import Line, LineFramer
from attestd.wire.model import WireError

MIB = 1024 * 1024


def test_lines_of_one_chunk():
    """Every LF ends one line, and the offsets tell where each stood."""
    framer = LineFramer(100)
    assert framer.feed(b"ab\ncde\n") == [Line(b"ab", 0, 3), Line(b"cde", 3, 7)]
    assert framer.pending == 0
    assert framer.received == 7


def test_line_over_chunks_keeps_its_offsets():
    """A line in pieces is returned once, with the offset of its first byte."""
    framer = LineFramer(100)
    assert framer.feed(b"x\n{") == [Line(b"x", 0, 2)]
    assert framer.feed(b'"a"') == []
    assert framer.pending == 4
    assert framer.feed(b"}\ny") == [Line(b'{"a"}', 2, 8)]
    assert framer.feed(b"\n") == [Line(b"y", 8, 10)]


def test_one_carriage_return_before_the_newline_is_part_of_the_line_end():
    """Exactly one CR before LF is taken off, also when the two arrive apart."""
    framer = LineFramer(100)
    assert framer.feed(b"a\r\nb\r\r\nc\r") == [Line(b"a", 0, 3), Line(b"b\r", 3, 7)]
    assert framer.feed(b"\n") == [Line(b"c", 7, 10)]


def test_other_carriage_returns_stay_for_the_parser():
    """A CR inside a line does not end it (W1)."""
    assert LineFramer(100).feed(b"a\rb\n") == [Line(b"a\rb", 0, 4)]


def test_empty_lines_are_ignored():
    """LF and CRLF alone are no messages, and offsets count them."""
    framer = LineFramer(100)
    assert framer.feed(b"\n\r\n\nx\n") == [Line(b"x", 4, 6)]


@pytest.mark.parametrize("split", [1, 2, 3, 7, 64])
def test_overlong_line_is_reported_once_and_framing_goes_on(split: int):
    """A line over the limit is one error; the next line is intact."""
    framer = LineFramer(10)
    stream = b"x" * 5000 + b"\nshort\n" + b"y" * 11 + b"\n" + b"z" * 10 + b"\r\n"
    items = [item for at in range(0, len(stream), split) for item in framer.feed(stream[at : at + split])]
    assert [item if isinstance(item, Line) else item.cause for item in items] == [
        Cause.TOO_LARGE,
        Line(b"short", 5001, 5007),
        Cause.TOO_LARGE,
        Line(b"z" * 10, 5019, 5031),
    ]


def test_overlong_line_says_how_long_and_how_long_it_may_be():
    """The error names got and expected."""
    framer = LineFramer(10)
    framer.feed(b"x" * 5000)
    (error,) = framer.feed(b"x\n")
    assert isinstance(error, WireError)
    assert error.message == "cannot accept the message: got 5001 bytes, expected at most 10"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"x":"%s"}}', 5),
        (b'{"method":"tools/call","params":{"x":"%s"},"jsonrpc":"2.0","id":"a-1"}', "a-1"),
        (b'{"method":"tools/call","params":{"x":"%s","jsonrpc":"2.0","id":9}}', None),
    ],
)
def test_overlong_line_is_answered_on_its_own_id(text: bytes, expected: str | int | None):
    """The id at either end of a dropped line survives, so that its sender need not wait for a time-out."""
    framer = LineFramer(100)
    stream = text % (b"x" * 9000) + b"\n"
    items = [item for at in range(0, len(stream), 50) for item in framer.feed(stream[at : at + 50])]
    assert [item.request_id for item in items if isinstance(item, WireError)] == [expected]


def test_memory_stays_bounded_while_a_gigabyte_arrives():
    """W13: of a line that never fits nothing is kept but its ends."""
    framer = LineFramer(MIB)
    chunk = b"x" * MIB
    tracemalloc.start()
    for _ in range(1024):
        assert framer.feed(chunk) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert framer.pending == 0
    assert peak < 6 * MIB
    (error,) = framer.feed(b"\n")
    assert isinstance(error, WireError)


def test_tiny_chunks_cost_memory_in_proportion_to_the_bytes():
    """A line that arrives in pieces of two bytes is held without an object per piece."""
    framer = LineFramer(16 * MIB)
    tracemalloc.start()
    for _ in range(MIB):
        framer.feed(b"ab")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert framer.pending == 2 * MIB
    assert peak < 6 * MIB


def test_end_of_stream_inside_a_line_is_an_error():
    """Half a message is told, with the id that it began with; a clean end is not."""
    framer = LineFramer(100)
    assert framer.finish() is None
    framer.feed(b'{"jsonrpc":"2.0","id":3,"method":')
    error = framer.finish()
    assert error is not None
    assert (error.cause, error.request_id) == (Cause.MALFORMED, 3)
    assert framer.finish() is None


def test_end_of_stream_inside_an_overlong_line_is_too_large():
    """A line that was being dropped when the stream ended is told as what it was."""
    framer = LineFramer(3)
    framer.feed(b"xxxxxxxxx")
    error = framer.finish()
    assert error is not None
    assert error.cause is Cause.TOO_LARGE


def test_a_line_above_the_limit_is_known_before_its_end():
    """Who will not wait for the end of an endless line can tell."""
    framer = LineFramer(10)
    assert framer.feed(b"x" * 11) == []
    assert not framer.overlong  # the eleventh byte may be the CR of a line end
    framer.feed(b"x")
    assert framer.overlong
    framer.feed(b"\nnext")
    assert not framer.overlong


@pytest.mark.parametrize("text", [b"ab\n", b"ab\r\n", b"\n", b"\r\n", b"abcdef\n", b"a\rb\n", b"ab", b""])
def test_one_line_in_one_chunk_is_what_it_is_in_pieces(text: bytes):
    """The short way for whole lines gives the same lines, offsets and errors as byte after byte, and leaves no trace."""
    whole, pieces = LineFramer(5), LineFramer(5)
    for chunk in (text, b"cd\n"):
        at_once = whole.feed(chunk)
        slowly = [item for byte in chunk for item in pieces.feed(bytes([byte]))]
        assert [str(item) for item in at_once] == [str(item) for item in slowly]
        assert (whole.received, whole.pending, whole.overlong) == (pieces.received, pieces.pending, pieces.overlong)
