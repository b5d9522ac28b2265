"""Requests as bytes: what is one, what is refused and how, and where in the stream it stood."""

from __future__ import annotations

import pytest

from attestd.wire import known
from attestd.wire.http_request import (
    CONTINUE,
    HEAD_BYTES,
    HttpRefusal,
    HttpRequest,
    RequestReader,
)

LIMIT = 1000
GOOD = b"POST /a/mcp?x=1 HTTP/1.1\r\nHost: h\r\nX-Two:  a \r\nX-Two: b\r\nContent-Length: 2\r\n\r\n{}"


def read(raw: bytes, limit: int = LIMIT) -> list[HttpRequest | str]:
    """What these bytes hold."""
    reader = RequestReader(limit)
    reader.feed(raw)
    found: list[HttpRequest | str] = []
    while (each := reader.next()) is not None:
        found.append(each)
    return found


def status(raw: bytes) -> int:
    """Of the refusal."""
    with pytest.raises(HttpRefusal) as caught:
        read(raw)
    return caught.value.status


def test_a_request():
    """Its parts, and its place."""
    first, second = read(GOOD + GOOD)
    assert isinstance(first, HttpRequest)
    assert isinstance(second, HttpRequest)
    assert (first.head.method, first.head.path, first.head.query, first.body) == ("POST", "/a/mcp", "x=1", b"{}")
    assert first.head.headers["x-two"] == ("a", "b")
    assert (first.start, first.end, second.start) == (0, len(GOOD), len(GOOD))
    with pytest.raises(HttpRefusal):
        first.head.header("x-two")
    assert first.head.header("none") is None


def test_the_same_head_again():
    """It means the same each time, wherever it is cut; what differs by one byte means something else."""
    other = GOOD.replace(b"x=1", b"x=2").replace(b"{}", b"[]")
    many = [GOOD, other, GOOD.replace(b"{}", b"[]"), GOOD]
    reader, found = RequestReader(LIMIT), []
    for byte in b"".join(many):
        reader.feed(bytes([byte]))
        if isinstance(each := reader.next(), HttpRequest):
            found.append(each)
    assert [(each.head.query, each.body) for each in found] == [
        ("x=1", b"{}"),
        ("x=2", b"[]"),
        ("x=1", b"[]"),
        ("x=1", b"{}"),
    ]
    assert [each.start for each in found] == [len(GOOD) * number for number in range(4)]
    assert len({id(each.head) for each in found}) == 2


def test_no_more_heads_are_remembered_than_bounded():
    """Neither many nor large ones; each is read as what it is."""
    heads = [b"POST /%d HTTP/1.1\r\nHost: h\r\nA: %s\r\n\r\n" % (size, b"a" * size) for size in range(0, 2000, 25)]
    reader = RequestReader(LIMIT)
    for size, raw in zip(range(0, 2000, 25), heads, strict=True):
        for _ in range(2):
            reader.feed(raw)
            found = reader.next()
            assert isinstance(found, HttpRequest)
            assert (found.head.path, len(found.head.headers["a"][0])) == (f"/{size}", size)
        assert len(reader._known) <= known.HEADS
        assert all(len(raw) <= known.HEAD_BYTES for raw in reader._known)


def test_a_body_in_chunks():
    """Joined; extensions mean nothing."""
    raw = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\n{\r\n1;a=b\r\n}\r\n0\r\n\r\n"
    reader = RequestReader(LIMIT)
    for number in (1, 2):
        reader.feed(raw)
        found = reader.next()
        assert isinstance(found, HttpRequest)
        assert (found.body, found.end) == (b"{}", number * len(raw))


def test_expectations_and_offers():
    """100-continue is asked for once; an upgrade is not taken up."""
    reader = RequestReader(LIMIT)
    reader.feed(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n")
    assert (reader.next(), reader.next()) == (CONTINUE, None)
    reader.feed(b"{}")
    assert isinstance(reader.next(), HttpRequest)
    assert reader.idle
    (found,) = read(b"POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}")
    assert isinstance(found, HttpRequest)
    assert found.body == b"{}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"GET / HTTP/1.0", 505),
        (b"GET / HTTP/2.0", 505),
        (b"GET /", 505),
        (b"get / HTTP/1.1", 400),
        (b"GET  / HTTP/1.1", 400),
        (b"GET http://evil/ HTTP/1.1", 400),
        (b"GET //evil/ HTTP/1.1", 400),
        (b"GET /#x HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"CONNECT h:1 HTTP/1.1", 400),
        (b"GET /\x01 HTTP/1.1", 400),
        (b"GET /\xc3\xa4 HTTP/1.1", 400),
        (b" GET / HTTP/1.1", 400),
        (b"\r\nGET / HTTP/1.1", 400),
        (b"GET /" + b"x" * 3000 + b" HTTP/1.1", 414),
    ],
)
def test_request_lines(line: bytes, expected: int):
    """One form of each part."""
    assert status(line + b"\r\nHost: h\r\n\r\n") in {expected, 400}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (b"", 400),
        (b"Host: h\r\nHost: h", 400),
        (b"Host: h\nX: y", 400),
        (b"Host: h\rX: y", 400),
        (b"Host: h\r\n x", 400),
        (b"Host : h", 400),
        (b": x\r\nHost: h", 400),
        (b"Host: h\r\nX(: y", 400),
        (b"Host: h\r\nX: a\0b", 400),
        (b"Host: h\r\nContent-Length: 1\r\nContent-Length: 1", 400),
        (b"Host: h\r\nContent-Length: 1, 1", 400),
        (b"Host: h\r\nContent-Length: +1", 400),
        (b"Host: h\r\nContent-Length: 1_0", 400),
        (b"Host: h\r\nContent-Length: " + b"9" * 18, 413),
        (b"Host: h\r\nContent-Length: " + b"9" * 30, 400),
        (b"Host: h\r\nContent-Length: 1001", 413),
        (b"Host: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked", 400),
        (b"Host: h\r\nTransfer-Encoding: gzip, chunked", 400),
        (b"Host: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        (b"Host: h\r\nTransfer-Encoding: identity", 400),
        (b"Host: h\r\nTransfer-Encoding: chunked\r\nTrailer: X", 400),
        (b"Host: h\r\nContent-Encoding: gzip", 415),
    ],
)
def test_headers(headers: bytes, expected: int):
    """Nothing that two readers might read in two ways."""
    assert status(b"POST / HTTP/1.1\r\n" + headers + b"\r\n\r\n") == expected


@pytest.mark.parametrize(
    "body",
    [
        b"2\n{}\r\n0\r\n\r\n",
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}X\r\n0\r\n\r\n",
        b"2\r\n{}\r\n0\r\nX: y\r\n\r\n",
        b"2\r\n{}\r\n0\r\n\r\nPOST / HTTP/1.1\r\n",
        b"-1\r\n",
        b"\r\n",
    ],
)
def test_chunks(body: bytes):
    """Trailers, and bytes that follow without waiting, are refused too."""
    assert status(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + body) == 400


def test_limits():
    """A head that does not end, and chunks without end."""
    assert status(b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_BYTES) == 431
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert status(head + b"258\r\n" + b"x" * 600 + b"\r\n258\r\n" + b"x" * 600) == 413
