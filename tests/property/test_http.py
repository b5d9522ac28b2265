"""HTTP in pieces: wherever a stream is cut, the same requests come out, and what is written can be read again."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from attestd.wire.http_request import HttpRefusal, HttpRequest, RequestHead, RequestReader
from attestd.wire.http_response import event, priming
from attestd.wire.http_rules import demand_headers, routing
from attestd.wire.http_upstream import AnswerError, AnswerReader
from attestd.wire.model import Limits, WireError
from attestd.wire.parse import parse_message
from attestd.wire.repeated import decoded

BODIES = st.lists(st.tuples(st.binary(max_size=40), st.booleans()), min_size=1, max_size=4)


def raw(body: bytes, chunks: bool) -> bytes:
    """A request."""
    head = b"POST /s/mcp HTTP/1.1\r\nHost: h\r\n"
    if not chunks:
        return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    parts = [body[i : i + 7] for i in range(0, len(body), 7)]
    return (
        head
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts)
        + b"0\r\n\r\n"
    )


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data cut at these places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(places)]


@given(bodies=BODIES, cuts=st.lists(st.integers(0, 10_000), max_size=20))
@example(bodies=[(b"\r\n\r\n", False), (b"{}", True)], cuts=list(range(200)))
def test_requests_cut_anywhere(bodies: list[tuple[bytes, bool]], cuts: list[int]):
    """Bodies, order and offsets do not depend on how the bytes arrive, one request after the answer to the other."""
    reader = RequestReader(1000)
    start = 0
    for body, chunks in bodies:
        found: list[HttpRequest] = []
        data = raw(body, chunks)
        for piece in pieces(data, cuts):
            reader.feed(piece)
            each = reader.next()
            if isinstance(each, HttpRequest):
                found.append(each)
        assert [(each.body, each.start, each.end) for each in found] == [(body, start, start + len(data))]
        start += len(data)


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 1000), max_size=5))
def test_any_bytes_are_a_request_a_refusal_or_unfinished(data: bytes, cuts: list[int]):
    """Nothing else is raised, and memory holds no more than what was fed."""
    reader = RequestReader(100)
    try:
        for piece in pieces(b"POST / HTTP/1.1\r\n" + data, cuts):
            reader.feed(piece)
            while isinstance(reader.next(), HttpRequest):
                pass
    except HttpRefusal:
        return
    assert reader.buffered <= len(data) + 20


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ANSWERS = [
    OK + b"Content-Length: 3\r\n\r\nabc",
    CHUNKED + b"3\r\nabc\r\n0\r\n\r\n",
    CHUNKED + b"3;x\r\nabc\r\n0\r\nA: b\r\n\r\n",
    CHUNKED + b"0\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\na",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab",
    # these are the last ones of their connections
    OK + b"Content-Length: 3\r\n\r\nab",
    OK + b"Content-Length: 3\r\n\r\nabcd",
    OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na",
    CHUNKED + b"zz\r\n",
    CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
]


def answer(reader: AnswerReader, parts: list[bytes]) -> tuple[object, ...]:
    """What the reader makes of one answer; nothing of the next one is fed."""
    reader.begin()
    head, content = None, b""
    try:
        for part in parts:
            reader.feed(part)
            head = head or reader.head()
            while head is not None and (data := reader.content()):
                content += data
    except AnswerError as error:
        return (str(error),)
    said = None if head is None else (head.status, head.keeps, head.media, head.header("content-length"))
    return said, content, reader.complete, reader.buffered


@given(answers=st.lists(st.sampled_from(ANSWERS), max_size=12), cuts=st.lists(st.integers(0, 200), max_size=5))
def test_what_a_connection_remembers_changes_no_answer(answers: list[bytes], cuts: list[int]):
    """Invariant: a reader that has read others reads an answer as a new one does, whatever the others were."""
    reader = AnswerReader()
    for whole in answers:
        parts = pieces(whole, cuts)
        found = answer(reader, parts)
        assert found == answer(AnswerReader(), parts)
        if len(found) == 1 or found[2:] != (True, 0):
            return  # such a connection is not used again


@given(whole=st.sampled_from(ANSWERS), cuts=st.lists(st.integers(0, 200), max_size=5))
def test_an_answer_taken_whole(whole: bytes, cuts: list[int]):
    """Invariant: a bounded content that is taken at once is what would have been read in parts, and as complete."""
    reader, parts, content = AnswerReader(), pieces(whole, cuts), None
    reader.begin()
    head = None
    try:
        for part in parts:
            reader.feed(part)
            head = head or reader.head()
            if head is not None and reader.bounded(100) and content is None:
                content = reader.whole()
    except AnswerError:
        return
    if content is not None:
        in_parts = answer(AnswerReader(), parts)
        assert (content, reader.complete, reader.buffered) == in_parts[1:]


VERSIONS = st.sampled_from(["2026-07-28", "2025-11-25", "2099-01-01", ""])
METHODS = st.sampled_from(["tools/call", "tools/list", "resources/read", "prompts/get", "x", "None", ""])
NAMES = st.sampled_from(["echo", "None", "1", "", "=?base64?ZWNobw==?=", "=?base64?!?="])


def values(what: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...]]:
    """A header: not there, once, or twice."""
    return st.lists(what, max_size=2).map(tuple)


@given(
    version=values(VERSIONS),
    method=values(METHODS),
    name=values(NAMES),
    body=st.tuples(VERSIONS | st.none(), METHODS, NAMES | st.none() | st.just(1), st.sampled_from(["name", "uri"])),
    notification=st.booleans(),
)
@example((), ("x",), (), (None, "x", None, "uri"), True)
@example(("2026-07-28",), ("tools/call",), (), ("2026-07-28", "tools/call", None, "name"), False)
@example(("2026-07-28",), ("tools/call",), ("echo",), ("2026-07-28", "tools/call", "echo", "name"), False)
def test_headers_that_agree_at_a_glance_agree(
    version: tuple[str, ...],
    method: tuple[str, ...],
    name: tuple[str, ...],
    body: tuple[str | None, str, object, str],
    notification: bool,
):
    """Invariant: the quick look never lets pass what the rule refuses."""
    headers = {"mcp-protocol-version": version, "mcp-method": method, "mcp-name": name}
    given_head = RequestHead(method="POST", path="/", query="", headers=headers, length=0)
    params = {
        body[3]: body[2],
        "_meta": {} if body[0] is None else {"io.modelcontextprotocol/protocolVersion": body[0]},
    }
    call = {"jsonrpc": "2.0", "method": body[1], "params": params, **({} if notification else {"id": 1})}
    try:
        message = parse_message(json.dumps(call).encode(), Limits())
    except WireError:
        return
    if routing(given_head).agrees(message):
        demand_headers(given_head, message)


LINES = st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=60).map(str.encode)


@given(messages=st.lists(LINES, max_size=6))
def test_events_are_read_as_they_were_written(messages: list[bytes]):
    """By the rules of the HTML standard: blocks end at an empty line, fields at a line end."""
    stream = b"".join(
        [priming("ab.0.0"), *(b"".join(event((m, b"\n"), event_id=f"ab.0.{i}")) for i, m in enumerate(messages))]
    )
    found = []
    for block in stream.split(b"\n\n")[1:-1]:
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
        found.append((fields[b"id"], fields[b"data"]))
    assert found == [(b"ab.0.%d" % i, m) for i, m in enumerate(messages)]


@given(text=st.text(max_size=40))
def test_base64_names_come_back(text: str):
    """What a client encodes is what is compared."""
    import base64

    assert decoded(f"=?base64?{base64.b64encode(text.encode()).decode()}?=") == text
