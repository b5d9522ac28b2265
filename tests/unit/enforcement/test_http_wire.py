"""One HTTP connection: strict about what comes back, exact about what may have left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from attestd.enforcement.http_wire import BUFFER_BYTES, HttpConnection, HttpError, SilentError
from attestd.errors import Cause
from tests.fakes.http_peer import Caller, HttpPeer
from tests.support.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
MALFORMED = [
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
]


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
    connection.send("POST", "/mcp", [("Host", "h"), ("Content-Type", "application/json")], body)
    answer = await connection.head()
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


@pytest.mark.parametrize("raw", MALFORMED)
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
        connection.send("GET", "/", [("Host", "h"), ("X", "a\r\nY: b")], b"")
    assert (found.value.cause, found.value.sent) == (Cause.INTERNAL, False)
    connection.close()
    assert await caller.ended()


async def test_what_nobody_reads_stays_with_the_server(peer: HttpPeer, connection: HttpConnection):
    """A large answer waits in the kernel and at the server, not in memory; then it arrives whole."""
    connection.send("GET", "/", [("Host", "h")], b"")
    task = asyncio.ensure_future(connection.head())
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


# -- told, without a coroutine that waits -----------------------------------------------------------------------------

JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\n"


class Told:
    """A POST, and what is told of its answer: each time, though once is all there should be."""

    def __init__(self, connection: HttpConnection) -> None:
        self.said: list[bytes | None] = []
        connection.send("POST", "/mcp", [("Host", "h")], b"{}")
        connection.tell(self.said.append, 100)


async def rest(connection: HttpConnection) -> tuple[int, bytes | None]:
    """What was not told."""
    return (await connection.head()).status, await connection.content(1000)


@pytest.mark.parametrize("pieces", [[JSON_HEAD + b"\r\nhi"], [JSON_HEAD, b"\r\n", b"h", b"i"]])
@pytest.mark.parametrize("closes", [False, True])
async def test_a_plain_answer_is_told_whole(
    peer: HttpPeer, connection: HttpConnection, pieces: list[bytes], closes: bool
):
    """Once, whatever the pieces are; then the connection may carry another request, unless it says otherwise."""
    caller = await peer.caller()
    for _ in range(1 if closes else 2):
        told = Told(connection)
        await caller.request()
        for number, piece in enumerate(pieces):
            assert not told.said
            await caller.raw(
                piece.replace(b"Length: 2\r\n", b"Length: 2\r\nConnection: close\r\n") if closes else piece
            )
            if number + 1 < len(pieces):
                await asyncio.sleep(0.01)
        await until(lambda told=told: bool(told.said))  # type: ignore[misc]
        assert told.said == [b"hi"]
        assert connection.open is not closes
    connection.close()
    assert len(told.said) == 1


@pytest.mark.parametrize(
    ("raw", "status", "content"),
    [
        (JSON_HEAD.replace(b"200", b"404") + b"\r\nhi", 404, b"hi"),
        (JSON_HEAD.replace(b"200", b"202") + b"\r\nhi", 202, b"hi"),
        (JSON_HEAD.replace(b"json", b"xml") + b"\r\nhi", 200, b"hi"),
        (JSON_HEAD.replace(b"Length: 2", b"Length: 101") + b"\r\n" + b"x" * 101, 200, b"x" * 101),
        (
            JSON_HEAD.replace(b"Content-Length: 2", b"Transfer-Encoding: chunked") + b"\r\n2\r\nhi\r\n0\r\n\r\n",
            200,
            b"hi",
        ),
        (OK, 200, b"hi"),
    ],
)
async def test_any_other_answer_is_left_to_who_waits(
    peer: HttpPeer, connection: HttpConnection, raw: bytes, status: int, content: bytes
):
    """Nothing of it is lost."""
    caller = await peer.caller()
    told = Told(connection)
    await caller.request()
    await caller.raw(raw)
    await until(lambda: bool(told.said))
    assert told.said == [None]
    assert await rest(connection) == (status, content)
    assert connection.open


@pytest.mark.parametrize("raw", MALFORMED)
async def test_a_malformed_answer_is_not_told(peer: HttpPeer, connection: HttpConnection, raw: bytes):
    """Who waits for it then hears what is wrong with it."""
    caller = await peer.caller()
    told = Told(connection)
    await caller.request()
    await caller.raw(raw)
    await until(lambda: bool(told.said))
    with pytest.raises(HttpError) as found:
        await rest(connection)
    assert told.said == [None]
    assert (found.value.cause, found.value.sent) == (Cause.SERVER_MALFORMED, True)
    assert not connection.open


async def test_an_answer_after_a_long_one_is_told(peer: HttpPeer, connection: HttpConnection):
    """Though reading had stopped for the long one, all of which had come."""
    caller = await peer.caller()
    told = Told(connection)
    await caller.request()
    size = BUFFER_BYTES + 10
    await caller.raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % size + b"x" * BUFFER_BYTES)
    await until(lambda: connection._reader.buffered == BUFFER_BYTES)
    await caller.raw(b"x" * 10)
    await until(lambda: connection._paused)
    assert (await connection.head()).status == 404
    assert len(await connection.content(1 << 20) or b"") == size
    told = Told(connection)
    await caller.request()
    await caller.raw(JSON_HEAD + b"\r\nhi")
    await until(lambda: told.said == [b"hi"])


async def test_bytes_without_a_request_after_a_long_answer(peer: HttpPeer, connection: HttpConnection):
    """They end the connection, though reading had stopped."""
    caller = await peer.caller()
    size = BUFFER_BYTES + 10
    connection.send("GET", "/", [("Host", "h")], b"")
    task = asyncio.ensure_future(connection.head())
    await caller.request()
    await caller.raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * BUFFER_BYTES)
    await task
    await until(lambda: connection._reader.buffered == BUFFER_BYTES)
    await caller.raw(b"x" * 10)
    await until(lambda: connection._paused)
    await caller.raw(JSON_HEAD + b"\r\nno")
    assert len(await connection.content(1 << 20) or b"") == size
    await until(lambda: not connection.open)


@pytest.mark.parametrize("raw", [b"", JSON_HEAD, JSON_HEAD + b"\r\nh"])
async def test_an_end_is_told(peer: HttpPeer, connection: HttpConnection, raw: bytes):
    """Half an answer is none."""
    caller = await peer.caller()
    told = Told(connection)
    await caller.request()
    await caller.raw(raw)
    caller.close()
    await until(lambda: bool(told.said))
    with pytest.raises(HttpError, match="closed the connection"):
        await rest(connection)
    assert told.said == [None]


async def test_silence_is_told(peer: HttpPeer, connection: HttpConnection):
    """As to who waits; and an answer in time ends the patience with it."""
    caller = await peer.caller()
    connection.patience = 0.2
    for _ in range(2):
        told = Told(connection)
        await caller.request()
        await caller.raw(JSON_HEAD + b"\r\nhi")
        await until(lambda told=told: bool(told.said))  # type: ignore[misc]
        assert told.said == [b"hi"]
        await asyncio.sleep(0.4)
    told = Told(connection)
    await until(lambda: bool(told.said))
    with pytest.raises(SilentError):
        await connection.head()
    assert told.said == [None]


async def test_nobody_is_told_after_the_end(peer: HttpPeer, connection: HttpConnection):
    """Who closes the connection wants to hear nothing more of it."""
    caller = await peer.caller()
    told = Told(connection)
    await caller.request()
    connection.close()
    assert await caller.ended()
    assert told.said == []
