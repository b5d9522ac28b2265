"""Server-sent events in chunks: the same events however the stream is cut, in bounded memory."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestd.errors import Cause
from attestd.wire.model import WireError
from attestd.wire.sse_parse import SseEvent, SseParser

STREAM = (
    b"\xef\xbb\xbf: hello\r\n"
    b'id: 1\r\ndata: {"a":\r\ndata: 1}\r\n\r\n'
    b"event: endpoint\ndata:/post?x=1\n\n"
    b"retry: 250\rdata\r\rdata: last\nunknown: x\nid: 7\n\n"
    b"data: cut"
)
EVENTS = [
    SseEvent("message", b'{"a":\n1}'),
    SseEvent("endpoint", b"/post?x=1"),
    SseEvent("message", b""),
    SseEvent("message", b"last"),
]


def parsed(*chunks: bytes, limit: int = 1000) -> tuple[list[SseEvent], SseParser]:
    """Everything that the chunks make, and the parser."""
    parser = SseParser(limit)
    return [event for chunk in chunks for event in parser.feed(chunk)], parser


def test_lines_fields_and_ends():
    """Every line end, the byte order mark, comments, several data lines, names, ids and retry."""
    events, parser = parsed(STREAM)
    assert events == EVENTS
    assert (parser.last_id, parser.retry_ms) == ("7", 250)


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_cut_gives_the_same_events(cuts: list[int]):
    """Invariant: the events do not depend on the chunks."""
    places = [0, *sorted(cuts), len(STREAM)]
    events, parser = parsed(*(STREAM[a:b] for a, b in itertools.pairwise(places)))
    assert events == EVENTS
    assert (parser.last_id, parser.retry_ms) == ("7", 250)


@given(st.binary(max_size=200))
def test_anything_is_parsed_or_too_large(data: bytes):
    """Invariant: no bytes lead to another error than TOO_LARGE, and data never holds a line end but LF."""
    try:
        events, _ = parsed(data, limit=50)
    except WireError as error:
        refused = error.cause
    else:
        refused = Cause.TOO_LARGE
        assert all(b"\r" not in event.data for event in events)
    assert refused is Cause.TOO_LARGE


@pytest.mark.parametrize("chunk", [b"data: " + b"x" * 200, b"data: xxxxxxxxx\n" * 20, b": " + b"x" * 200])
def test_an_event_above_the_limit(chunk: bytes):
    """An endless line, many lines, or an endless comment: refused before it is kept."""
    with pytest.raises(WireError) as found:
        parsed(*(chunk[n : n + 7] for n in range(0, len(chunk), 7)), limit=100)
    assert found.value.cause is Cause.TOO_LARGE


def test_an_event_of_exactly_the_limit():
    """It passes."""
    events, _ = parsed(b"data: " + b"x" * 99 + b"\n\n", limit=100)
    assert len(events[0].data) == 99


@pytest.mark.parametrize("text", ["a\x00b", "ü", " ", "x" * 2000, ""])
def test_ids_that_could_not_be_sent_back(text: str):
    """They are no ids, so nothing is resumed from there."""
    _, parser = parsed(f"id: 5\ndata: x\n\nid: {text}\ndata: y\n\n".encode(), limit=5000)
    assert parser.last_id is None


def test_a_stream_that_begins_anew():
    """Half an event and its id are forgotten: they come again."""
    events, parser = parsed(b"id: 1\ndata: one\n\nid: 2\ndata: tw")
    assert [event.data for event in events] == [b"one"]
    assert parser.last_id == "1"
    parser.restart()
    assert parser.feed(b"id: 2\ndata: two\n\n") == [SseEvent("message", b"two")]
    assert parser.last_id == "2"


@pytest.mark.parametrize(("text", "wanted"), [("1e3", None), ("-1", None), ("999999999", 300000), ("0", 0)])
def test_retry(text: str, wanted: int | None):
    """Digits only, and bounded."""
    assert parsed(f"retry: {text}\n\n".encode())[1].retry_ms == wanted
