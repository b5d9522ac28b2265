"""One HTTP connection: one request after the other, what ends it, and what it does not wait for."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from attestd.enforcement import http_connection as module
from attestd.enforcement.client_end import READ_BYTES
from attestd.enforcement.http_connection import HttpConnection
from tests.support.http_inside import HttpInside, Web
from tests.support.waiting import until

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


def raw(body: object, session: str, extra: str = "") -> bytes:
    """A request as bytes."""
    content = json.dumps(body)
    return (
        f"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nMcp-Session-Id: {session}\r\n"
        f"{extra}Content-Length: {len(content)}\r\n\r\n{content}"
    ).encode()


@pytest.fixture(name="inside")
async def _inside() -> AsyncIterator[HttpInside]:
    inside = HttpInside(("call_tool", "echo"))
    yield inside
    inside.close()


@pytest.mark.parametrize("unix", [True, False])
async def test_requests_sent_ahead_wait_for_their_turn(inside: HttpInside, unix: bool):
    """The second is looked at when the first was answered."""
    web = inside.connect()
    session = await inside.session(web)
    if not unix:
        web = inside.connect(unix=False)
        assert (await web.ask(PING, "/none/mcp")).status == 404
        return
    await web.send(raw({**PING, "id": "a"}, session) + raw({**PING, "id": "b"}, session))
    assert (await inside.forwarded())["id"] == "a"
    assert list(inside.sessions[0].session.outstanding) == ["a"]
    for name in ("a", "b"):
        await inside.far.send({"jsonrpc": "2.0", "id": name, "result": {}})
        assert (await web.response()).json["id"] == name
        if name == "a":
            assert (await inside.forwarded())["id"] == "b"


async def test_what_is_sent_ahead_waits_with_the_client(inside: HttpInside):
    """Beyond a bound it stays in the kernel, and is taken when the request before it was answered."""
    web = inside.connect()
    session = await inside.session(web)
    await web.send(raw({**PING, "id": "a"}, session))
    assert (await inside.forwarded())["id"] == "a"
    connection = next(iter(inside.front.connections))
    pings = [raw({**PING, "id": number}, session, f"X-Pad: {'x' * 2000}\r\n") for number in range(500)]
    sending = asyncio.ensure_future(web.send(b"".join(pings)))
    await until(lambda: not connection._reading)
    assert module.AHEAD_BYTES < connection._reader.buffered <= module.AHEAD_BYTES + READ_BYTES
    assert not sending.done()
    for number in ("a", *range(len(pings))):
        await inside.far.send({"jsonrpc": "2.0", "id": number, "result": {}})
        assert (await web.response()).json["id"] == number
        assert connection._reader.buffered <= module.AHEAD_BYTES + READ_BYTES
    await sending


async def test_what_was_sent_ahead_waits_for_a_client_that_does_not_read(inside: HttpInside):
    """A request is not looked at while large answers to those before it are still in memory."""
    web = inside.connect()
    session = await inside.session(web)
    connection = next(iter(inside.front.connections))
    pings = [raw({**PING, "id": number}, session, f"X-Pad: {'x' * 2000}\r\n") for number in range(500)]
    sending = asyncio.ensure_future(web.send(b"".join(pings)))
    forwarded, queued = 0, []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            while True:
                number = (await inside.forwarded())["id"]
                assert number == forwarded
                forwarded += 1
                await inside.far.send({"jsonrpc": "2.0", "id": number, "result": {"x": "x" * 300_000}})
                queued.append(connection.queued)
    assert 1 << 20 < max(queued) < 2 << 20
    assert forwarded < 10
    assert connection._reader.buffered <= module.AHEAD_BYTES + READ_BYTES
    assert not sending.done()
    connection.tick()
    for number in range(len(pings)):
        if number >= forwarded:
            assert (await inside.forwarded())["id"] == number
            await inside.far.send({"jsonrpc": "2.0", "id": number, "result": {}})
        assert (await web.response()).json["id"] == number
    await sending


async def congested(inside: HttpInside) -> tuple[Web, HttpConnection]:
    """A connection whose client does not read: two answers wait for it, and in the daemon a third request."""
    web = inside.connect()
    session = await inside.session(web)
    connection = next(iter(inside.front.connections))
    await web.send(b"".join(raw({**PING, "id": number}, session) for number in range(3)))
    for number in range(2):
        await inside.forwarded()
        await inside.far.send({"jsonrpc": "2.0", "id": number, "result": {"x": "x" * 900_000}})
    await until(lambda: connection.congested)
    return web, connection


async def test_nothing_more_is_read_from_a_client_that_does_not_read(inside: HttpInside):
    """And what was read already is looked at when it reads again, though it sends nothing more."""
    web, connection = await congested(inside)
    await until(lambda: not connection._reading)
    assert inside.sessions[0].session.outstanding == {}
    for number in range(2):
        assert (await web.response()).json["id"] == number
    assert (await inside.forwarded())["id"] == 2


async def test_a_client_that_never_reads_is_given_up(inside: HttpInside, monkeypatch: pytest.MonkeyPatch):
    """In the time of an unused connection, whatever it has sent ahead."""
    _, connection = await congested(inside)
    monkeypatch.setattr(module, "REQUEST_S", -1.0)
    connection.tick()
    assert inside.gone == 0
    monkeypatch.setattr(module, "IDLE_S", -1.0)
    connection.tick()
    assert inside.gone == 1


async def test_connection_close_is_obeyed(inside: HttpInside):
    """The answer says so, too, and is the last."""
    web = inside.connect()
    session = await inside.session(web)
    await web.send(raw({**PING, "method": "x"}, session, "Connection: close\r\n"))
    answer = await web.response()
    assert answer.headers["connection"] == "close"
    assert await web.ended()
    assert inside.gone == 1


async def test_what_cannot_be_read_is_the_last(inside: HttpInside):
    """An HTTP error, then the end; the session goes on."""
    web = inside.connect()
    session = await inside.session(web)
    await web.send(b"NONSENSE\r\n\r\n")
    answer = await web.response()
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert await web.ended()
    other = inside.connect()
    assert (await other.ask({**PING, "method": "x"}, mcp_session_id=session)).status == 200


async def test_continue(inside: HttpInside):
    """Who asks before it sends a body is told to."""
    web = inside.connect()
    await web.send(
        b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    )
    await web.send(b"{}")
    assert (await web.response()).status == 400


async def test_a_request_that_does_not_end_is_given_up(inside: HttpInside, monkeypatch: pytest.MonkeyPatch):
    """408, and an unused connection is closed without a word."""
    slow, idle, busy = inside.connect(), inside.connect(), inside.connect()
    session = await inside.session(busy)
    await busy.send(raw(PING, session))
    await inside.forwarded()
    await slow.send(b"POST /mcp HTTP/1.1\r\n")
    await until(lambda: any(not each._reader.idle for each in inside.front.connections))
    inside.front.tick()
    assert inside.gone == 0
    monkeypatch.setattr(module, "REQUEST_S", -1.0)
    monkeypatch.setattr(module, "IDLE_S", -1.0)
    inside.front.tick()
    assert (await slow.response()).status == 408
    assert await idle.ended()
    await inside.far.send({"jsonrpc": "2.0", "id": 1, "result": {}})
    assert (await busy.response()).status == 200


async def test_a_client_that_exits(inside: HttpInside):
    """Its idle connections end; the watch is let go with the last holder."""
    web = inside.connect()
    connection = next(iter(inside.front.connections))
    connection._exited()
    assert await web.ended()
    assert inside.watches[0].closed


async def test_sessions_hold_the_watch_of_their_first_connection(inside: HttpInside):
    """It is closed when the session is over, not when the connection is."""
    web = inside.connect()
    session = await inside.session(web)
    web.far.close()
    await until(lambda: inside.gone == 1)
    assert not inside.watches[0].closed
    other = inside.connect()
    assert (await other.ask(None, method="DELETE", mcp_session_id=session)).status == 200
    assert inside.watches[0].closed


async def test_a_large_answer_to_a_slow_reader(inside: HttpInside):
    """It waits in the connection, and the server with it, until the client reads."""
    web = inside.connect()
    session = await inside.session(web)
    await web.send(raw(PING, session))
    await inside.forwarded()
    text = "x" * 900_000
    await inside.far.send({"jsonrpc": "2.0", "id": 1, "result": {"t": text}})
    await until(lambda: inside.sessions[0].backlog == 0)
    assert (await web.response()).json["result"]["t"] == text
