"""One HTTP connection: strict about what comes back, exact about what may have left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from attestd.enforcement.http_wire import BUFFER_BYTES, HttpConnection, HttpError, SilentError
from attestd.errors import Cause
from tests.fakes.http_peer import Caller, HttpPeer
from tests.support.waiting import until


@pytest.fixture(name="peer")
async def _peer() -> AsyncIterator[HttpPeer]:
    peer = HttpPeer()
    await peer.start()
    yield peer
    peer.stop()


@pytest.fixture(name="connection")
async def _connection(peer: HttpPeer) -> AsyncIterator[HttpConnection]:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: HttpConnection(loop), "127.0.0.1", peer.port)
    yield connection
    connection.close()


async def ask(connection: HttpConnection, body: bytes = b"{}") -> tuple[int, bytes]:
    """A POST and its whole answer."""
    answer = await connection.request("POST", "/mcp", [("Host", "h"), ("Content-Type", "application/json")], body)
    content = b""
    while data := await connection.chunk():
        content += data
    return answer.status, content


async def failed(connection: HttpConnection, caller: Caller, raw: bytes, *, close: bool = False) -> HttpError:
    """How a request fails when this comes back."""
    task = asyncio.ensure_future(ask(connection))
    await caller.request()
    await caller.raw(raw)
    if close:
        caller.close()
    with pytest.raises(HttpError) as found:
        await asyncio.wait_for(task, 10)
    return found.value


async def test_one_connection_carries_many_requests(peer: HttpPeer, connection: HttpConnection):
    """Length and chunks; the connection is open again after each whole answer."""
    caller = await peer.caller()
    for number, raw in enumerate(
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
        ]
    ):
        task = asyncio.ensure_future(ask(connection, b"x" * number))
        request = await caller.request()
        assert (request.method, request.target, request.body) == ("POST", "/mcp", b"x" * number)
        await caller.raw(raw)
        assert await task == (200, b"hi")
        assert connection.open
        assert connection.used == number + 1


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA b: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA\x00: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"c" * 70_000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi",
        b"SSH-2.0-server\r\n\r\n",
    ],
)
async def test_malformed_answers(peer: HttpPeer, connection: HttpConnection, raw: bytes):
    """Each ends the connection as malformed; nothing is guessed."""
    connecting = peer.caller()
    error = await failed(connection, await connecting, raw)
    assert (error.cause, error.sent) == (Cause.SERVER_MALFORMED, True)
    assert not connection.open


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "closed the connection"),
        (b"HTTP/1.1 200", "in the middle of its answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi", "in the middle of its answer"),
    ],
)
async def test_an_end_before_the_answer(peer: HttpPeer, connection: HttpConnection, raw: bytes, text: str):
    """The server may have done it."""
    error = await failed(connection, await peer.caller(), raw, close=True)
    assert text in error.message
    assert (error.cause, error.sent) == (Cause.SERVER_UNAVAILABLE, True)


async def test_bytes_without_a_request(peer: HttpPeer, connection: HttpConnection):
    """An answer before its request would be taken for the next one's: the connection ends."""
    caller = await peer.caller()
    await caller.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
    await until(lambda: not connection.open)
    with pytest.raises(HttpError) as found:
        await ask(connection)
    assert found.value.sent is False


async def test_bytes_after_the_answer(peer: HttpPeer, connection: HttpConnection):
    """A second answer behind the first one ends the connection, too."""
    task = asyncio.ensure_future(ask(connection))
    caller = await peer.caller()
    await caller.request()
    await caller.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
    assert await task == (200, b"hi")
    assert not connection.open


async def test_what_cannot_be_said_in_http(peer: HttpPeer, connection: HttpConnection):
    """A header that would inject a line is our bug, and not a byte of it is sent."""
    caller = await peer.caller()
    with pytest.raises(HttpError) as found:
        await connection.request("GET", "/", [("Host", "h"), ("X", "a\r\nY: b")], b"")
    assert (found.value.cause, found.value.sent) == (Cause.INTERNAL, False)
    connection.close()
    assert await caller.ended()


async def test_what_nobody_reads_stays_with_the_server(peer: HttpPeer, connection: HttpConnection):
    """A large answer waits in the kernel and at the server, not in memory; then it arrives whole."""
    task = asyncio.ensure_future(connection.request("GET", "/", [("Host", "h")], b""))
    caller = await peer.caller()
    await caller.request()
    size = 32 << 20
    await caller.raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    await task
    sending = asyncio.ensure_future(caller.raw(b"x" * size))
    await until(lambda: connection._paused)
    held = connection._reader.buffered
    assert held < 2 * BUFFER_BYTES
    assert not sending.done()
    received = 0
    while data := await connection.chunk():
        received += len(data)
    assert received == size
    await sending


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


async def test_each_wait_has_its_own_patience(peer: HttpPeer, connection: HttpConnection):
    """A short one after a long one is held to its own time; none of them ends a later wait that has all the time."""
    caller = await peer.caller()
    for patience in (30.0, 0.3, None):
        connection.patience = patience
        task = asyncio.ensure_future(ask(connection))
        await caller.request()
        await asyncio.sleep(0.1 if patience else 0.5)
        await caller.raw(OK)
        assert await task == (200, b"hi")
    connection.patience = 0.2
    task = asyncio.ensure_future(ask(connection))
    await caller.request()
    with pytest.raises(SilentError):
        await asyncio.wait_for(task, 10)
