"""An HTTP server that says exactly what the test says: raw bytes on real connections, in the test's own loop."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from typing import Any

from attestd.enforcement.http_wire import Headers
from attestd.enforcement.link import ServerError
from attestd.errors import Cause
from attestd.wire.model import WireError
from attestd.wire.server import ServerMessage
from attestd.wire.urls import Url, parse_url

WAIT_S = 10


class Request:
    """One request, as it came."""

    def __init__(self, head: bytes, body: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, self.version = first.split(" ")
        self.fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        self.headers = dict(self.fields)
        self.body = body

    @property
    def json(self) -> Any:
        """The message."""
        return json.loads(self.body)


class Caller:
    """One connection of the client under test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def request(self) -> Request:
        """The next request, whole."""
        async with asyncio.timeout(WAIT_S):
            head = (await self._reader.readuntil(b"\r\n\r\n"))[:-4]
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                ),
                0,
            )
            return Request(head, await self._reader.readexactly(length))

    async def ended(self) -> bool:
        """Whether the client closes without another byte."""
        async with asyncio.timeout(WAIT_S):
            try:
                return not await self._reader.read(1)
            except ConnectionError:
                return True

    async def raw(self, data: bytes) -> None:
        """These bytes."""
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, status: int, body: bytes = b"", *headers: str) -> None:
        """A whole answer."""
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
        await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def json(self, message: Any, *headers: str, status: int = 200) -> None:
        """A whole answer in JSON."""
        await self.answer(status, json.dumps(message).encode(), "Content-Type: application/json", *headers)

    async def stream(self, *headers: str) -> None:
        """The head of a stream of events."""
        lines = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked", *headers]
        await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n")

    async def event(self, data: Any = None, *, name: str = "", number: str = "") -> None:
        """One event of the stream; text goes as it is, anything else as JSON."""
        text = "".join([f"event: {name}\n" if name else "", f"id: {number}\n" if number else ""])
        text += f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n" if data is not None else "\n"
        await self.raw(b"%x\r\n%s\r\n" % (len(text.encode()), text.encode()))

    async def end(self) -> None:
        """The stream is complete."""
        await self.raw(b"0\r\n\r\n")

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


class HttpPeer:
    """A listener whose connections wait to be taken by the test."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[Caller] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._callers: list[Caller] = []
        self.port = 0

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen, on the same port if it listened before."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def caller(self) -> Caller:
        """The next connection."""
        async with asyncio.timeout(WAIT_S):
            return await self._arrived.get()

    def none(self) -> bool:
        """Whether no further connection has come."""
        return self._arrived.empty()

    def stop(self) -> None:
        """Listen no more, and close what is open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for caller in self._callers:
            caller.close()
        self._callers.clear()
        while not self._arrived.empty():
            self._arrived.get_nowait()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = Caller(reader, writer)
        self._callers.append(caller)
        self._arrived.put_nowait(caller)


class PlainDoor:
    """Implements ``http_client.Door`` without attestation; ``refusal`` is raised instead of connecting."""

    def __init__(self, port: int, *, path: str = "/mcp", tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"):
        self.url: Url = parse_url(f"{'https' if tls else 'http'}://{host}:{port}{path}")
        self.tls = tls
        self.own_headers: Headers = [("X-Own", "operator")]
        self.refusal: ServerError | None = None
        self._port = port

    async def connect(self) -> socket.socket:
        """A connection, or the refusal."""
        if self.refusal is not None:
            raise self.refusal
        sock = socket.socket()
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._port))
        except OSError as error:
            sock.close()
            raise ServerError(Cause.SERVER_UNAVAILABLE, f"cannot connect: {error.strerror}") from error
        except BaseException:
            sock.close()
            raise
        return sock


class Owner:
    """Implements ``link.LinkOwner``: keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[ServerMessage] = []
        self.failures: dict[str | int, WireError] = {}
        self.gone: list[tuple[Cause, str]] = []
        self.relieved = 0
        self.streams: list[str | int] = []
        self._news = asyncio.Event()

    def server_message(self, message: ServerMessage) -> None:
        """Keep it."""
        self.messages.append(message)
        self._news.set()

    def server_malformed(self, request_id: str | int, error: WireError) -> None:
        """Keep it."""
        self.failures[request_id] = error
        self._news.set()

    def server_streams(self, request_id: str | int) -> None:
        """Keep it."""
        self.streams.append(request_id)

    def server_gone(self, cause: Cause, text: str) -> None:
        """Keep it."""
        self.gone.append((cause, text))
        self._news.set()

    def server_relieved(self) -> None:
        """Count it."""
        self.relieved += 1
        self._news.set()

    async def answer(self, number: str | int) -> ServerMessage | WireError:
        """What a request ended with."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for message in self.messages:
                    if message.id == number and message.method is None:
                        return message
                if number in self.failures:
                    return self.failures[number]
                if self.gone:
                    raise AssertionError(f"the link is gone: {self.gone}")
                self._news.clear()
                await self._news.wait()

    async def told(self, method: str) -> ServerMessage:
        """A request or notification of the server."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for message in self.messages:
                    if message.method == method:
                        return message
                self._news.clear()
                await self._news.wait()

    async def ended(self) -> tuple[Cause, str]:
        """Why the link is gone."""
        async with asyncio.timeout(WAIT_S):
            while not self.gone:
                self._news.clear()
                await self._news.wait()
        return self.gone[0]
