"""Streamable HTTP as dialogues: what is posted, what comes back, what is said again, and what never is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from attestd.enforcement import streamable_link
from attestd.enforcement.effects import UnansweredError
from attestd.enforcement.farewells import Farewells
from attestd.enforcement.http_client import HttpClient
from attestd.enforcement.link import ServerError
from attestd.enforcement.streamable_link import StreamableLink
from attestd.errors import Cause
from attestd.wire.model import Kind, Limits
from tests.fakes.http_peer import Caller, HttpPeer, Owner, PlainDoor
from tests.support.waiting import until

META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def ask(number: int, method: str, **params: Any) -> dict[str, Any]:
    """A request."""
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


def result(number: int | str, **content: Any) -> dict[str, Any]:
    """Its answer."""
    return {"jsonrpc": "2.0", "id": number, "result": content}


INITIALIZE = ask(1, "initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "c"})


class Table:
    """A link, its owner, and a server in the test's hands."""

    def __init__(self, peer: HttpPeer) -> None:
        self.peer = peer
        self.owner = Owner()
        self.annotations: dict[str, Any] = {}
        self.door = PlainDoor(peer.port)
        self.farewells = Farewells(asyncio.get_running_loop(), self.door)
        self.client = HttpClient(asyncio.get_running_loop(), self.door)
        self.link = StreamableLink(
            loop=asyncio.get_running_loop(),
            client=self.client,
            owner=self.owner,
            limits=Limits(message_bytes=1 << 20),
            annotations=self.annotations,
            farewell=self.farewells.say,
        )
        self._callers: list[Caller] = []

    async def asked(self, message: dict[str, Any]) -> tuple[Caller, Any]:
        """Send it; the server's side of it. Every exchange of these dialogues has a connection of its own."""
        self.link.send(message)
        return await self.arrived()

    async def arrived(self) -> tuple[Caller, Any]:
        """The next request on a new connection."""
        caller = await self.peer.caller()
        return caller, await caller.request()

    async def opened(self, *headers: str, revision: str = "2025-11-25") -> Caller:
        """A legacy session; the connection of the server's own stream, not yet answered."""
        caller, request = await self.asked(INITIALIZE)
        assert "mcp-session-id" not in request.headers
        await caller.json(result(1, protocolVersion=revision), "Connection: close", *headers)
        caller, request = await self.asked(INITIALIZED)
        await caller.answer(202, b"", "Connection: close")
        caller, request = await self.arrived()
        assert request.method == "GET"
        return caller


@pytest.fixture(name="table", params=["new", "rested"])
async def _table(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Table]:
    """The first request has a connection that rests, or none: then a task carries it."""
    monkeypatch.setattr(streamable_link, "RETRY_S", 0.01)
    monkeypatch.setattr(streamable_link, "GRACE_S", 0.05)
    peer = HttpPeer()
    await peer.start()
    table = Table(peer)
    if request.param == "rested":
        await table.client.prepare()
    yield table
    table.link.close()
    peer.stop()
    table.farewells.close()
    await asyncio.gather(*table.farewells.speaking, return_exceptions=True)


async def test_a_legacy_session(table: Table):
    """The session id and the agreed revision go with everything after initialize, and DELETE ends it."""
    stream = await table.opened("Mcp-Session-Id: s-1")
    await stream.answer(405, b"", "Connection: close")
    caller, request = await table.asked(ask(2, "tools/list"))
    assert request.headers["mcp-session-id"] == "s-1"
    assert request.headers["mcp-protocol-version"] == "2025-11-25"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept"] == "application/json, text/event-stream"
    assert "mcp-method" not in request.headers
    await caller.json(result(2, tools=[]), "Connection: close")
    assert (await table.owner.answer(2)).kind is Kind.RESULT  # type: ignore[union-attr]
    table.link.close()
    caller, request = await table.arrived()
    assert (request.method, request.headers["mcp-session-id"]) == ("DELETE", "s-1")
    await caller.answer(200)


async def test_an_answer_as_a_stream(table: Table):
    """Its beginning, progress, a question of the server, and the answer, each at once.

    The client's word goes back as a post.
    """
    caller, _ = await table.asked(ask(2, "tools/call", name="x"))
    await caller.stream()
    await until(lambda: table.owner.streams == [2])
    await caller.event(
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}
    )
    await table.owner.told("notifications/progress")
    await caller.event({"jsonrpc": "2.0", "id": "q", "method": "roots/list"})
    await table.owner.told("roots/list")
    other, request = await table.asked({"jsonrpc": "2.0", "id": "q", "result": {"roots": []}})
    assert request.json["result"] == {"roots": []}
    await other.answer(202)
    await caller.event(json.dumps(result(2, content=[]), indent=1).replace("\n", "\ndata: "))
    assert (await table.owner.answer(2)).kind is Kind.RESULT  # type: ignore[union-attr]
    await caller.end()


@pytest.mark.parametrize(
    ("params", "name"), [({"name": "tool ü"}, "=?base64?dG9vbCDDvA==?="), ({"name": "plain"}, "plain")]
)
async def test_a_modern_request(table: Table, params: dict[str, Any], name: str):
    """Headers come from the body and from what the tool's definition says; no session goes with it."""
    table.annotations["plain"] = {("region",): "Region"}
    message = ask(1, "tools/call", **params, arguments={"region": "west"}, _meta=META)
    caller, request = await table.asked(message)
    assert request.headers["mcp-protocol-version"] == "2026-07-28"
    assert request.headers["mcp-method"] == "tools/call"
    assert request.headers["mcp-name"] == name
    assert request.headers.get("mcp-param-region") == ("west" if name == "plain" else None)
    assert "mcp-session-id" not in request.headers
    await caller.json(result(1, content=[], resultType="complete"))
    await table.owner.answer(1)


async def test_cancelling_a_modern_request_closes_its_stream(table: Table):
    """Nothing is posted; the connection ends."""
    caller, _ = await table.asked(ask(1, "tools/call", name="x", _meta=META))
    await caller.stream()
    table.link.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
    assert await caller.ended()
    assert table.peer.none()


@pytest.mark.parametrize("table", ["new"], indirect=True)
async def test_what_is_cancelled_before_it_was_sent_takes_no_room(table: Table):
    """Requests whose cancellation came with them are never sent, and do not count as waiting for ever."""
    number = 0
    for number in range(1, 21):
        table.link.send(ask(number, "tools/call", name="x" * (1 << 17), arguments={}, _meta=META))
        table.link.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}})
        assert not table.link.congested
    await until(lambda: len(table.owner.failures) == number)
    _, request = await table.asked(ask(99, "tools/call", name="a", arguments={}, _meta=META))
    assert request.json["id"] == 99


async def test_cancelling_what_was_sent_closes_its_connection(table: Table):
    """Before a byte of the answer came; what comes then is nobody's."""
    caller, _ = await table.asked(ask(1, "tools/call", name="x", _meta=META))
    table.link.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
    assert await caller.ended()
    assert "cancelled" in getattr(await table.owner.answer(1), "message", "")
    other, _ = await table.asked(ask(2, "tools/list", _meta=META))
    await other.json(result(2, tools=[]))
    assert getattr(await table.owner.answer(2), "kind", None) is Kind.RESULT
    assert not table.owner.gone


async def test_an_answer_waits_for_a_client_that_does_not_read(table: Table):
    """Backpressure holds for an answer in one piece, too."""
    caller, _ = await table.asked(ask(1, "tools/list", _meta=META))
    table.link.pause()
    await caller.json(result(1, tools=[]))
    other, _ = await table.asked(ask(2, "tools/list", _meta=META))
    assert table.owner.messages == []
    table.link.resume()
    assert getattr(await table.owner.answer(1), "kind", None) is Kind.RESULT
    await other.json(result(2, tools=[]))
    assert getattr(await table.owner.answer(2), "kind", None) is Kind.RESULT


async def test_one_connection_for_calls_in_turn(table: Table):
    """Answers in one piece, in two, of a length and in chunks, long ones: each is its own request's."""
    caller = None
    for number, size in enumerate((10, 100_000, 20, 30), 1):
        table.link.send(ask(number, "tools/call", name="x", _meta=META))
        caller = caller or await table.peer.caller()
        assert (await caller.request()).json["id"] == number
        body = json.dumps(result(number, content=[], text="x" * size)).encode()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        if number % 2:
            await caller.raw(head + b"Content-Length: %d\r\n\r\n" % len(body))
            await asyncio.sleep(0.01)
            await caller.raw(body)
        else:
            await caller.raw(head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        answer = await table.owner.answer(number)
        assert getattr(answer, "kind", None) is Kind.RESULT
    assert table.peer.none()


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_errors_of_the_server_are_passed_on(table: Table, status: int):
    """A JSON-RPC error in any status is the answer, under the request's own id."""
    caller, _ = await table.asked(ask(5, "tools/list", _meta=META))
    error = {"code": -32022, "message": "no", "data": {"supported": ["x"]}}
    await caller.json({"jsonrpc": "2.0", "id": None, "error": error}, status=status)
    answer = await table.owner.answer(5)
    assert getattr(answer, "error", None) == error


@pytest.mark.parametrize("status", [400, 404, 405])
async def test_a_legacy_server_behind_a_modern_probe(table: Table, status: int):
    """It answers with plain text; the client is told "method not found", and falls back."""
    caller, _ = await table.asked(ask(1, "server/discover", _meta=META))
    await caller.answer(status, b"Bad Request")
    answer = await table.owner.answer(1)
    assert getattr(answer, "error", {})["code"] == -32601


@pytest.mark.parametrize(
    ("status", "cause", "sent"),
    [
        (401, Cause.SERVER_UNAVAILABLE, False),
        (403, Cause.SERVER_UNAVAILABLE, False),
        (429, Cause.SERVER_UNAVAILABLE, False),
        (503, Cause.SERVER_UNAVAILABLE, False),
        (500, Cause.SERVER_UNAVAILABLE, True),
        (400, Cause.SERVER_MALFORMED, True),
    ],
)
async def test_other_refusals_of_the_server(table: Table, status: int, cause: Cause, sent: bool):
    """They become ours, with the status; whether it may have been done depends on it."""
    caller, _ = await table.asked(ask(5, "tools/call", name="x"))
    await caller.answer(status, b"<html>secret</html>", 'WWW-Authenticate: Bearer realm="x"')
    answer = await table.owner.answer(5)
    assert isinstance(answer, UnansweredError)
    assert (answer.cause, answer.sent) == (cause, sent)
    assert str(status) in answer.message
    assert "secret" not in answer.message


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Content-Type: text/html"], b"<html>"),
        (["Content-Type: application/json"], b"[]"),
        (["Content-Type: application/json"], b'{"jsonrpc":"2.0","id":5,"result":5}'),
        (["Content-Type: application/json"], b'{"jsonrpc":"2.0","id":6,"result":{}}'),
        (["Content-Type: application/json"], b""),
        (["Content-Type: application/json"], b" " * ((1 << 20) + 1)),
        ([], b""),
    ],
)
async def test_answers_that_are_none(table: Table, headers: list[str], body: bytes):
    """The request fails at once instead of waiting for an answer that will not come."""
    caller, _ = await table.asked(ask(5, "tools/call", name="x"))
    await caller.answer(200, body, *headers)
    answer = await table.owner.answer(5)
    assert isinstance(answer, UnansweredError)
    assert answer.sent


async def test_a_bad_session_id(table: Table):
    """One that would not be a header is no session id."""
    caller, _ = await table.asked(INITIALIZE)
    await caller.json(result(1, protocolVersion="2025-11-25"), "Mcp-Session-Id: \xe9")
    assert isinstance(await table.owner.answer(1), UnansweredError)


# -- streams that are cut -------------------------------------------------------------------------------------------


async def test_a_cut_stream_is_taken_up_again(table: Table):
    """After its last whole event, and the answer arrives once."""
    (await table.opened("Mcp-Session-Id: s-1")).close()
    stream, _ = await table.arrived()
    await stream.answer(405, b"", "Connection: close")
    caller, _ = await table.asked(ask(2, "tools/call", name="x"))
    await caller.stream("Connection: close")
    await caller.event("", number="e-1")
    await caller.raw(b"12\r\nid: e-2\ndata: cut\n")
    caller.close()
    caller, request = await table.arrived()
    assert (request.method, request.headers["last-event-id"]) == ("GET", "e-1")
    assert request.headers["mcp-session-id"] == "s-1"
    await caller.stream("Connection: close")
    await caller.event(result(2, content=[]), number="e-2")
    assert (await table.owner.answer(2)).kind is Kind.RESULT  # type: ignore[union-attr]


@pytest.mark.parametrize("meta", [None, META])
async def test_a_cut_stream_that_cannot_be_taken_up(table: Table, meta: Any):
    """Without event ids, or in the modern era: the request fails as perhaps done, and is not sent again."""
    params = {"name": "x"} if meta is None else {"name": "x", "_meta": meta}
    caller, _ = await table.asked(ask(2, "tools/call", **params))
    await caller.stream("Connection: close")
    await caller.event("", number="" if meta is None else "e-1")
    caller.close()
    answer = await table.owner.answer(2)
    assert isinstance(answer, UnansweredError)
    assert answer.sent
    assert table.peer.none()


async def test_an_event_above_the_limit(table: Table):
    """It fails its request before it is kept."""
    caller, _ = await table.asked(ask(2, "tools/call", name="x"))
    await caller.stream()
    task = asyncio.ensure_future(caller.event("x" * (2 << 20)))
    answer = await table.owner.answer(2)
    assert isinstance(answer, UnansweredError)
    assert answer.cause is Cause.SERVER_MALFORMED
    task.cancel()


async def test_the_servers_own_stream(table: Table):
    """It is opened after initialized, and again after its last event whenever it ends."""
    stream = await table.opened("Mcp-Session-Id: s-1")
    await stream.stream("Connection: close")
    await stream.event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}, number="n-1")
    await table.owner.told("notifications/tools/list_changed")
    await stream.end()
    again, request = await table.arrived()
    assert request.headers["last-event-id"] == "n-1"
    await again.stream()
    await again.event({"jsonrpc": "2.0", "id": 9, "method": "ping"})
    await table.owner.told("ping")


# -- servers that forget --------------------------------------------------------------------------------------------

OLD_STYLE = {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "Bad Request: No valid session ID"}}


@pytest.mark.parametrize(("status", "body"), [(404, {}), (400, OLD_STYLE)])
async def test_a_forgotten_session_is_begun_again(table: Table, status: int, body: dict[str, Any]):
    """Initialize in the client's words, initialized, the subscription; then the request that was not taken."""
    await (await table.opened("Mcp-Session-Id: s-1")).answer(405, b"", "Connection: close")
    caller, _ = await table.asked(ask(2, "resources/subscribe", uri="a:b"))
    await caller.json(result(2), "Connection: close")
    await table.owner.answer(2)
    caller, _ = await table.asked(ask(3, "tools/call", name="x"))
    await caller.json(body, "Connection: close", status=status)
    caller, request = await table.arrived()
    assert request.json["method"] == "initialize"
    assert request.json["params"] == INITIALIZE["params"]
    assert "mcp-session-id" not in request.headers
    await caller.json(
        result(request.json["id"], protocolVersion="2025-11-25"), "Mcp-Session-Id: s-2", "Connection: close"
    )
    for method in ("notifications/initialized", "resources/subscribe"):
        caller, request = await table.arrived()
        assert (request.json["method"], request.headers["mcp-session-id"]) == (method, "s-2")
        if "id" in request.json:
            await caller.json(result(request.json["id"]), "Connection: close")
        else:
            await caller.answer(202, b"", "Connection: close")
    caller, request = await table.arrived()
    assert (request.json["id"], request.json["method"]) == (3, "tools/call")
    await caller.json(result(3, content=[]))
    await table.owner.answer(3)
    assert [message.id for message in table.owner.messages] == [1, 2, 3]


async def test_the_servers_own_stream_comes_before_what_waited(table: Table):
    """What a request sets off is told on it, so it must not be late: it has the connection that rests."""
    table.link.send(INITIALIZE)
    first, _ = await table.arrived()
    table.link.send(INITIALIZED)
    table.link.send(ask(2, "tools/call", name="x"))
    await first.json(result(1, protocolVersion="2025-11-25"))
    assert (await first.request()).json == INITIALIZED
    await first.answer(202)
    assert (await first.request()).method == "GET"
    second, request = await table.arrived()
    assert request.json["id"] == 2
    await second.json(result(2, content=[]))
    await table.owner.answer(2)


@pytest.mark.parametrize("rested", [False, True])
async def test_a_forgotten_session_is_begun_again_once(table: Table, rested: bool):
    """Though several requests were under way in it, and some hear of it only when it has been begun again."""
    await (await table.opened("Mcp-Session-Id: s-1")).answer(405, b"", "Connection: close")
    if rested:
        for _ in range(2):
            await table.client.prepare()
    callers = {}
    for number in (2, 3):
        table.link.send(ask(number, "tools/list"))
    for _ in range(2):
        caller, request = await table.arrived()
        callers[request.json["id"]] = caller
    await callers[2].answer(404, b"", "Connection: close")
    caller, request = await table.arrived()
    assert request.json["method"] == "initialize"
    opened = result(request.json["id"], protocolVersion="2025-11-25")
    await caller.json(opened, "Mcp-Session-Id: s-2", "Connection: close")
    caller, request = await table.arrived()
    assert request.json["method"] == "notifications/initialized"
    await caller.answer(202, b"", "Connection: close")
    caller, request = await table.arrived()
    assert (request.json["id"], request.headers["mcp-session-id"]) == (2, "s-2")
    await caller.json(result(2, tools=[]), "Connection: close")
    await callers[3].answer(404, b"", "Connection: close")
    caller, request = await table.arrived()
    assert (request.json["id"], request.headers["mcp-session-id"]) == (3, "s-2")
    await caller.json(result(3, tools=[]), "Connection: close")
    await table.owner.answer(3)


async def test_a_restarted_server_of_another_revision(table: Table):
    """The client would have to notice, so the session ends."""
    await (await table.opened("Mcp-Session-Id: s-1")).answer(405, b"", "Connection: close")
    caller, _ = await table.asked(ask(3, "tools/call", name="x"))
    await caller.answer(404, b"", "Connection: close")
    caller, request = await table.arrived()
    await caller.json(result(request.json["id"], protocolVersion="2025-06-18"), "Connection: close")
    cause, text = await table.owner.ended()
    assert (cause, "connect again" in text) == (Cause.SERVER_UNAVAILABLE, True)


async def test_404_without_a_session_is_an_answer(table: Table):
    """Nothing is begun again where nothing was remembered."""
    caller, _ = await table.asked(ask(3, "tools/list"))
    await caller.answer(404)
    assert isinstance(await table.owner.answer(3), UnansweredError)
    assert table.peer.none()


@pytest.mark.parametrize("table", ["new"], indirect=True)
async def test_a_server_that_is_not_there(table: Table):
    """The request was never sent, so the client may retry; once the server is back, it is served."""
    table.peer.stop()
    table.link.send(ask(2, "tools/call", name="x"))
    answer = await table.owner.answer(2)
    assert isinstance(answer, UnansweredError)
    assert (answer.cause, answer.sent) == (Cause.SERVER_UNAVAILABLE, False)
    await table.peer.start()
    caller, _ = await table.asked(ask(3, "tools/call", name="x"))
    await caller.json(result(3, content=[]))
    await table.owner.answer(3)


@pytest.mark.parametrize("table", ["new"], indirect=True)
async def test_a_stranger_in_the_servers_place(table: Table):
    """The request fails as untrusted, and the link goes on when the right one is back."""
    table.door.refusal = ServerError(Cause.SERVER_UNTRUSTED, "a stranger")
    table.link.send(ask(2, "tools/call", name="x"))
    answer = await table.owner.answer(2)
    assert isinstance(answer, UnansweredError)
    assert (answer.cause, answer.sent) == (Cause.SERVER_UNTRUSTED, False)
    assert table.owner.gone == []


async def test_a_silent_server(table: Table, monkeypatch: pytest.MonkeyPatch):
    """It is not waited for without end."""
    monkeypatch.setattr(streamable_link, "SILENCE_S", 0.05)
    caller, _ = await table.asked(ask(2, "tools/call", name="x"))
    answer = await table.owner.answer(2)
    assert "silent" in str(answer)
    assert await caller.ended()
