"""Answers and events as bytes, pinned."""

from __future__ import annotations

from http import HTTPStatus

from attestd.wire.http_response import chunked, event, events_head, head, json_head, priming


def test_heads():
    """Every header is ours."""
    assert head(202, {}, length=0) == b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
    assert json_head(200, (b"{", memoryview(b"}\n")), {"mcp-session-id": "s"}, close=True) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\nmcp-session-id: s\r\n"
        b"Content-Length: 3\r\nConnection: close\r\n\r\n"
    )
    for status in HTTPStatus:
        if status != HTTPStatus.NO_CONTENT:
            own = {"Content-Type": "application/json", "Cache-Control": "no-store"}
            assert json_head(status, (b"{", b"}\n"), {}) == head(status, own, length=3)
    assert events_head({}) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache, no-transform\r\n"
        b"X-Accel-Buffering: no\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    assert b"Content-Length" not in head(204, {}, length=0)


def test_events():
    """One data line for one message, around its chunks."""
    assert b"".join(event((b"{}\n",), event_id="ab.0.1")) == b"event: message\nid: ab.0.1\ndata: {}\n\n"
    parts = event((b'{"result":', memoryview(b"large"), b"}\n"))
    assert b"".join(parts) == b'event: message\ndata: {"result":large}\n\n'
    assert isinstance(parts[2], memoryview)
    assert priming("ab.0.0") == b"id: ab.0.0\nretry: 1000\ndata: \n\n"


def test_chunks():
    """Small ones in one piece, large ones without a copy."""
    assert chunked((b"ab", b"c")) == [b"3\r\nabc\r\n"]
    large = memoryview(b"x" * 5000)
    assert chunked((large,)) == [b"1388\r\n", large, b"\r\n"]
