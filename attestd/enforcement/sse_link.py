"""A link over HTTP+SSE of 2024-11-05: one stream from the server, which names the place that messages are posted to.

Answers come on the stream, so a request that was accepted waits for it. The transport cannot be resumed: where the
stream is cut, whatever was accepted fails as perhaps done, and the server is initialised again on a new stream.
"""

from __future__ import annotations

import asyncio
from typing import Final

from attestd.enforcement.http_client import Exchange, HttpClient
from attestd.enforcement.http_link import HANDSHAKE_S, SILENCE_S, HttpLink, Item
from attestd.enforcement.http_wire import Headers, HttpError
from attestd.enforcement.streamable_link import ERROR_BYTES, RETRY_MAX_S, RETRY_S
from attestd.errors import Cause
from attestd.wire.http_response import EVENTS
from attestd.wire.model import WireError
from attestd.wire.sse_parse import SseEvent, SseParser
from attestd.wire.urls import Url, UrlError, within_origin

_CUT: Final = "the server ended its stream"


class SseLink(HttpLink):
    """One session's own, or a shared server's one."""

    _endpoint: Url | None = None
    _listening: asyncio.Task[None] | None = None
    _stale = 0
    """How many streams have been; a request that failed on an older one may use the next."""

    async def open(self) -> None:
        """Open the stream and learn where to post. Raises HttpError."""
        async with self._renewing:
            await self._connect()

    async def _connect(self) -> None:
        headers: Headers = [("Accept", EVENTS)]
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                exchange = await self._client.request("GET", headers, b"", repeatable=True)
                try:
                    parser = await self._named(exchange)
                except BaseException:
                    exchange.close()
                    raise
        except TimeoutError as error:
            raise HttpError(f"the server named no endpoint in {HANDSHAKE_S:.0f} s", sent=False) from error
        self._stale += 1
        self._listening = self._spawn(self._listen(exchange, parser))

    async def _named(self, exchange: Exchange) -> SseParser:
        """Read up to the event that names the endpoint."""
        status, media = exchange.answer.status, exchange.answer.media
        if status != 200 or media != EVENTS:
            unavailable = status in {401, 403, 429} or status >= 500
            cause = Cause.SERVER_UNAVAILABLE if unavailable else Cause.SERVER_MALFORMED
            text = f"the server answered with status {status} and {media[:64]!a}, expected {EVENTS}"
            raise HttpError(text, sent=False, cause=cause)
        parser = SseParser(self._limits.message_bytes)
        while data := await exchange.chunk():
            for event in _fed(parser, data):
                if event.event == "endpoint":
                    try:
                        place = event.data.decode("ascii")
                        self._endpoint = within_origin(self._client.url, place)
                    except (UnicodeDecodeError, UrlError) as error:
                        text = f"the server names an endpoint that is not used: {error}"
                        raise HttpError(text, sent=False, cause=Cause.SERVER_UNTRUSTED) from error
                    return parser
        raise HttpError(_CUT + " before it named an endpoint", sent=False)

    async def _listen(self, exchange: Exchange, parser: SseParser) -> None:
        text, cause = _CUT, Cause.SERVER_UNAVAILABLE
        try:
            while data := await exchange.chunk():
                for event in _fed(parser, data):
                    if event.data and event.event == "message":
                        await self._receive(event.data, None)
        except HttpError as failure:
            text, cause = failure.message, failure.cause
        finally:
            exchange.close()
        self._listening = None
        self._endpoint = None
        for item in tuple(self._waiting.values()):
            item.end()
        if cause is Cause.SERVER_MALFORMED:
            self._gone(cause, text)
        elif self._open and self.handshake.repeatable:
            self._spawn(self._back())

    async def _back(self) -> None:
        """Reconnect as soon as the server is there again."""
        failures = 0
        while self._open and self._listening is None:
            await asyncio.sleep(min(RETRY_S * 2 ** min(failures, 5), RETRY_MAX_S))
            try:
                await self._renew(self._stale)
            except HttpError:
                failures += 1

    async def _renew(self, stale: int) -> None:
        async with self._renewing:
            if self._listening is None and self._stale == stale:
                await self._connect()
                await self._again()

    async def _exchange(self, item: Item) -> None:
        if self._endpoint is None:
            if item.internal:
                raise HttpError(_CUT, sent=False)
            if item.method == "initialize":
                async with self._renewing:
                    if self._endpoint is None:
                        await self._connect()
            else:
                await self._renew(self._stale)
        stream, endpoint = self._stale, self._endpoint
        if endpoint is None:
            raise HttpError(_CUT, sent=False)
        headers: Headers = [("Content-Type", "application/json"), ("Accept", "application/json")]
        exchange = await self._client.request("POST", headers, item.data, repeatable=not item.effectful, url=endpoint)
        try:
            status = exchange.answer.status
            await exchange.content(ERROR_BYTES)
        finally:
            exchange.close()
        if not 200 <= status < 300:
            cause = Cause.SERVER_UNAVAILABLE if status >= 500 or status in {401, 403, 404} else Cause.SERVER_MALFORMED
            text = f"the server answered {item.method or 'an answer'} with HTTP status {status}"
            raise HttpError(text, sent=status >= 500, cause=cause)
        self._left(item)
        if item.id is None:
            self.handshake.told(item.body)
        else:
            await self._awaited(item, stream)

    async def _awaited(self, item: Item, stream: int) -> None:
        item.ended = asyncio.Event()
        try:
            async with asyncio.timeout(SILENCE_S):
                if self._listening is not None and self._stale == stream and not item.settled:
                    await item.ended.wait()
        except TimeoutError as error:
            raise HttpError(f"the server was silent for {SILENCE_S:.0f} s", sent=True) from error
        if item.answered is None:
            raise item.failure or HttpError(_CUT, sent=True)

    async def _goodbye(self, client: HttpClient) -> None:
        """Closing the stream is all there is to say."""


def _fed(parser: SseParser, data: bytes) -> list[SseEvent]:
    try:
        return parser.feed(data)
    except WireError as error:
        raise HttpError(error.message, sent=True, cause=Cause.SERVER_MALFORMED) from error
