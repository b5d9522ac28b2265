"""One HTTP/1.1 connection to a back end: ``wire.http_upstream`` for HTTP, a transport of the loop for bytes.

Rules: one request at a time; the answer is pulled, so what nobody reads stays in the kernel and the server waits. An
answer's head is at most 64 KiB, its content must not be encoded, and bytes that come without a request end the
connection: they would be taken for the next answer. ``HttpError`` says whether a byte of the request may have left.
Who waits for an answer is a coroutine, or for the plain ones that most are a callback, which costs a fraction.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final, cast

from attestd.errors import AttestdError, Cause
from attestd.wire.http_response import JSON
from attestd.wire.http_upstream import AnswerError, AnswerHead, AnswerReader, RequestWriter

BUFFER_BYTES: Final = 256 * 1024
"""Received bytes that wait for their reader before the connection stops reading."""
WRITE_BYTES: Final = 256 * 1024
QUICK_ACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
"""Linux only."""
OK: Final = 200
_INTERNET: Final = frozenset({socket.AF_INET, socket.AF_INET6})
_CLOSED: Final = "the server closed the connection"

Headers = list[tuple[str, str]]
Ready = Callable[[bytes | None], None]
"""Told the content of a plain answer; None: ``HttpConnection.head`` says what came instead."""


class HttpError(AttestdError):
    """An exchange that did not come to an answer."""

    code = "http"

    def __init__(self, message: str, *, sent: bool, cause: Cause = Cause.SERVER_UNAVAILABLE) -> None:
        super().__init__(message)
        self.sent = sent
        """Whether the server may have seen the request."""
        self.cause = cause


class SilentError(HttpError):
    """The server said nothing for too long."""


class HttpConnection(asyncio.Protocol):
    """Made by ``loop.create_connection``; belongs to one exchange at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket | None = None) -> None:
        """``sock``: what the transport is made of; None: its acknowledgements are left to the kernel."""
        self._loop = loop
        self._sock = sock if sock is not None and sock.family in _INTERNET and QUICK_ACK is not None else None
        self._reader = AnswerReader()
        self._writer = RequestWriter()
        self._keeps = True
        self._transport: asyncio.Transport | None = None
        self._wake: asyncio.Future[None] | None = None
        self._ready: Ready | None = None
        self._plain_bytes = 0
        self._head: AnswerHead | None = None
        self._failure: HttpError | None = None
        """What ``_ready`` could not be told."""
        self._drained: asyncio.Future[None] | None = None
        self._paused = False
        self._busy = False
        self._lost = False
        self._silent = False
        self._until = 0.0
        """When the present wait is too long, by the loop's clock; 0: nobody waits, or has all the time."""
        self._timer: asyncio.TimerHandle | None = None
        self.patience: float | None = None
        """Seconds that the server may take for its next bytes, or to take more of ours; None: any time."""
        self.sent = False
        """Whether a byte of the present request was handed to the kernel."""
        self.heard = False
        """Whether a byte of its answer came."""
        self.used = 0
        """Requests so far."""
        self.idle_since = 0.0

    # -- the exchange -----------------------------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether a request can be sent."""
        return not self._lost and not self._busy

    def send(self, method: str, target: str, headers: Headers, body: bytes) -> None:
        """Send one request; then ``head``, or first ``tell``. Raises HttpError."""
        self._busy = True
        self.sent = self.heard = False
        self._head = self._failure = None
        self.used += 1
        try:
            data = self._writer.request(method, target, headers, body)
        except AnswerError as error:
            raise HttpError(f"cannot say it in HTTP: {error}", sent=False, cause=Cause.INTERNAL) from error
        if self._transport is None or self._transport.is_closing():
            raise HttpError(_CLOSED, sent=False)
        self._reader.begin()
        self.sent = True
        self._transport.write(data)

    def tell(self, ready: Ready, limit: int) -> None:
        """Call ``ready`` once, when the answer to what was sent is here, if it is a plain one.

        That is status 200 and JSON of a stated length, at most ``limit`` bytes. What else comes, or that nothing will,
        is told as None as soon as it is known, and is ``head``'s to say. Nobody is told after ``close``.
        """
        self._ready, self._plain_bytes = ready, limit
        self._begin_patience()

    async def head(self) -> AnswerHead:
        """The head of the answer to what was sent. Raises HttpError."""
        if self._failure is not None:
            raise self._failure
        if self._drained is not None:
            await self._drain()
        while True:
            head = self._begun()
            if head is not None:
                return head
            await self._more()

    async def chunk(self) -> bytes:
        """Some of the content, as it came; empty at its end. Raises HttpError."""
        while True:
            data = self._some()
            if data is None:
                await self._more()
                continue
            if not data:
                self._finish()
            return data

    async def content(self, limit: int) -> bytes | None:
        """The rest of the content; None as soon as there is more than ``limit`` bytes of it. Raises HttpError."""
        parts: list[bytes] = []
        size = 0
        while True:
            data = self._some()
            if data is None:
                await self._more()
            elif data:
                parts.append(data)
                size += len(data)
                if size > limit:
                    return None
            else:
                self._finish()
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """End it now. Idempotent."""
        self._lost = True
        self._ready = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        self._woken()

    def _begun(self) -> AnswerHead | None:
        """The head, once it is here."""
        if self._head is None:
            try:
                self._head = head = self._reader.head()
            except AnswerError as error:
                raise self._broken(str(error)) from error
            if head is not None:
                self._keeps = head.keeps
        return self._head

    def _announce(self, ready: Ready) -> None:
        """Tell who waits without a coroutine, if it is known by now what comes."""
        content = None
        try:
            if self._silent:
                raise self._too_silent()
            head = self._begun()
            if head is None:
                if not self._lost:
                    return
            elif head.status == OK and head.media == JSON and self._reader.bounded(self._plain_bytes):
                content = self._reader.whole()
                if content is not None:
                    self._finish()
                elif not self._lost:
                    self._acknowledge()
                    return
        except HttpError as failure:
            self._failure = failure
        self._ready = None
        self._until = 0.0
        ready(content)

    def _some(self) -> bytes | None:
        try:
            return self._reader.content()
        except AnswerError as error:
            raise self._broken(str(error)) from error

    def _finish(self) -> None:
        """The answer is complete: the connection may carry another one, or is closed."""
        if not self._busy:
            return
        if self._keeps and not self._lost and not self._reader.buffered:
            self._busy = False
            self.idle_since = self._loop.time()
            self._resume_reading()  # what comes without a request must be noticed
            return
        self.close()

    def _more(self) -> Awaitable[None]:
        """Wait for bytes. Raises HttpError if none will come."""
        if self._lost:
            inside = " in the middle of its answer" if self.heard else ""
            raise HttpError(_CLOSED + inside, sent=self.sent)
        if self.heard:
            self._acknowledge()
        self._resume_reading()
        self._wake = self._loop.create_future()
        return self._within_patience(self._wake)

    def _broken(self, text: str) -> HttpError:
        self.close()
        return HttpError(f"the server's HTTP is malformed: {text}", sent=True, cause=Cause.SERVER_MALFORMED)

    async def _drain(self) -> None:
        while self._drained is not None:
            await self._within_patience(asyncio.shield(self._drained))

    async def _within_patience(self, moment: asyncio.Future[None]) -> None:
        """Wait for it. Raises SilentError.

        One timer looks after many waits, because most are short: ``asyncio.timeout`` costs several times as much as
        the wait itself, and a timer for each still more than need be.
        """
        if self.patience is None:
            await moment
            return
        self._begin_patience()
        try:
            await moment
        finally:
            self._until = 0.0
        if self._silent:
            raise self._too_silent()

    def _begin_patience(self) -> None:
        if self.patience is not None:
            self._until = self._loop.time() + self.patience
            if self._timer is None or self._timer.when() > self._until:
                self._look_at(self._until)

    def _too_silent(self) -> SilentError:
        return SilentError(f"the server was silent for {self.patience or 0:.0f} s", sent=self.sent)

    def _look_at(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        """The time is up, if it is still waited for and nothing has moved it since."""
        self._timer = None
        if not self._until:
            return
        if self._loop.time() < self._until:
            self._look_at(self._until)
            return
        self._silent = True
        self._woken()
        self._writable()

    # -- asyncio.Protocol -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is connected."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass of it
        self._transport.set_write_buffer_limits(high=WRITE_BYTES)

    def data_received(self, data: bytes) -> None:
        """Bytes of the server."""
        if not self._busy:
            self.close()
            return
        self.heard = True
        if self._reader.feed(data) > BUFFER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._woken()

    def eof_received(self) -> bool:
        """The server says no more."""
        self._ended()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._ended(clean=exc is None)
        self._writable()

    def pause_writing(self) -> None:
        """The kernel takes no more for now."""
        if self._drained is None:
            self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """It does again."""
        self._writable()

    def _acknowledge(self) -> None:
        """Acknowledge at once: a server that writes head and content apart, with Nagle's algorithm on, waits for it.

        Otherwise the kernel holds its acknowledgement back, for 40 ms. It has to be asked again each
        time that more of an answer is waited for.
        """
        if self._sock is not None and QUICK_ACK is not None and not self._lost:
            try:  # noqa: SIM105 - it is done for every answer, and a context manager costs more than the call
                self._sock.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)
            except OSError:
                pass

    def _ended(self, *, clean: bool = True) -> None:
        if not self._lost:
            self._lost = True
            if clean:
                self._reader.end()
        self._woken()

    def _writable(self) -> None:
        if self._drained is not None:
            drained, self._drained = self._drained, None
            if not drained.done():
                drained.set_result(None)

    def _resume_reading(self) -> None:
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def _woken(self) -> None:
        if self._ready is not None:
            self._announce(self._ready)
        elif self._wake is not None:
            wake, self._wake = self._wake, None
            if not wake.done():
                wake.set_result(None)
