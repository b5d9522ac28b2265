"""Rows of the wire on the HTTP fronts: what is another's, no session, hostile bytes, smuggling, too much."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.support.http_client import PLACES, Booth, Caller, calling
from tests.support.instance import cause


def memory(http: Booth, seconds: float = 4) -> int:
    """The most that the daemon has resident in the next seconds, bytes."""
    assert http.instance.process is not None
    daemon, most, until = psutil.Process(http.instance.process.pid), 0, time.monotonic() + seconds
    while time.monotonic() < until:
        most = max(most, daemon.memory_info().rss)
        time.sleep(0.02)
    return most


def big(number: int, mebibytes: int) -> Any:
    """A call with a long answer."""
    call = {"name": "big", "arguments": {"size": mebibytes << 20}}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call}


@pytest.fixture(params=PLACES, name="caller")
def _caller(http: Booth, request: pytest.FixtureRequest) -> Iterator[Caller]:
    with calling(http.instance, http.at(request.param)) as caller:
        yield caller


@pytest.mark.attack("W9")
@pytest.mark.parametrize("mark", ["other", ""])
@pytest.mark.parametrize("place", PLACES)
def test_a_stolen_session_id(http: Booth, place: str, mark: str):
    """For another granted program, and for another process of the same program, the session does not exist."""
    stolen, own = f"stolen{place}{mark}", f"own{place}{mark}"
    before = http.recorded("not_found")
    with calling(http.instance, http.at(place)) as victim, calling(http.instance, http.at(place), mark=mark) as thief:
        victim.initialize()
        thief.initialize()
        assert "result" in thief.call(mark=own).json
        thief.session = victim.session
        assert thief.call(mark=stolen).status == 404
        thief.post(None, "get", method="GET", accept="text/event-stream")
        assert thief.response("get").status == 404
        assert thief.ask(None, method="DELETE").status == 404
        assert "result" in victim.call().json
    assert own in http.marks()
    assert stolen not in http.marks()
    assert http.recorded("not_found") == before + 3


@pytest.mark.attack("W9")
@pytest.mark.parametrize("place", PLACES)
def test_a_stolen_last_event_id(http: Booth, place: str):
    """An event of another session does not exist, not even for the same process."""
    with (
        calling(http.instance, http.at(place)) as victim,
        calling(http.instance, http.at(place), mark="other") as thief,
    ):
        victim.initialize()
        victim.post(None, "own", method="GET", accept="text/event-stream")
        event = victim.response("own", events=1).events[0]["id"]
        thief.initialize()
        for caller in (thief, victim):
            session = caller.session
            caller.initialize()
            caller.post(None, "resumed", method="GET", accept="text/event-stream", last_event_id=event)
            assert caller.response("resumed").status == 404
            caller.session = session


@pytest.mark.attack("W9")
@pytest.mark.parametrize("place", PLACES)
def test_a_stolen_sse_session(http: Booth, place: str):
    """The session id of 2024-11-05 stands in an address; it is bound all the same."""
    with (
        calling(http.instance, http.at(place)) as victim,
        calling(http.instance, http.at(place), mark="other") as thief,
    ):
        victim.post(None, "own", method="GET", path=victim.path.replace("mcp", "sse"), accept="text/event-stream")
        address = victim.response("own", events=1).events[0]["data"]
        body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        assert thief.ask(body, path=address).status == 404
        assert victim.ask(body, path=address).status == 202
        assert victim.response("own", events=2).events[1]["data"] == '{"jsonrpc":"2.0","id":1,"result":{}}'


@pytest.mark.attack("W9")
def test_a_cancellation_and_an_answer_of_another(http: Booth, caller: Caller):
    """Ids of one session mean nothing in another one of the same process."""
    caller.initialize()
    first = caller.session
    caller.post({"jsonrpc": "2.0", "id": "s", "method": "tools/call", "params": {"name": "slow"}}, "slow")
    caller.initialize()
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "s"}}
    assert caller.ask(cancelled).status == 202
    caller.session = first
    assert caller.response("slow").json["result"]["content"]
    assert http.recorded("not_outstanding")


@pytest.mark.attack("W8")
def test_a_call_without_a_session(http: Booth, caller: Caller):
    """It is decided as any other: refused for a stranger, and for the granted program only if it is proven."""
    mark = f"nosession{caller.path}"
    caller.initialize()
    caller.session = ""
    assert "result" in caller.call(mark=mark).json
    assert mark in http.marks()
    with calling(http.instance, caller.place, mark="stranger") as stranger:
        assert cause(stranger.call(mark=f"{mark}stranger").json) == "no_grant"
    assert f"{mark}stranger" not in http.marks()


MESSAGE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "echo", "arguments": {"mark": "hostile"}},
}
TEXT = json.dumps(MESSAGE)


@pytest.mark.attack("W3")
@pytest.mark.parametrize(
    "body",
    [
        TEXT.replace('"method"', '"method": "ping", "method"').encode(),
        TEXT.replace('"name"', '"name": "harmless", "name"').encode(),
        TEXT.replace('"method"', '"Method": "ping", "method"').encode(),
        TEXT.replace("}}}", '}}, "result": {}}').encode(),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-32"),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.replace("hostile", "\\ud800").encode(),
        TEXT.replace('"hostile"', "NaN").encode(),
        TEXT.encode() + b"\n" + TEXT.encode(),
        TEXT.replace('"echo"', '"echo\n"').encode(),
        b"[" + TEXT.encode() + b"]",
    ],
)
def test_hostile_bodies(http: Booth, caller: Caller, body: bytes):
    """What is refused on a line is refused in a body, with 400 or a JSON-RPC error, and the connection goes on."""
    caller.initialize()
    before = len(http.instance.executed())
    answer = caller.ask(body)
    assert answer.status == 400 or "error" in answer.json
    assert "result" in caller.call(mark="after").json
    assert len(http.instance.executed()) == before + 1


SMUGGLED = "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nMcp-Session-Id: {session}\r\nContent-Length: {size}\r\n\r\n{text}"


@pytest.mark.attack("W1")
@pytest.mark.parametrize(
    "head",
    [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\x0bchunked",
        "Content-Length: 0\r\nContent-Length: 4",
        "Content-Length: 4, 4",
        "Content-Length: +4",
        "Content-Length: 0x4",
        "Content-Length: -1",
        "Content-Length:\r\n 4",
        "Content-Length: 4\nX: y",
        "X: y\rContent-Length: 4",
        "Host: other",
        "X: a\0b",
        "Transfer-Encoding: chunked\r\nTrailer: Host",
    ],
)
def test_smuggled_requests(http: Booth, caller: Caller, head: str):
    """Two readings of one request are none: 400, and the stream ends before what stands behind it."""
    caller.initialize()
    before = len(http.instance.executed())
    inner = SMUGGLED.format(path=caller.path, host=caller.host, session=caller.session, size=len(TEXT), text=TEXT)
    first = f"POST {caller.path} HTTP/1.1\r\nHost: {caller.host}\r\nContent-Type: application/json\r\n{head}\r\n\r\n0\r\n\r\n"
    caller.send((first + inner).encode("latin-1"))
    assert caller.response().status in {400, 415}
    assert caller.until_ended() == b""
    assert len(http.instance.executed()) == before


@pytest.mark.attack("W1")
@pytest.mark.parametrize(
    "body",
    [
        "2;a\r\n{}\r\n0\r\nHost: x\r\n\r\n",
        "2\n{}\n0\n\n",
        "0x2\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}XX0\r\n\r\n",
        "-2\r\n{}\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n{}\r\n",
    ],
)
def test_smuggled_in_chunks(http: Booth, caller: Caller, body: str):
    """Chunks that are not exactly chunks, and trailers, end the connection."""
    caller.initialize()
    head = f"POST {caller.path} HTTP/1.1\r\nHost: {caller.host}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    caller.send((head + body).encode())
    assert caller.response().status in {400, 413}
    assert caller.until_ended() == b""
    del http


@pytest.mark.attack("W13")
def test_too_much(http: Booth, caller: Caller):
    """Announced sizes are believed enough to be refused; heads are bounded; others are served meanwhile."""
    with calling(http.instance, caller.place) as other:
        other.initialize()
        caller.post(b"", content_length=str(1 << 30), content_type="application/json")
        assert caller.response().status == 413
        caller.post({"jsonrpc": "2.0", "id": 1, "method": "ping"}, "head", x_padding="x" * 40_000)
        assert caller.response("head").status == 431
        caller.post({"jsonrpc": "2.0", "id": 1, "method": "ping"}, "target", path=f"{caller.path}?{'x' * 4000}")
        assert caller.response("target").status == 414
        caller.post(b"[" * 100_000, "deep", content_type="application/json")
        assert caller.response("deep").status == 400
        assert "result" in other.call().json


@pytest.mark.attack("W13")
def test_a_client_that_sends_ahead(http: Booth, caller: Caller):
    """While its call is under way, requests behind it wait with the client, not in the daemon's memory."""
    caller.initialize()
    before = memory(http, 0.1)
    caller.post(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "slow", "arguments": {"seconds": 60}}},
        "late",
    )
    request = http.request("much", caller.place)
    much = request.replace(b"\r\n\r\n", b"\r\nX-Pad: " + b"x" * 4096 + b"\r\n\r\n", 1) * 250
    sent = 0

    def send() -> None:
        nonlocal sent
        with contextlib.suppress(OSError):  # its process is killed while it cannot write
            for sent in range(64):  # noqa: B007 - it is looked at
                caller.send(much, "late")

    sending = threading.Thread(target=send)
    sending.start()
    try:
        grown = memory(http) - before
    finally:
        caller.process.kill()
        sending.join()
    assert sent < 32
    assert grown < 16 << 20
    assert "much" not in http.marks()


@pytest.mark.attack("W13")
def test_a_client_that_never_reads(http: Booth, caller: Caller):
    """Large answers nobody reads hold up their own session only, and memory stays bounded."""
    assert http.instance.process is not None
    with calling(http.instance, caller.place) as other:
        other.initialize()
        caller.initialize()
        before = memory(http, 0.1)
        for number in range(4):
            caller.post(big(number, 8), f"deaf{number}")
        began = time.monotonic()
        assert "result" in other.call().json
        assert time.monotonic() - began < 10
        assert memory(http) - before < (4 * 8 + 32) << 20


@pytest.mark.attack("W13")
def test_a_client_that_never_reads_what_it_asked_for_ahead(http: Booth, caller: Caller):
    """A request is not looked at while answers to those before it are still in the daemon's memory."""
    caller.initialize()
    before = memory(http, 0.1)
    for number in range(40):
        caller.post(big(number, 4), "deaf")
    assert memory(http) - before < 40 << 20


@pytest.mark.attack("W13")
def test_a_client_that_never_reads_its_stream(http: Booth, caller: Caller):
    """In 2024-11-05 every answer comes on one stream: what does not fit into it waits with the server."""
    endpoint = caller.path.replace("mcp", "sse")
    caller.post(None, "deaf", path=endpoint, method="GET", accept="text/event-stream")
    path = caller.response("deaf", events=1).events[0]["data"]
    hello = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "deaf", "version": "1"}}
    opening = {"jsonrpc": "2.0", "id": "hello", "method": "initialize", "params": hello}
    assert caller.ask(opening, "post", path=path).status == 202
    before = memory(http, 0.1)
    with contextlib.suppress(TimeoutError):  # it is not even accepted
        for number in range(40):
            caller.post(big(number, 4), "post", path=path)
            assert caller.response("post", timeout=2).status == 202
    assert memory(http) - before < 40 << 20
