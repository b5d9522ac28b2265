"""One HTTP/1.1 connection to a back end: h11 for the protocol, one transport of the loop for the bytes.

Rules: one request at a time; the answer is pulled, so what nobody reads stays in the kernel and the server waits. An
answer's head is at most 64 KiB, its content must not be encoded, and bytes that come without a request end the
connection: they would be taken for the next answer. ``HttpError`` says whether a byte of the request may have left.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable
from typing import Final, cast

import h11

from attestd.errors import AttestdError, Cause

HEAD_BYTES: Final = 64 * 1024
"""Largest head of an answer, and largest line of its chunk framing."""
BUFFER_BYTES: Final = 256 * 1024
"""Received bytes that wait for their reader before the connection stops reading."""
WRITE_BYTES: Final = 256 * 1024
QUICK_ACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
"""Linux only."""
_INTERNET: Final = frozenset({socket.AF_INET, socket.AF_INET6})
_CLOSED: Final = "the server closed the connection"

Headers = list[tuple[str, str]]


class HttpError(AttestdError):
    """An exchange that did not come to an answer."""

    code = "http"

    def __init__(self, message: str, *, sent: bool, cause: Cause = Cause.SERVER_UNAVAILABLE) -> None:
        super().__init__(message)
        self.sent = sent
        """Whether the server may have seen the request."""
        self.cause = cause


class Answer:
    """Status and headers of an answer; the content is read from its connection."""

    def __init__(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.status = status
        self._headers: dict[str, list[str]] = {}
        for name, value in headers:
            self._headers.setdefault(name.decode("ascii").lower(), []).append(value.decode("latin-1"))

    def header(self, name: str) -> str | None:
        """The value of a header that may stand once; None if it is missing or stands twice with different values."""
        values = set(self._headers.get(name, ()))
        return values.pop() if len(values) == 1 else None

    def has(self, name: str) -> bool:
        """Whether the header is there."""
        return name in self._headers

    @property
    def media(self) -> str:
        """The media type without its parameters, in lower case."""
        return (self.header("content-type") or "").partition(";")[0].strip().lower()


class HttpConnection(asyncio.Protocol):
    """Made by ``loop.create_connection``; belongs to one exchange at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket | None = None) -> None:
        """``sock``: what the transport is made of; None: its acknowledgements are left to the kernel."""
        self._loop = loop
        self._sock = sock if sock is not None and sock.family in _INTERNET and QUICK_ACK is not None else None
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        self._transport: asyncio.Transport | None = None
        self._wake: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._paused = False
        self._waiting_bytes = 0
        self._busy = False
        self._lost = False
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
        return not self._lost and not self._busy and self._http.our_state is h11.IDLE

    async def request(self, method: str, target: str, headers: Headers, body: bytes) -> Answer:
        """Send one request and wait for the head of its answer. Raises HttpError."""
        self._busy = True
        self.sent = self.heard = False
        self.used += 1
        fields = [*headers, ("Content-Length", str(len(body)))] if body else headers
        try:
            head = self._http.send(h11.Request(method=method, target=target, headers=fields))
            content = self._http.send(h11.Data(data=body)) if body else b""
            end = self._http.send(h11.EndOfMessage())
        except h11.LocalProtocolError as error:
            raise HttpError(f"cannot say it in HTTP: {error}", sent=False, cause=Cause.INTERNAL) from error
        if self._transport is None or self._transport.is_closing():
            raise HttpError(_CLOSED, sent=False)
        self.sent = True
        self._transport.write(b"".join((head or b"", content or b"", end or b"")))
        await self._drain()
        self._acknowledge()
        while True:
            event = await self._event()
            match event:
                case h11.Response(status_code=status, headers=found):
                    return self._checked(Answer(status, found))
                case h11.InformationalResponse(status_code=101):
                    raise self._broken("it switched to another protocol")
                case h11.InformationalResponse():
                    continue
                case _:
                    raise HttpError(_CLOSED, sent=True)

    async def chunk(self) -> bytes:
        """Some of the content, as it came; empty at its end. Raises HttpError."""
        while True:
            event = await self._event()
            match event:
                case h11.Data(data=data):
                    if data:
                        return bytes(data)
                case h11.EndOfMessage():
                    self._finish()
                    return b""
                case _:
                    raise HttpError(_CLOSED, sent=True)

    def close(self) -> None:
        """End it now. Idempotent."""
        self._lost = True
        if self._transport is not None:
            self._transport.abort()
        self._woken()

    def _checked(self, answer: Answer) -> Answer:
        if answer.has("transfer-encoding") and answer.has("content-length"):
            raise self._broken("it has a length beside chunks")
        encoding = answer.header("content-encoding")
        if encoding is not None and encoding.strip().lower() != "identity":
            raise self._broken(f"its content is encoded ({encoding[:32]!a}), which was not asked for")
        return answer

    def _finish(self) -> None:
        """The answer is complete: the connection may carry another one, or is closed."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE and not self._lost:
            self._http.start_next_cycle()
            self._busy = False
            self.idle_since = self._loop.time()
            if not self._http.trailing_data[0]:
                return
        self.close()

    async def _event(self) -> object:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                if self._lost:
                    inside = " in the middle of its answer" if self.heard else ""
                    raise HttpError(_CLOSED + inside, sent=self.sent) from error
                raise self._broken(str(error)) from error
            if event is not h11.NEED_DATA:
                return event
            self._waiting_bytes = 0
            if self._lost:
                raise HttpError(_CLOSED, sent=self.sent)
            self._resume_reading()
            self._wake = self._loop.create_future()
            await self._wake

    def _broken(self, text: str) -> HttpError:
        self.close()
        return HttpError(f"the server's HTTP is malformed: {text}", sent=True, cause=Cause.SERVER_MALFORMED)

    async def _drain(self) -> None:
        while self._drained is not None:
            await asyncio.shield(self._drained)

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
        self._acknowledge()
        try:
            self._http.receive_data(data)
        except h11.RemoteProtocolError:
            self.close()
            return
        self._waiting_bytes += len(data)
        if self._waiting_bytes > BUFFER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._woken()

    def eof_received(self) -> bool:
        """The server says no more."""
        self._ended()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        del exc
        self._ended()
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

        Otherwise the kernel holds its acknowledgement back, for 40 ms. It has to be asked again and again.
        """
        if self._sock is not None and QUICK_ACK is not None and not self._lost:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.IPPROTO_TCP, QUICK_ACK, 1)

    def _ended(self) -> None:
        if not self._lost:
            self._lost = True
            with contextlib.suppress(h11.RemoteProtocolError, RuntimeError):  # whoever reads is told that it is lost
                self._http.receive_data(b"")
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
        if self._wake is not None:
            wake, self._wake = self._wake, None
            if not wake.done():
                wake.set_result(None)
