"""A link over Streamable HTTP: a POST for each message, answers as JSON or as a stream, and the server's own stream.

Both eras, each message by what it says itself. Legacy: the server's session id and the agreed revision go with every
request; a stream that is cut before its answer is taken up again after its last event; a server that has forgotten the
session (404) is initialised again with the client's own words, and the request that it did not take is sent again.
Modern: nothing is kept; headers are computed from the body, and cancelling is closing the stream.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import Final

from attestd.enforcement.handshake import SESSION_ID
from attestd.enforcement.http_client import Exchange, HttpClient
from attestd.enforcement.http_link import SILENCE_S, HttpLink, Item, demand_answer
from attestd.enforcement.http_wire import Headers, HttpError, SilentError
from attestd.errors import Cause
from attestd.wire.http_response import EVENTS, JSON
from attestd.wire.model import Json, Kind, WireError
from attestd.wire.outgoing_headers import modern_headers
from attestd.wire.parse import load_json
from attestd.wire.repeated import Annotations
from attestd.wire.server import ServerMessage
from attestd.wire.sse_parse import SseParser

_CONTENT: Final[Headers] = [("Content-Type", JSON), ("Accept", f"{JSON}, {EVENTS}")]
ERROR_BYTES: Final = 64 * 1024
PLAIN_BYTES: Final = 64 * 1024
"""The longest answer that is waited for without a task."""
GRACE_S: Final = 1.0
"""How long a stream may stay open after its answer, so that its connection can be used again."""
RESUMES: Final = 5
"""How often in a row a stream is taken up again without a new event."""
RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 30.0
_UNUSUAL: Final = frozenset({"initialize", "subscriptions/listen"})
_REVISION: Final = re.compile(r"[0-9A-Za-z.-]{1,32}\Z")
_UNAVAILABLE: Final = frozenset({401, 402, 403, 407, 408, 421, 425, 429})
_NOT_TAKEN: Final = _UNAVAILABLE | {503}
_FORGOTTEN_CODES: Final = frozenset({-32000, -32001, -32600})
"""What servers say with 400 where the specification wants 404."""


class StreamableLink(HttpLink):
    """One session's own, or a shared server's one."""

    _listening: asyncio.Task[None] | None = None
    _to_listen = False
    """The server's own stream is asked for in a moment: before any request of the client."""

    def _sent(self, item: Item) -> bool:
        """Whether it is on its way without a task, as requests are whose answers commonly are plain."""
        if item.id is None or item.method in _UNUSUAL or self._to_listen:
            return False
        item.session = self.handshake.session_id if self._in_session(item) else None
        item.begun = self._client.send(
            "POST",
            self._headers(item, item.session),
            item.data,
            patience=SILENCE_S,
            ready=partial(self._plain, item),
            limit=min(PLAIN_BYTES, self._limits.message_bytes),
        )
        return item.begun is not None

    async def _exchange(self, item: Item) -> None:
        again = False
        begun, item.begun = item.begun, None
        while True:
            session = self.handshake.session_id if self._in_session(item) else None
            if begun is not None:
                session = item.session
            headers = self._headers(item, session)
            patience = None if item.method == "subscriptions/listen" else SILENCE_S
            exchange = await self._client.request(
                "POST", headers, item.data, repeatable=not item.effectful, patience=patience, begun=begun
            )
            begun = None
            try:
                status = exchange.answer.status
                refused = await exchange.content(ERROR_BYTES) if status >= 400 else b""
                if session is None or again or not self._forgotten(status, refused):
                    await self._answered(item, exchange, refused)
                    return
            finally:
                exchange.close()
            again = True
            await self._renew(session)

    def _in_session(self, item: Item) -> bool:
        return item.revision is None and item.method not in {"initialize", "server/discover"}

    def _headers(self, item: Item, session: str | None) -> Headers:
        if item.revision is not None:
            annotations: Annotations = {}
            if self._annotations:
                params = item.body.get("params")
                name = params.get("name") if isinstance(params, dict) else None
                annotations = self._annotations.get(name, {}) if isinstance(name, str) else {}
            return [*_CONTENT, *modern_headers(item.body, item.revision, annotations)]
        return [*_CONTENT, *self._session_headers(session)] if self._in_session(item) else _CONTENT

    def _session_headers(self, session: str | None) -> Headers:
        headers: Headers = [] if session is None else [("Mcp-Session-Id", session)]
        revision = self.handshake.revision
        if revision is not None and _REVISION.match(revision):
            headers.append(("MCP-Protocol-Version", revision))
        return headers

    # -- answers ----------------------------------------------------------------------------------------------------

    async def _answered(self, item: Item, exchange: Exchange, refused: bytes) -> None:
        status = exchange.answer.status
        if not 200 <= status < 300:
            self._refused(item, status, refused)
        elif item.id is None:
            await exchange.content(ERROR_BYTES)
            self.handshake.told(item.body)
            if item.method == "notifications/initialized" and self._listening is None:
                self._to_listen = True
                self._listening = self._spawn(self._listen())
        else:
            if item.method == "initialize":
                self._opened(exchange.answer.header("mcp-session-id"))
            self._left(item)
            media = exchange.answer.media
            if media == JSON:
                await self._receive(await exchange.content(self._limits.message_bytes), item)
            elif media == EVENTS:
                await self._streamed(item, exchange)
            else:
                text = f"the server answered {item.method} with status {status} and {media[:64]!a}"
                raise HttpError(text, sent=True, cause=Cause.SERVER_MALFORMED)
            demand_answer(item)

    def _opened(self, session: str | None) -> None:
        if session is not None and not SESSION_ID.match(session):
            text = "the server's session id is not visible ASCII of at most 1024 bytes"
            raise HttpError(text, sent=True, cause=Cause.SERVER_MALFORMED)
        self.handshake.session_id = session

    def _refused(self, item: Item, status: int, content: bytes) -> None:
        """An answer that is no success: the server's own words where they are JSON-RPC, else ours."""
        error = None if status in _UNAVAILABLE else self._rpc_error(content)
        if error is None and status in {400, 404, 405, 406, 415} and item.method == "server/discover":
            error = {"code": -32601, "message": "the server does not know server/discover"}
        if error is not None and item.id is not None:
            self._arrived(ServerMessage(kind=Kind.ERROR, id=item.id, error=error))
            return
        hint = ": it wants a token, see server.token_file" if status == 401 else ""
        unavailable = status in _UNAVAILABLE or status >= 500
        raise HttpError(
            f"the server answered {item.method or 'an answer'} with HTTP status {status}{hint}",
            sent=status not in _NOT_TAKEN,
            cause=Cause.SERVER_UNAVAILABLE if unavailable else Cause.SERVER_MALFORMED,
        )

    def _rpc_error(self, content: bytes) -> Json:
        try:
            body = load_json(content.strip(), self._limits)
        except WireError:
            return None
        error = body.get("error") if isinstance(body, dict) else None
        if not isinstance(error, dict) or type(error.get("code")) is not int or type(error.get("message")) is not str:
            return None
        return error

    # -- streams ----------------------------------------------------------------------------------------------------

    async def _streamed(self, item: Item, exchange: Exchange) -> None:
        """The stream that answers one request, taken up again where it is cut."""
        if item.id is not None and not item.internal:
            self._owner.server_streams(item.id)
        parser = SseParser(self._limits.message_bytes)
        failures = 0
        while True:
            try:
                went_on = await self._stream(exchange, parser, item)
            except HttpError as failure:
                if failure.cause is not Cause.SERVER_UNAVAILABLE or parser.last_id is None or item.revision:
                    raise
                went_on = False
            finally:
                exchange.close()
            if item.settled:
                return
            failures = 0 if went_on else failures + 1
            if parser.last_id is None or item.revision is not None or failures > RESUMES:
                raise HttpError("the server ended the stream without an answer", sent=True)
            exchange = await self._taken_up(parser)

    async def _taken_up(self, parser: SseParser) -> Exchange:
        parser.restart()
        for attempt in range(RESUMES):
            await asyncio.sleep(_delay(parser, attempt))
            try:
                exchange = await self._client.request("GET", self._stream_headers(parser), b"", repeatable=True)
            except HttpError as failure:
                if failure.cause is not Cause.SERVER_UNAVAILABLE:
                    raise
                continue
            if exchange.answer.status == 200 and exchange.answer.media == EVENTS:
                return exchange
            exchange.close()
            break
        raise HttpError("the server ended the stream without an answer, and does not resume it", sent=True)

    def _stream_headers(self, parser: SseParser) -> Headers:
        headers: Headers = [("Accept", EVENTS), *self._session_headers(self.handshake.session_id)]
        if parser.last_id is not None:
            headers.append(("Last-Event-ID", parser.last_id))
        return headers

    async def _stream(self, exchange: Exchange, parser: SseParser, item: Item | None) -> bool:
        """Read one stream to its end, or to a moment after its answer; whether there was a message in it."""
        message = False
        while True:
            try:
                data = await exchange.chunk(self._patience(item))
            except SilentError:
                if item is not None and not item.settled:
                    raise
                return message
            if not data:
                return message
            try:
                events = parser.feed(data)
            except WireError as error:
                raise HttpError(error.message, sent=True, cause=Cause.SERVER_MALFORMED) from error
            for event in events:
                if event.data and event.event == "message":
                    message = True
                    await self._receive(event.data, item)
            if item is not None and item.settled:
                exchange.ending()

    @staticmethod
    def _patience(item: Item | None) -> float | None:
        if item is None or (item.method == "subscriptions/listen" and not item.settled):
            return None
        return GRACE_S if item.settled else SILENCE_S

    async def _listen(self) -> None:
        """The server's own stream, for as long as the session lasts; a server may have none."""
        parser, failures = SseParser(self._limits.message_bytes), 0
        session = self.handshake.session_id
        while self._open:
            if session != self.handshake.session_id:
                parser, session = SseParser(self._limits.message_bytes), self.handshake.session_id
            try:
                if not await self._listened(parser, session):
                    return
                failures = 0
            except HttpError as failure:
                if failure.cause is Cause.SERVER_MALFORMED:
                    self._gone(failure.cause, failure.message)
                    return
                failures += 1
            parser.restart()
            await asyncio.sleep(_delay(parser, failures))

    async def _listened(self, parser: SseParser, session: str | None) -> bool:
        """One stream, or one renewal; False: the server has no such stream."""
        self._to_listen = False
        exchange = await self._client.request("GET", self._stream_headers(parser), b"", repeatable=True)
        try:
            status = exchange.answer.status
            if status == 200 and exchange.answer.media == EVENTS:
                await self._stream(exchange, parser, None)
                return True
            refused = await exchange.content(ERROR_BYTES)
        finally:
            exchange.close()
        if session is not None and self._forgotten(status, refused):
            await self._renew(session)
            return True
        return status in {409, 429} or status >= 500

    # -- the session ------------------------------------------------------------------------------------------------

    def _forgotten(self, status: int, content: bytes) -> bool:
        """Whether the server does not know the session any more, and so did not look at the message."""
        if status == 404:
            return True
        error = self._rpc_error(content) if status == 400 else None
        return error is not None and error["code"] in _FORGOTTEN_CODES and "session" in error["message"].lower()

    async def _renew(self, stale: str) -> None:
        async with self._renewing:
            if self.handshake.session_id == stale:
                await self._again()
                if self.handshake.session_id == stale:
                    self.handshake.session_id = None

    async def _goodbye(self, client: HttpClient) -> None:
        if self.handshake.session_id is not None:
            headers = self._session_headers(self.handshake.session_id)
            exchange = await client.request("DELETE", headers, b"", repeatable=True)
            try:
                await exchange.content(ERROR_BYTES)  # so that its connection can be used again
            finally:
                exchange.close()


def _delay(parser: SseParser, failures: int) -> float:
    """Seconds until the next attempt: what the server asked for, longer after each failure."""
    wanted = RETRY_S if parser.retry_ms is None else parser.retry_ms / 1000
    return min(wanted * (1 << min(failures, 5)), max(RETRY_MAX_S, wanted))
