"""Requests of one link to its back end: connections that are reused, TLS, redirects, and which request may be repeated.

Rules: every new connection comes from ``Door.connect``, which has proven who is at its other end before a byte is
written. An idle connection is reused only for a moment, because servers close theirs without a word; where it fails
before an answer, the request is repeated only if it has no effect. Redirects are followed within the origin, and only
those that keep the method. No proxy is used, whatever the environment says.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from attestd.enforcement.http_wire import Headers, HttpConnection, HttpError, Ready, SilentError
from attestd.enforcement.link import ServerError
from attestd.errors import Cause
from attestd.wire.http_upstream import AnswerHead
from attestd.wire.urls import Url, UrlError, within_origin

IDLE_S: Final = 2.0
"""How long an idle connection is reused: servers commonly close theirs after five seconds."""
IDLE_MAX: Final = 4
ENDING_S: Final = 0.01
"""How long a request waits for a connection whose stream is about to end."""
TLS_S: Final = 10.0
REDIRECTS: Final = 3
REDIRECT_BYTES: Final = 64 * 1024
_KEEPS_METHOD: Final = frozenset({307, 308})
_REDIRECT: Final = frozenset({300, 301, 302, 303, 305, 307, 308})


class Door(Protocol):
    """How to reach one back end. It has the secrets; nothing of them is logged."""

    url: Url
    tls: ssl.SSLContext | None
    own_headers: Headers
    """Sent with every request: the operator's token, never anything of a client."""

    async def connect(self) -> socket.socket:
        """A connected socket whose other end is who it must be, not a byte written. Raises ServerError."""


class Exchange:
    """One answer, and the connection that its content comes from."""

    def __init__(self, answer: AnswerHead, connection: HttpConnection, client: HttpClient) -> None:
        self.answer = answer
        self._connection = connection
        self._client = client

    async def chunk(self, patience: float | None = None) -> bytes:
        """Some of the content; empty at its end. Raises HttpError, SilentError after ``patience`` seconds."""
        self._connection.patience = patience
        return await self._connection.chunk()

    async def content(self, limit: int) -> bytes:
        """The rest of the content. Raises HttpError, also if it is above ``limit`` bytes."""
        content = await self._connection.content(limit)
        if content is None:
            self.close()
            text = f"the server's answer is above {limit} bytes"
            raise HttpError(text, sent=True, cause=Cause.SERVER_MALFORMED)
        return content

    def close(self) -> None:
        """Done with it: the connection is kept if its answer was complete. Idempotent."""
        self._client.release(self._connection)

    def ending(self) -> None:
        """What was waited for has come: the rest of the content is only its end."""
        self._client.ending(self._connection)


class HttpClient:
    """The connections of one link."""

    def __init__(self, loop: asyncio.AbstractEventLoop, door: Door) -> None:
        self._loop = loop
        self._door = door
        self._idle: list[HttpConnection] = []
        self._all: set[HttpConnection] = set()
        self._ending: set[HttpConnection] = set()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False
        self.url = door.url

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._all)

    async def prepare(self) -> None:
        """Connect now, so that who answers is known before the first request. Raises HttpError."""
        self.release(await self._connected())

    def send(
        self, method: str, headers: Headers, body: bytes, *, patience: float | None, ready: Ready, limit: int
    ) -> HttpConnection | None:
        """Send a request without waiting; None, and nothing was sent, where no connection rests.

        ``ready``, ``limit``: see ``HttpConnection.tell``. A plain answer is followed by ``release``, any other by
        ``request`` with what was returned here as ``begun``.
        """
        connection = self._reused()
        if connection is None:
            return None
        connection.patience = patience
        try:
            connection.send(method, self.url.target, self._fields(self.url, headers), body)
        except HttpError:
            self.drop(connection)
            return None
        connection.tell(ready, limit)
        return connection

    async def request(
        self,
        method: str,
        headers: Headers,
        body: bytes,
        *,
        repeatable: bool,
        url: Url | None = None,
        patience: float | None = None,
        begun: HttpConnection | None = None,
    ) -> Exchange:
        """One request and the head of its answer. Raises HttpError, SilentError after ``patience`` seconds.

        ``repeatable``: it has no effect, so it may be sent again where nobody knows whether it arrived.
        ``begun``: where ``send`` has sent it.
        """
        at = self.url if url is None else url
        redirects = 0
        while True:
            connection = begun or self._reused() or await self._ended() or await self._connected()
            fresh = connection.used == 0
            connection.patience = patience
            try:
                if begun is None:
                    connection.send(method, at.target, self._fields(at, headers), body)
                begun = None
                answer = await connection.head()
            except HttpError as failure:
                self.drop(connection)
                silent = isinstance(failure, SilentError)
                if silent or fresh or connection.heard or not (repeatable or not failure.sent):
                    raise
                continue
            except BaseException:
                self.drop(connection)
                raise
            exchange = Exchange(answer, connection, self)
            if answer.status not in _REDIRECT:
                return exchange
            at = await self._redirected(at, exchange, method)
            redirects += 1
            if redirects > REDIRECTS:
                raise HttpError(f"the server redirects more than {REDIRECTS} times", sent=False)

    def adopt(self, other: HttpClient) -> None:
        """Take over the idle connections of another client of the same door."""
        while other._idle:
            connection = other._idle.pop()
            other._all.discard(connection)
            self._all.add(connection)
            self.release(connection)

    def close(self) -> None:
        """End every connection."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        self._idle.clear()
        for connection in tuple(self._all):
            connection.close()
        self._all.clear()

    @staticmethod
    async def _redirected(at: Url, exchange: Exchange, method: str) -> Url:
        answer = exchange.answer
        try:
            await exchange.content(REDIRECT_BYTES)
        finally:
            exchange.close()
        location = answer.header("location")
        if location is None or (answer.status not in _KEEPS_METHOD and method == "POST"):
            raise HttpError(f"the server redirects with status {answer.status}, which is not followed", sent=False)
        try:
            return within_origin(at, location)
        except UrlError as error:
            raise HttpError(f"the server redirects: {error.message}", sent=False) from error

    def _fields(self, at: Url, headers: Headers) -> Headers:
        return [("Host", at.authority), ("Accept-Encoding", "identity"), *self._door.own_headers, *headers]

    # -- connections ------------------------------------------------------------------------------------------------

    def _reused(self) -> HttpConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.open and self._loop.time() - connection.idle_since < IDLE_S:
                return connection
            self.drop(connection)
        return None

    async def _ended(self) -> HttpConnection | None:
        """A connection whose answer is all but over, if it ends at once: that is cheaper than a new one."""
        if len(self._waiters) >= len(self._ending):
            return None
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await asyncio.wait((waiter,), timeout=ENDING_S)
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        return self._reused()

    async def _connected(self) -> HttpConnection:
        try:
            sock = await self._door.connect()
        except ServerError as error:
            raise HttpError(error.message, sent=False, cause=error.cause) from error
        try:
            connection = await self._wrapped(sock)
        except BaseException:
            sock.close()
            raise
        if self._closed:
            connection.close()
            raise HttpError("the connection was closed", sent=False)
        self._all.add(connection)
        return connection

    async def _wrapped(self, sock: socket.socket) -> HttpConnection:
        tls, host = self._door.tls, self.url.host
        factory: Callable[[], HttpConnection] = lambda: HttpConnection(self._loop, sock)  # noqa: E731 - it needs a type
        try:
            if tls is None:
                _, connection = await self._loop.create_connection(factory, sock=sock)
            else:
                _, connection = await self._loop.create_connection(
                    factory, sock=sock, ssl=tls, server_hostname=host, ssl_handshake_timeout=TLS_S
                )
        except ssl.SSLCertVerificationError as error:
            text = f"cannot trust {self.url.authority}: {error.verify_message}"
            raise HttpError(text, sent=False, cause=Cause.SERVER_UNTRUSTED) from error
        except ssl.SSLError as error:
            text = f"cannot speak TLS with {self.url.authority}: {error.reason or 'the handshake failed'}"
            raise HttpError(text, sent=False, cause=Cause.SERVER_UNTRUSTED) from error
        except (OSError, TimeoutError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or "the handshake did not end"
            raise HttpError(f"cannot connect to {self.url.authority}: {reason}", sent=False) from error
        return connection

    def ending(self, connection: HttpConnection) -> None:
        """Its answer is all but over."""
        if connection in self._all:
            self._ending.add(connection)

    def release(self, connection: HttpConnection) -> None:
        """An exchange is over: the connection is kept if its answer was complete. Idempotent."""
        self._ending.discard(connection)
        if connection not in self._all:
            return
        if connection.open and not self._closed and len(self._idle) < IDLE_MAX and connection not in self._idle:
            if connection.used == 0:
                connection.idle_since = self._loop.time()
            self._idle.append(connection)
            if self._waiters:
                self._waiters.popleft().set_result(None)
            if self._sweep is None:
                self._sweep = self._loop.call_later(IDLE_S, self._swept)
        elif connection not in self._idle:
            self.drop(connection)

    def _swept(self) -> None:
        """Connections that nobody would reuse any more are closed: a session that rests keeps none."""
        now, self._sweep = self._loop.time(), None
        for connection in [each for each in self._idle if not each.open or now - each.idle_since >= IDLE_S]:
            self._idle.remove(connection)
            self.drop(connection)
        if self._idle:
            oldest = min(each.idle_since for each in self._idle)
            self._sweep = self._loop.call_later(max(0.0, oldest + IDLE_S - now), self._swept)

    def drop(self, connection: HttpConnection) -> None:
        """End this one."""
        self._all.discard(connection)
        self._ending.discard(connection)
        connection.close()
