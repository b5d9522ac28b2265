"""Answers of a server, however their bytes are cut; and requests that cannot be said."""

from __future__ import annotations

import pytest

from attestd.wire import known
from attestd.wire.http_upstream import (
    HEAD_BYTES,
    LINE_BYTES,
    AnswerError,
    AnswerHead,
    AnswerReader,
    RequestWriter,
)

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def read(raw: bytes, step: int = 0, *, end: bool = False) -> tuple[AnswerHead | None, bytes, AnswerReader]:
    """What a reader makes of these bytes, given ``step`` at a time (0: all at once)."""
    reader, head, content = AnswerReader(), None, b""
    reader.begin()
    parts = [raw[at : at + step] for at in range(0, len(raw), step)] if step else [raw]
    for number, part in enumerate(parts):
        reader.feed(part)
        if end and number == len(parts) - 1:
            reader.end()
        head = head or reader.head()
        while head is not None and (data := reader.content()):
            content += data
    return head, content, reader


WHOLE = [
    (OK + b"Content-Length: 5\r\n\r\nhello", b"hello", True),
    (CHUNKED + b"2\r\nhe\r\n003;a=b\r\nllo\r\n0\r\n\r\n", b"hello", True),
    (CHUNKED + b"5\r\nhello\r\n0\r\nX-Checksum: 1\r\n\r\n", b"hello", True),
    (CHUNKED + b"0\r\n\r\n", b"", True),
    (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
        b"",
        True,
    ),
    (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"", True),
    (OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
]


@pytest.mark.parametrize(("raw", "content", "keeps"), WHOLE)
@pytest.mark.parametrize("step", [0, 1, 2, 7])
def test_whole_answers(raw: bytes, content: bytes, keeps: bool, step: int):
    """However its bytes are cut, an answer has the same head, the same content and the same end."""
    head, found, reader = read(raw, step)
    assert head is not None
    assert (found, reader.complete, head.keeps, reader.buffered) == (content, True, keeps, 0)


@pytest.mark.parametrize("end", [True, False])
def test_content_until_the_end_of_the_stream(end: bool):
    """Without a length the end of the stream is the end of the answer, and only that."""
    head, content, reader = read(OK + b"\r\nhello", end=end)
    assert head is not None
    assert (content, reader.complete, head.keeps) == (b"hello", end, False)


def test_what_follows_an_answer_is_not_touched():
    """Bytes behind the last one of an answer stay where they are, a bare line end too."""
    for raw in (OK + b"Content-Length: 2\r\n\r\nhi", CHUNKED + b"2\r\nhi\r\n0\r\n\r\n"):
        for more in (b"\r\n", b"\n", b"HTTP/1.1 200 OK\r\n\r\n"):
            _, content, reader = read(raw + more)
            assert (content, reader.complete, reader.buffered) == (b"hi", True, len(more))


def test_a_head_that_comes_again_frames_its_own_content():
    """It is not parsed again, and means the same: what was read between leaves nothing behind."""
    once = {
        OK + b"Content-Length: 2\r\n\r\n": (b"hi", b"hi"),
        CHUNKED: (b"2;a=b\r\nhi\r\n0\r\nA: b\r\n\r\n", b"hi"),
        OK + b"A: b\r\nContent-Length: 0\r\n\r\n": (b"", b""),
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 3\r\n\r\n": (b"yes", b"yes"),
    }
    reader, found = AnswerReader(), []
    for raw, (sent, content) in [*once.items()] * 3:
        reader.begin()
        reader.feed(raw + sent)
        found.append(reader.head())
        got = b""
        while data := reader.content():
            got += data
        assert (got, reader.complete, reader.buffered) == (content, True, 0)
    assert all(first is later for first, later in zip(found, found[len(once) :], strict=False))


def test_no_more_heads_are_remembered_than_bounded():
    """Neither many nor large ones, in both directions; each is read and said as what it is."""
    reader, writer = AnswerReader(), RequestWriter()
    for size in range(0, 2000, 25):
        for _ in range(2):
            reader.begin()
            reader.feed(OK + b"Content-Length: 0\r\nA: %s\r\n\r\n" % (b"a" * size))
            head = reader.head()
            assert head is not None
            assert len(head.header("a") or "") == size
            assert reader.content() == b""
            said = writer.request("GET", "/", [("A", "a" * size)], b"")
            assert said == b"GET / HTTP/1.1\r\nA: %s\r\n\r\n" % (b"a" * size)
        for heads in (reader._known.keys(), writer._known.values()):
            assert len(heads) <= known.HEADS
            assert all(len(raw) <= known.HEAD_BYTES for raw in heads)


MALFORMED = [
    OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
    OK + b"content-length: 2\r\nContent-Length: 2\r\n\r\nhi",
    OK + b"Content-Length: 2, 2\r\n\r\nhi",
    OK + b"Content-Length: +2\r\n\r\nhi",
    OK + b"Content-Length: -1\r\n\r\n",
    OK + b"Content-Length: \r\n\r\n",
    OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    OK + b"Transfer-Encoding: identity\r\n\r\n",
    OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/2.0 200 OK\r\n\r\n",
    b"HTTP/1.2 200 OK\r\n\r\n",
    b"http/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 99 OK\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 600 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"SSH-2.0-server\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    OK + b"A: b\nC: d\r\n\r\n",
    OK + b"A: b\rC: d\r\n\r\n",
    OK + b"A: b\r\n folded\r\n\r\n",
    OK + b"A : b\r\n\r\n",
    OK + b" A: b\r\n\r\n",
    OK + b"A b: c\r\n\r\n",
    OK + b"A\x00: c\r\n\r\n",
    OK + b"A: \x00\r\n\r\n",
    OK + b"nothing\r\n\r\n",
    OK + b"A: " + b"c" * (HEAD_BYTES + 1),
    OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi",
    CHUNKED + b"xyz\r\n",
    CHUNKED + b"\r\n",
    CHUNKED + b"-1\r\n",
    CHUNKED + b"0x2\r\nhi\r\n0\r\n\r\n",
    CHUNKED + b" 2\r\nhi\r\n0\r\n\r\n",
    CHUNKED + b"2\nhi\r\n0\r\n\r\n",
    CHUNKED + b"2\r\nhi!\r\n0\r\n\r\n",
    CHUNKED + b"2\r\nhi\n0\r\n\r\n",
    CHUNKED + b"f" * 16 + b"\r\n",
    CHUNKED + b"2;" + b"x" * LINE_BYTES,
    CHUNKED + b"2;\x00\r\nhi\r\n0\r\n\r\n",
    CHUNKED + b"0\r\nno trailer\r\n\r\n",
    CHUNKED + b"0\r\n" + b"A: b\r\n" * HEAD_BYTES + b"\r\n",
]


@pytest.mark.parametrize("raw", MALFORMED)
@pytest.mark.parametrize("step", [0, 1000])
def test_malformed_answers(raw: bytes, step: int):
    """Each is refused as soon as it has come, and nothing is guessed."""
    with pytest.raises(AnswerError):
        read(raw, step)


@pytest.mark.parametrize("raw", MALFORMED[:-2])
def test_malformed_answers_byte_by_byte(raw: bytes):
    """How its bytes are cut does not make a malformed answer a good one."""
    with pytest.raises(AnswerError):
        read(raw[:5000], 1) if len(raw) < HEAD_BYTES else read(raw, 512)


def test_requests():
    """Headers in order, the length of a body, and the body."""
    said = RequestWriter().request("POST", "/mcp?a=b", [("Host", "h"), ("X", "a b\t\xe9"), ("Empty", "")], b"{}")
    assert said == b"POST /mcp?a=b HTTP/1.1\r\nHost: h\r\nX: a b\t\xe9\r\nEmpty: \r\nContent-Length: 2\r\n\r\n{}"
    assert RequestWriter().request("GET", "/", [("Host", "h")], b"") == b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "target", "name", "value"),
    [
        ("GET /", "/", "X", "a"),
        ("", "/", "X", "a"),
        ("GET", "/ HTTP/1.1", "X", "a"),
        ("GET", "/\r\n", "X", "a"),
        ("GET", "/\xe9", "X", "a"),
        ("GET", "", "X", "a"),
        ("GET", "/", "X:", "a"),
        ("GET", "/", "", "a"),
        ("GET", "/", "X\n", "a"),
        ("GET", "/", "X", "a\r\nY: b"),
        ("GET", "/", "X", "a\n"),
        ("GET", "/", "X", "a\x00"),
        ("GET", "/", "X", " a"),
        ("GET", "/", "X", "\u0100"),
    ],
)
def test_what_cannot_be_said(method: str, target: str, name: str, value: str):
    """What could end its line, or is no text of HTTP, is not written."""
    writer = RequestWriter()
    for _ in range(2):
        with pytest.raises(AnswerError):
            writer.request(method, target, [(name, value)], b"")
