"""One HTTP connection of an attested process: its socket, its requests one after the other, and their answers.

On a Unix socket every read names its writer, as with lines (``connection``); on TCP nothing does. A request is
answered before the next one is looked at, so a client that sends without waiting only fills its own buffer. Reading
goes on meanwhile, within a bound, because the end of the stream is how a client gives up.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import cached_property

import msgspec

from attestd.enforcement.client_end import READ_BYTES, SocketEnd
from attestd.enforcement.connection import LAST_WORDS_S
from attestd.enforcement.outbox import Outbox
from attestd.enforcement.proof import Marks
from attestd.enforcement.shared_watch import SharedWatch
from attestd.evidence.model import Peer
from attestd.mediation import Attested
from attestd.wire.http_request import CONTINUE, HttpRefusal, HttpRequest, RequestReader
from attestd.wire.http_response import INTERIM, LAST_CHUNK, Chunks, chunked, events_head, head, json_head
from attestd.wire.http_rules import accepted
from attestd.wire.model import REFUSED
from attestd.wire.refusal import error_line

AHEAD_BYTES = 1 << 16
"""What a client may send ahead while its request is being answered."""
REQUEST_S = 30.0
"""How long a request may take to arrive."""
IDLE_S = 300.0
"""How long a connection may stay without a request."""


class HttpCaller(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Who is at the other end of one connection."""

    peer: Peer
    attested: Attested
    watch: SharedWatch
    marks: Marks
    server: str | None
    """The server of the Unix socket or of the sealed port; None on our own port, where the path names it."""
    hosts: frozenset[str] | None
    """What ``Host`` may say; None on a Unix socket."""
    events: str | None = None
    """On the port of a sealed server: the path at which it begins sessions of 2024-11-05, or nothing."""

    @property
    def unix(self) -> bool:
        """Whether the kernel names the writer of what is read."""
        return self.hosts is None

    @cached_property
    def bound(self) -> tuple[object, ...]:
        """What a session is bound to: this process, this image, seen in this way. Nobody else has the same."""
        result = self.attested.result
        who = (self.peer.pid, result.uid, result.program, result.chain, result.instance)
        return (*who, self.peer.source, result.level, result.inline, result.launchers)


class HttpExchange:
    """One request and its answer."""

    def __init__(self, connection: HttpConnection, request: HttpRequest) -> None:
        self.connection = connection
        self.request = request
        self.takes_json, self.takes_events = accepted(request.head)
        self.open = True
        """Whether something may still be written."""
        self.streaming = False
        self.gone: Callable[[], None] = _nothing
        """Called once if the client goes before the answer is complete."""
        self.relieved: Callable[[], None] = _nothing
        """Called when the client has read what congested it."""

    @property
    def congested(self) -> bool:
        """Whether the client does not read."""
        return self.connection.congested

    def answer(self, status: int, chunks: Chunks, headers: dict[str, str] | None = None) -> None:
        """The whole answer: one JSON text."""
        if self.open:
            first = json_head(status, chunks, headers or {}, close=self.connection.last)
            self._done(first, *chunks)

    def refuse(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        """The whole answer: a JSON-RPC error that belongs to no message."""
        self.answer(status, (error_line(None, REFUSED, text),), headers)

    def accepted(self) -> None:
        """The whole answer: taken, and nothing to say."""
        if self.open:
            self._done(head(202, {}, length=0, close=self.connection.last))

    def begin(self, headers: dict[str, str]) -> None:
        """From now on the answer is a stream of events."""
        if self.open and not self.streaming:
            self.streaming = True
            self.connection.write(events_head(headers))

    def event(self, parts: Chunks) -> None:
        """One event of the stream."""
        if self.open:
            self.connection.write(*chunked(parts))

    def finish(self) -> None:
        """The stream is complete."""
        if self.open:
            self._done(LAST_CHUNK)

    def abort(self) -> None:
        """No answer will come: the connection ends."""
        if self.open:
            self.open = False
            self.connection.close()

    def lost(self) -> None:
        """From the connection: the client has gone."""
        if self.open:
            self.open = False
            self.gone()

    def _done(self, *parts: bytes | memoryview) -> None:
        self.open = False
        self.connection.write(*parts)
        self.connection.answered()


class HttpConnection:
    """Glue between a socket and whoever answers requests; lives on the loop's thread."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        caller: HttpCaller,
        body_bytes: int,
        respond: Callable[[HttpExchange], None],
        foreign: Callable[[HttpConnection, int], None],
        refused: Callable[[HttpConnection, HttpRefusal], None],
        ended: Callable[[HttpConnection], None],
    ) -> None:
        """``foreign(self, pid)``: bytes of another process arrived; the connection has ended.

        ``refused``: a request was refused as HTTP, before there was a message that anything could be decided about.
        """
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._unix = caller.unix
        self.caller = caller
        self._reader = RequestReader(body_bytes)
        self._respond = respond
        self._foreign = foreign
        self._refused = refused
        self._ended = ended
        self._exchange: HttpExchange | None = None
        self._outbox = Outbox(loop, self._fd, relieved=self._relieved, broken=self._lost)
        self._reading = False
        self._closed = False
        self._since = loop.time()
        self.last = False
        """The connection ends with the answer under way."""
        self._hold = caller.watch.hold(self._exited)
        self._resume()

    @property
    def congested(self) -> bool:
        """Whether the client does not read."""
        return self._outbox.congested

    @property
    def queued(self) -> int:
        """Bytes that wait for the client."""
        return self._outbox.queued

    def write(self, *parts: bytes | memoryview) -> None:
        """Bytes of an answer."""
        if len(parts) > 1 and sum(map(len, parts)) <= READ_BYTES:
            self._outbox.write(b"".join(parts))
            return
        for part in parts:
            self._outbox.write(part)

    def answered(self) -> None:
        """The answer under way is complete."""
        self._exchange = None
        self._since = self._loop.time()
        if self.last:
            self.close()
        elif self._reader.idle:
            self._resume()
        else:
            self._loop.call_soon(self._advance)

    def tick(self) -> None:
        """Give up a request that does not come to its end, and a connection that nobody uses."""
        unused = self._reader.idle or self._outbox.congested
        if self._exchange is None and self._loop.time() - self._since > (IDLE_S if unused else REQUEST_S):
            if unused:
                self.close()
            else:
                self._refuse(HttpRefusal(408, "cannot accept the request: it did not come to its end"))

    def close(self) -> None:
        """End, after what is queued was sent."""
        if self._closed:
            return
        self._closed = True
        self._pause()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lost()
        self._hold.close()
        self._ended(self)

        def release() -> None:
            timeout.cancel()
            self._outbox.discard()
            self._sock.close()

        timeout = self._loop.call_later(LAST_WORDS_S, release)
        self._outbox.finish(release)

    def _readable(self) -> None:
        try:
            if self._unix:
                data, writer = SocketEnd(self._sock).read()
            else:
                data, writer = self._sock.recv(READ_BYTES), self.caller.peer.pid
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, writer = b"", 0
        if not data:
            self._lost()
            return
        if writer != self.caller.peer.pid:
            self._foreign(self, writer)
            self.close()
            return
        if self._reader.feed(data):
            self._since = self._loop.time()
        if self._exchange is None:
            self._advance()
        else:
            self._resume()

    def _advance(self) -> None:
        """Take one request. If it was answered at once, the next one waits until the others had their turn.

        It also waits for a client that does not read what it was answered before.
        """
        if self._exchange is not None or self._closed:
            return
        if self._outbox.congested:
            self._pause()
            return
        try:
            found = self._reader.next()
            if type(found) is HttpRequest:
                self.last = found.head.closes
                self._exchange = HttpExchange(self, found)
                self._respond(self._exchange)
            elif found == CONTINUE:
                self.write(INTERIM)
        except HttpRefusal as refusal:
            self._refuse(refusal)
            return
        if found is not None or not self._reading:
            self._resume()

    def _refuse(self, refusal: HttpRefusal) -> None:
        """An HTTP error. What follows in the stream cannot be told apart, so it is the last word."""
        self.last = True
        self._refused(self, refusal)
        line = error_line(None, REFUSED, refusal.text)
        self.write(json_head(refusal.status, (line,), {}, close=True), line)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.open = False
        self.close()

    def _resume(self) -> None:
        ahead = self._exchange is not None and self._reader.buffered > AHEAD_BYTES
        if self._closed or ahead or self._outbox.congested:
            self._pause()
        elif not self._reading:
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def _relieved(self) -> None:
        if self._exchange is not None:
            self._exchange.relieved()
            self._resume()
        else:
            self._advance()

    def _lost(self) -> None:
        self._outbox.discard()
        self.close()

    def _exited(self) -> None:
        """The process has gone; what it wrote before is still its own, but nobody reads the answer."""
        if self._exchange is None:
            self.close()


def _nothing() -> None:
    pass
