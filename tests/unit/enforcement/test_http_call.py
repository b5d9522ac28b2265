"""What one POST brought, and the clients that do not read what they get for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from attestd.enforcement.http_call import Call, is_own, wants_events
from attestd.enforcement.proof import Marks
from attestd.wire.classify import classify
from attestd.wire.framing import Line
from attestd.wire.model import CallRequest, Era, Kind, Limits
from attestd.wire.parse import parse_message
from attestd.wire.server import ServerMessage
from tests.support.http_inside import HELLO, HttpInside, Web
from tests.support.waiting import until
from tests.unit.enforcement.test_http_session import LOG, begun, call, progress, result


@pytest.fixture(name="inside")
async def _inside() -> AsyncIterator[HttpInside]:
    inside = HttpInside(("call_tool", "echo"))
    yield inside
    inside.close()


def request(**meta: Any) -> CallRequest:
    """A call."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "_meta": meta}}
    return classify(parse_message(json.dumps(body).encode(), Limits()), "2025-11-25", Era.LEGACY)


def test_who_wants_events():
    """Who asks for progress, or for messages of a level."""
    assert not wants_events(request())
    assert wants_events(request(progressToken=0))
    assert wants_events(request(**{"io.modelcontextprotocol/logLevel": "info"}))


def test_what_is_for_the_clients_own_stream():
    """What is about the session, not about a request."""
    for method, found in (("notifications/tools/list_changed", True), ("notifications/progress", False)):
        assert is_own(ServerMessage(kind=Kind.NOTIFICATION, id=None, method=method, params={})) is found


def test_a_batch():
    """Is one by its first byte; whether it may be, the session says."""
    for data, found in ((b"[]", True), (b"{}", False)):
        assert Call(None, Line(data, 0, 2), Marks(0), 0.0).batch is found


async def test_a_client_that_leaves_resumes_nothing_for_another_that_does_not_read(inside: HttpInside):
    """Each exchange that ends used to let one more message of the server into memory."""
    one = inside.connect()
    session = await inside.session(one)
    await one.post(call(1, "t"), mcp_session_id=session)
    await inside.forwarded()
    much = progress("t", "x" * 900_000)
    telling = asyncio.ensure_future(inside.far.send(*[much] * 20))
    await until(lambda: inside.sessions[0].backlog > 1 << 20)
    for number in range(2, 8):
        other = inside.connect()
        await other.post(call(number), mcp_session_id=session)
        assert (await inside.forwarded())["id"] == number
        other.far.close()
        await until(lambda number=number: inside.sessions[0]._calls[number].exchange is None)  # type: ignore[misc]
        await asyncio.sleep(0.05)
    assert inside.sessions[0].backlog < 3 << 20
    assert not telling.done()
    assert len((await one.response(20)).messages) >= 19
    await telling


async def test_a_stream_that_ends_with_a_long_answer(inside: HttpInside):
    """Once it is complete the session goes on, whether it is read or not."""
    one, two = inside.connect(), inside.connect()
    session = await inside.session(one)
    await one.post(call(1, "t"), mcp_session_id=session)
    await inside.forwarded()
    much = progress("t", "x" * 700_000)
    await inside.far.send(much, result(1, "x" * 900_000))
    await until(lambda: inside.sessions[0].session.outstanding == {})
    assert any(connection.congested for connection in inside.front.connections)
    await two.post(call(2), mcp_session_id=session)
    await inside.forwarded()
    await inside.far.send(result(2))
    assert (await two.response()).json["id"] == 2
    assert (await one.response()).messages[-1]["id"] == 1


async def test_a_stream_that_is_taken_up_while_it_was_not_read(inside: HttpInside):
    """The connection that congested it holds up nothing any more, though it is still there."""
    one, again = inside.connect(), inside.connect()
    session, last = await begun(inside, one)
    much = progress("t", "x" * 700_000)
    await inside.far.send(much, much)
    await until(lambda: inside.sessions[0].backlog > 1 << 20)
    await again.post(None, method="GET", mcp_session_id=session, last_event_id=last)
    assert len((await again.response(3)).messages) == 2
    await inside.far.send(result(1))
    assert (await again.response()).messages[-1]["id"] == 1


async def heard(inside: HttpInside) -> tuple[Web, str]:
    """The stream of an initialised session of 2024-11-05, and where its messages are posted."""
    stream, post = inside.connect(), inside.connect()
    await stream.post(None, "/sse", "GET")
    address = (await stream.response(1)).events[0]["data"]
    hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2024-11-05"}}
    assert (await post.ask(hello, address)).status == 202
    await inside.forwarded()
    await inside.far.send({"jsonrpc": "2.0", "id": 0, "result": {**HELLO, "protocolVersion": "2024-11-05"}})
    await stream.response(2)
    return stream, address


async def test_http_and_sse_waits_for_a_client_that_does_not_read(inside: HttpInside):
    """Answers wait with the server, and messages with the client, until the stream is read; then all come."""
    stream, address = await heard(inside)
    post = inside.connect()
    queued = []

    async def calls() -> None:
        for number in range(1, 31):
            assert (await post.ask(call(number), address)).status == 202
            await inside.forwarded()
            await inside.far.send(result(number, "x" * 300_000))

    calling = asyncio.ensure_future(calls())
    for _ in range(50):
        await asyncio.sleep(0.01)
        queued.append(inside.sessions[0].backlog)
    assert not calling.done()
    assert 1 << 20 < max(queued) < 2 << 20
    said = await stream.response(32)
    assert [json.loads(event["data"])["id"] for event in said.events[1:]] == list(range(31))
    await calling


async def test_http_and_sse_waits_with_what_the_server_tells(inside: HttpInside):
    """A server that tells a lot is not read further than the client reads."""
    stream, _ = await heard(inside)
    much = {**LOG, "params": {"level": "info", "data": "x" * 300_000}}
    telling = asyncio.ensure_future(inside.far.send(*[much] * 30))
    queued = []
    for _ in range(50):
        await asyncio.sleep(0.01)
        queued.append(inside.sessions[0].backlog)
    assert not telling.done()
    assert 1 << 20 < max(queued) < 2 << 20
    assert len((await stream.response(32)).events) == 32
    await telling


async def test_http_and_sse_waits_with_refusals(inside: HttpInside):
    """Nobody fills memory with requests that no server sees."""
    stream, address = await heard(inside)
    post = inside.connect()
    number = 0

    async def ask() -> None:
        async with asyncio.timeout(1):
            assert (await post.ask(call(number, name="y" * 1000), address)).status == 202

    with contextlib.suppress(TimeoutError):
        for number in range(1, 10_000):  # noqa: B007 - where it stopped is looked at
            await ask()
    assert number < 5000
    assert inside.sessions[0].backlog < 2 << 20
    said = await stream.response(number + 2)
    assert [json.loads(event["data"])["id"] for event in said.events[1:]] == list(range(number + 1))
    assert (await post.response()).status == 202


async def test_http_and_sse_accepts_what_it_can_take(inside: HttpInside):
    """While the server reads nothing, messages wait with the client: nothing was accepted that is only kept."""
    _, address = await heard(inside)
    posts = [inside.connect() for _ in range(12)]
    large = call(1)
    for number, post in enumerate(posts, 1):
        large = {**call(number), "params": {"name": "echo", "arguments": {"text": "x" * 500_000}}}
        sending = asyncio.ensure_future(post.post(large, address))
        await asyncio.sleep(0.02)
        await sending
    accepted = asyncio.ensure_future(asyncio.gather(*(post.response() for post in posts)))
    await asyncio.sleep(0.2)
    held = inside.sessions[0]._queue
    assert held
    assert all(waiting.exchange is not None and waiting.exchange.open for waiting in held)
    for number in range(1, len(posts) + 1):
        assert (await inside.forwarded())["id"] == number
    assert [answer.status for answer in await accepted] == [202] * len(posts)
