"""HTTP+SSE of 2024-11-05 as dialogues: one stream, one place to post to, and a server that comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from attestd.enforcement import sse_link
from attestd.enforcement.effects import UnansweredError
from attestd.enforcement.farewells import Farewells
from attestd.enforcement.http_client import HttpClient
from attestd.enforcement.http_wire import HttpError
from attestd.enforcement.sse_link import SseLink
from attestd.errors import Cause
from attestd.wire.model import Limits
from tests.fakes.http_peer import Caller, HttpPeer, Owner, PlainDoor

INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2024-11-05"}}
CALL = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "x"}}


def result(number: int | str, **content: Any) -> dict[str, Any]:
    """An answer."""
    return {"jsonrpc": "2.0", "id": number, "result": content}


class Table:
    """A link and a server in the test's hands."""

    def __init__(self, peer: HttpPeer) -> None:
        self.peer = peer
        self.owner = Owner()
        door = PlainDoor(peer.port, path="/sse")
        self.farewells = Farewells(asyncio.get_running_loop(), door)
        self.link = SseLink(
            loop=asyncio.get_running_loop(),
            client=HttpClient(asyncio.get_running_loop(), door),
            owner=self.owner,
            limits=Limits(),
            annotations={},
            farewell=self.farewells.say,
        )

    async def stream(self, endpoint: str = "/post?session=1") -> Caller:
        """The server accepts the stream and names the endpoint."""
        caller = await self.peer.caller()
        request = await caller.request()
        assert (request.method, request.target, request.headers["accept"]) == ("GET", "/sse", "text/event-stream")
        await caller.stream()
        await caller.event(endpoint, name="endpoint")
        return caller

    async def opened(self) -> Caller:
        """The link is open."""
        opening = asyncio.ensure_future(self.link.open())
        caller = await self.stream()
        await opening
        return caller

    async def posted(self, status: int = 202) -> Any:
        """One message, accepted; every post has a connection of its own."""
        caller = await self.peer.caller()
        request = await caller.request()
        assert request.method == "POST"
        await caller.answer(status, b"Accepted", "Connection: close")
        return request

    async def shake_hands(self, stream: Caller) -> None:
        """Initialize and its notification."""
        self.link.send(INITIALIZE)
        request = await self.posted()
        assert request.target == "/post?session=1"
        await stream.event(result(1, protocolVersion="2024-11-05"))
        self.link.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert (await self.posted()).json["method"] == "notifications/initialized"


@pytest.fixture(name="table")
async def _table(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Table]:
    monkeypatch.setattr(sse_link, "RETRY_S", 0.01)
    peer = HttpPeer()
    await peer.start()
    table = Table(peer)
    yield table
    table.link.close()
    peer.stop()
    table.farewells.close()
    await asyncio.gather(*table.farewells.speaking, return_exceptions=True)


async def test_a_session(table: Table):
    """Answers, questions and notifications come on the stream; what the client says is posted."""
    stream = await table.opened()
    await table.shake_hands(stream)
    table.link.send(CALL)
    assert (await table.posted()).json == CALL
    await stream.event({"jsonrpc": "2.0", "id": "q", "method": "roots/list"})
    await table.owner.told("roots/list")
    table.link.send({"jsonrpc": "2.0", "id": "q", "result": {"roots": []}})
    assert (await table.posted()).json["id"] == "q"
    await stream.event(result(2, content=[]))
    await table.owner.answer(2)
    assert table.owner.failures == {}


@pytest.mark.parametrize("endpoint", ["http://evil.example/post", "//evil.example/", "https://127.0.0.1/post", "\\x"])
async def test_an_endpoint_elsewhere(table: Table, endpoint: str):
    """Another origin gets nothing: the link does not open."""
    opening = asyncio.ensure_future(table.link.open())
    await table.stream(endpoint)
    with pytest.raises(HttpError) as found:
        await opening
    assert found.value.cause is Cause.SERVER_UNTRUSTED
    assert table.peer.none()


@pytest.mark.parametrize(
    ("status", "media", "cause"),
    [(200, "text/html", Cause.SERVER_MALFORMED), (401, "text/plain", Cause.SERVER_UNAVAILABLE)],
)
async def test_what_is_no_stream(table: Table, status: int, media: str, cause: Cause):
    """The link does not open."""
    opening = asyncio.ensure_future(table.link.open())
    caller = await table.peer.caller()
    await caller.request()
    await caller.answer(status, b"x", f"Content-Type: {media}")
    with pytest.raises(HttpError) as found:
        await opening
    assert found.value.cause is cause


async def test_a_stream_that_names_no_endpoint(table: Table):
    """It ends, and so does opening."""
    opening = asyncio.ensure_future(table.link.open())
    caller = await table.peer.caller()
    await caller.request()
    await caller.stream()
    await caller.end()
    with pytest.raises(HttpError, match="named an endpoint"):
        await opening


async def test_a_server_that_comes_back(table: Table):
    """What was accepted fails as perhaps done; on the new stream everything is said again before anything new."""
    stream = await table.opened()
    await table.shake_hands(stream)
    table.link.send(CALL)
    await table.posted()
    await stream.end()
    stream.close()
    failed = await table.owner.answer(2)
    assert isinstance(failed, UnansweredError)
    assert failed.sent
    stream = await table.stream("/post?session=2")
    again = await table.posted()
    assert (again.json["method"], again.target) == ("initialize", "/post?session=2")
    await stream.event(result(again.json["id"], protocolVersion="2024-11-05"))
    assert (await table.posted()).json["method"] == "notifications/initialized"
    table.link.send({**CALL, "id": 3})
    assert (await table.posted()).json["id"] == 3
    await stream.event(result(3, content=[]))
    await table.owner.answer(3)
    assert [message.id for message in table.owner.messages] == [1, 3]


@pytest.mark.parametrize(("status", "sent"), [(404, False), (400, False), (500, True)])
async def test_a_refused_post(table: Table, status: int, sent: bool):
    """The request fails; below 500 the server did not take it."""
    await table.opened()
    table.link.send(CALL)
    await table.posted(status)
    failed = await table.owner.answer(2)
    assert isinstance(failed, UnansweredError)
    assert failed.sent is sent


async def test_an_answer_that_is_not_mcp(table: Table):
    """Its request fails, the stream goes on."""
    stream = await table.opened()
    table.link.send(CALL)
    await table.posted()
    await stream.event('{"jsonrpc":"2.0","id":2,"result":5}')
    failed = await table.owner.answer(2)
    assert isinstance(failed, UnansweredError)
    assert failed.cause is Cause.SERVER_MALFORMED
    await stream.event({"jsonrpc": "2.0", "id": 9, "method": "ping"})
    await table.owner.told("ping")


async def test_malformed_http_ends_the_link(table: Table):
    """There is no telling what such a server means."""
    stream = await table.opened()
    await stream.raw(b"nonsense\r\n")
    assert (await table.owner.ended())[0] is Cause.SERVER_MALFORMED
