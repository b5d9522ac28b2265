"""Which connection a request takes, which request is repeated, and where a redirect may lead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from attestd.enforcement import http_client
from attestd.enforcement.http_client import Exchange, HttpClient
from attestd.enforcement.http_wire import HttpError, SilentError
from attestd.enforcement.link import ServerError
from attestd.errors import Cause
from tests.fakes.http_peer import HttpPeer, PlainDoor


@pytest.fixture(name="peer")
async def _peer() -> AsyncIterator[HttpPeer]:
    peer = HttpPeer()
    await peer.start()
    yield peer
    peer.stop()


@pytest.fixture(name="client")
async def _client(peer: HttpPeer) -> AsyncIterator[HttpClient]:
    client = HttpClient(asyncio.get_running_loop(), PlainDoor(peer.port))
    yield client
    client.close()


def post(client: HttpClient, *, repeatable: bool = False, patience: float | None = None) -> asyncio.Task[Exchange]:
    """A request under way."""
    request = client.request("POST", [("X-Mine", "1")], b"{}", repeatable=repeatable, patience=patience)
    return asyncio.ensure_future(request)


async def test_the_first_connection_is_made_before_the_first_request(peer: HttpPeer, client: HttpClient):
    """Who answers is known before a byte; the request then uses that connection, with the operator's headers."""
    await client.prepare()
    caller = await peer.caller()
    task = post(client)
    request = await caller.request()
    assert request.headers["host"] == f"127.0.0.1:{peer.port}"
    assert request.headers["accept-encoding"] == "identity"
    assert (request.headers["x-own"], request.headers["x-mine"]) == ("operator", "1")
    await caller.answer(200, b"ok")
    exchange = await task
    assert await exchange.content(10) == b"ok"
    exchange.close()
    task = post(client)
    await caller.request()
    await caller.answer(200)
    (await task).close()
    assert peer.none()


async def test_requests_side_by_side(peer: HttpPeer, client: HttpClient):
    """Each has a connection of its own; at the end at most a few are kept."""
    tasks = [post(client) for _ in range(6)]
    callers = [await peer.caller() for _ in tasks]
    for caller in callers:
        await caller.request()
        await caller.answer(200)
    for task in tasks:
        exchange = await task
        await exchange.content(1)
        exchange.close()
    assert client.connections == http_client.IDLE_MAX


async def test_a_stream_that_is_about_to_end(peer: HttpPeer, client: HttpClient, monkeypatch: pytest.MonkeyPatch):
    """The next request waits a moment for its connection, and takes a new one if it does not end."""
    monkeypatch.setattr(http_client, "ENDING_S", 5.0)
    task = post(client)
    caller = await peer.caller()
    await caller.request()
    await caller.stream()
    await caller.event("x")
    exchange = await task
    await exchange.chunk()
    exchange.ending()
    second, third = post(client), post(client)
    other = await peer.caller()  # only one can have it
    await other.request()
    await caller.end()
    assert await exchange.chunk() == b""
    exchange.close()
    await caller.request()
    monkeypatch.setattr(http_client, "ENDING_S", 0.01)
    for each in (caller, other):
        await each.stream()
    held = await second
    held.ending()
    fourth = post(client)
    await (await peer.caller()).request()
    for task in (third, fourth):
        task.cancel()


async def test_an_old_connection_is_not_used_again(peer: HttpPeer, client: HttpClient, monkeypatch: pytest.MonkeyPatch):
    """Servers close idle connections without a word, so only fresh ones are taken."""
    await client.prepare()
    monkeypatch.setattr(http_client, "IDLE_S", -1.0)
    first = await peer.caller()
    task = post(client)
    second = await peer.caller()
    await second.request()
    await second.answer(200)
    (await task).close()
    assert await first.ended()


async def told(client: HttpClient, *, repeatable: bool = False, patience: float | None = None) -> Exchange:
    """A request that was sent without waiting, and whose answer is none that is told."""
    said: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
    begun = client.send("POST", [], b"{}", patience=patience, ready=said.set_result, limit=100)
    assert begun is not None
    assert await said is None
    return await client.request("POST", [], b"{}", repeatable=repeatable, patience=patience, begun=begun)


async def test_without_a_connection_nothing_is_sent(client: HttpClient):
    """Who wants to wait for none is told so."""
    assert client.send("POST", [], b"{}", patience=None, ready=lambda _: None, limit=100) is None
    assert client.connections == 0


async def test_what_cannot_be_said_is_not_sent(peer: HttpPeer, client: HttpClient):
    """The connection is of no use afterwards."""
    await client.prepare()
    caller = await peer.caller()
    assert client.send("POST", [("X", "a\nb")], b"{}", patience=None, ready=lambda _: None, limit=100) is None
    assert await caller.ended()


@pytest.mark.parametrize("way", [post, told])
@pytest.mark.parametrize("repeatable", [True, False])
async def test_a_reused_connection_that_dies(
    peer: HttpPeer, client: HttpClient, repeatable: bool, way: Callable[..., Awaitable[Exchange]]
):
    """What has no effect is sent again on a new connection; anything else may have been done, and fails."""
    await client.prepare()
    caller = await peer.caller()
    task = post(client)
    await caller.request()
    await caller.answer(200)
    exchange = await task
    await exchange.content(1)
    exchange.close()
    task = asyncio.ensure_future(way(client, repeatable=repeatable))
    await caller.request()
    caller.close()
    if repeatable:
        other = await peer.caller()
        await other.request()
        await other.answer(204)
        assert (await task).answer.status == 204
    else:
        with pytest.raises(HttpError) as found:
            await task
        assert found.value.sent is True


async def test_who_must_not_answer_gets_nothing(peer: HttpPeer, client: HttpClient):
    """The door's refusal is the request's, cause and all."""
    client._door.refusal = ServerError(Cause.SERVER_UNTRUSTED, "a stranger")  # type: ignore[attr-defined]
    with pytest.raises(HttpError) as found:
        await client.request("POST", [], b"{}", repeatable=False)
    assert (found.value.cause, found.value.sent, found.value.message) == (Cause.SERVER_UNTRUSTED, False, "a stranger")
    assert peer.none()


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_within_the_origin(peer: HttpPeer, client: HttpClient, status: int):
    """Followed with the same method and body."""
    task = post(client)
    caller = await peer.caller()
    await caller.request()
    await caller.answer(status, b"", "Location: /mcp/")
    again = await caller.request()
    assert (again.method, again.target, again.body) == ("POST", "/mcp/", b"{}")
    task.cancel()


@pytest.mark.parametrize(
    ("status", "location", "text"),
    [
        (307, "http://127.0.0.1:1/mcp", "another origin"),
        (308, "https://evil.example/mcp", "another origin"),
        (307, "//evil.example/mcp", "another origin"),
        (302, "/mcp/", "not followed"),
        (303, "/mcp/", "not followed"),
        (307, None, "not followed"),
    ],
)
async def test_redirects_that_are_not_followed(
    peer: HttpPeer, client: HttpClient, status: int, location: str | None, text: str
):
    """Another origin, another method, or nowhere: refused, and nothing goes there."""
    task = post(client)
    caller = await peer.caller()
    await caller.request()
    await caller.answer(status, b"", *([f"Location: {location}"] if location else []))
    with pytest.raises(HttpError) as found:
        await task
    assert text in found.value.message
    assert found.value.sent is False
    assert peer.none()


@pytest.mark.parametrize("way", [post, told])
async def test_a_silent_server_is_asked_once(
    peer: HttpPeer, client: HttpClient, way: Callable[..., Awaitable[Exchange]]
):
    """Also on a connection that was used before, and although the request could be repeated."""
    task = post(client)
    caller = await peer.caller()
    await caller.request()
    await caller.answer(200)
    exchange = await task
    await exchange.content(1)
    exchange.close()
    asking = asyncio.ensure_future(way(client, repeatable=True, patience=0.05))
    await caller.request()
    with pytest.raises(SilentError) as found:
        await asking
    assert found.value.sent is True
    assert await caller.ended()
    assert peer.none()


async def test_a_server_that_does_not_read(peer: HttpPeer, client: HttpClient):
    """Its not taking the request is silence, too."""
    asking = asyncio.ensure_future(client.request("POST", [], bytes(1 << 24), repeatable=False, patience=0.05))
    await peer.caller()
    with pytest.raises(SilentError):
        await asking


async def test_patience_with_a_stream(peer: HttpPeer, client: HttpClient):
    """Each piece has its own; one that came in time is given out."""
    task = post(client)
    caller = await peer.caller()
    await caller.request()
    await caller.stream()
    await caller.event("x")
    exchange = await task
    assert await exchange.chunk(5.0)
    with pytest.raises(SilentError):
        await exchange.chunk(0.05)
    exchange.close()
    assert client.connections == 0


async def test_redirects_in_a_circle(peer: HttpPeer, client: HttpClient):
    """A few are followed, then it fails."""

    async def turn() -> None:
        while True:
            caller = await peer.caller()
            await caller.request()
            await caller.answer(307, b"", "Location: /mcp", "Connection: close")
            caller.close()

    turning = asyncio.ensure_future(turn())
    with pytest.raises(HttpError, match="more than 3 times"):
        await client.request("POST", [], b"{}", repeatable=False)
    turning.cancel()


async def test_an_answer_above_the_limit(peer: HttpPeer, client: HttpClient):
    """It is cut off, and its connection is not used again."""
    task = post(client)
    caller = await peer.caller()
    await caller.request()
    await caller.answer(200, b"x" * 100)
    with pytest.raises(HttpError, match="above 10 bytes"):
        await (await task).content(10)
    assert client.connections == 0


async def test_closing_ends_everything(peer: HttpPeer, client: HttpClient):
    """Idle and busy connections end, and a connection that comes late is not kept."""
    await client.prepare()
    idle = await peer.caller()
    task = post(client)
    await idle.request()
    client.close()
    with pytest.raises(HttpError):
        await task
    assert await idle.ended()
    with pytest.raises(HttpError):
        await client.prepare()
    assert client.connections == 0


async def test_idle_connections_are_closed(peer: HttpPeer, client: HttpClient, monkeypatch: pytest.MonkeyPatch):
    """Connections are kept for their moment, and then closed though nobody asks for one."""
    for wait, kept in ((1000.0, 1), (0.01, 0)):
        monkeypatch.setattr(http_client, "IDLE_S", wait)
        task = post(client)
        caller = await peer.caller()
        await caller.request()
        await caller.answer(200, b"ok")
        exchange = await task
        assert await exchange.content(10) == b"ok"
        exchange.close()
        if kept:
            client._swept()
            assert client.connections == kept
            client.close()
            client = HttpClient(asyncio.get_running_loop(), PlainDoor(peer.port))
        assert await caller.ended()
        assert client.connections == 0
