"""One MCP session over HTTP: a ``Session`` without a connection of its own, fed by the requests of one process.

Where a message of the session goes: an answer to the exchange whose request it answers; progress and what a
subscription tells to the exchange that asked for it; a request or log message of the server to the oldest exchange
that is waiting; everything else to the client's own stream (GET), and until there is one into the log. An answer is
plain JSON unless something had to be said before it, or the client asked for that and the server's answer is a stream,
or it takes long: then the exchange has become a stream.

Three kinds. ``session``: 2025-03-26 to 2025-11-25, named by our session id; streams can be resumed. ``pool``:
2026-07-28, and calls without any session; it belongs to the process and ends when nobody has used it for a while.
``events``: HTTP+SSE of 2024-11-05; everything goes to the one stream that began it, and the session ends with that.

A stream that its client does not read holds up the session: nothing more is taken from the server, and with ``events``
nothing from the client, until it is read, complete or gone. Whoever else has a connection there waits for as long.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from hmac import compare_digest

from attestd.enforcement.clock import MessageClock
from attestd.enforcement.effects import Effect, End, State, ToClient, ToServer, Withdraw, abandon
from attestd.enforcement.http_call import Call, is_own, wants_events
from attestd.enforcement.http_connection import HttpCaller, HttpExchange
from attestd.enforcement.proof import ManyProof
from attestd.enforcement.session import Session
from attestd.enforcement.shared_watch import Hold
from attestd.enforcement.streams import EventLog, LostError
from attestd.enforcement.uplink import OpenUplink, Uplink
from attestd.errors import Cause
from attestd.wire.framing import Line
from attestd.wire.http_response import PING, Chunks, event, priming
from attestd.wire.http_rules import SESSION, STATUS
from attestd.wire.model import Era, Json, Kind, WireError
from attestd.wire.parse import BATCH_REVISION, INVALID_REQUEST, PARSE_ERROR
from attestd.wire.server import ServerMessage

PRIMED_FROM = "2025-11-25"
"""The first revision whose clients understand an event without data."""
STREAM_S = 15.0
"""After this time without an answer an exchange becomes a stream; so often a silent stream says that it is alive."""
POOL_IDLE_S = 60.0
_SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"


class HttpSession:
    """Carries out what a session says, over HTTP. Lives on the loop's thread."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        kind: str,
        name: str,
        word: str,
        caller: HttpCaller,
        session: Session,
        proof: ManyProof,
        open_link: OpenUplink,
        ended: Callable[[HttpSession, str, str], None],
    ) -> None:
        """``name``: what the client calls it by, a secret. ``word``: hexadecimal, for its event ids."""
        self._loop = loop
        self.kind = kind
        self.name = name
        self.bound = caller.bound
        self.watch = caller.watch
        self.server = caller.server
        self.session = session
        self._writer = caller.peer.pid
        self._proof = proof
        self._ended = ended
        self._hold: Hold = caller.watch.hold(self.tick)
        self._uplink = Uplink(loop, self, open_link)
        self._log = EventLog(word)
        self._own = self._log.open()
        self._own_exchange: HttpExchange | None = None
        self._own_shown = self._log.last(self._own)
        self._calls: dict[str | int, Call] = {}
        self._streams: dict[int, Call] = {}
        self._queue: deque[Call] = deque()
        self._current: Call | None = None
        self._related: Call | None = None
        self._general = False
        self._closed = False
        self.modern = False
        """A ``pool`` for messages of 2026-07-28."""
        self.established = False
        """A request of the client was answered with a result."""
        self.used = loop.time()

    # -- the client's side ------------------------------------------------------------------------------------------

    def submit(self, exchange: HttpExchange, line: Line | WireError, asked: str | int | None = None) -> None:
        """One POST: mediate what it brought, now or when the server takes it; ``asked``: the id of its request."""
        call = Call(exchange, line, exchange.connection.caller.marks, self._loop.time())
        call.asked = asked
        exchange.gone = lambda: self._left(call)
        if self._queue or self._held_up:
            self._queue.append(call)
        else:
            self._mediate(call)

    def attach(self, exchange: HttpExchange, last_event_id: str | None) -> str:
        """One GET: the client's own stream, or the rest of one that broke. Empty, or why not."""
        stream = self._own
        missed: list[tuple[str, Chunks]] = []
        try:
            found = self._log.after(self._own_shown if last_event_id is None else last_event_id)
        except LostError:
            if last_event_id is not None:
                return "events after this one are no longer kept"
            found = None
        if found is not None:
            stream, missed = found
        elif last_event_id is not None:
            return "no such event"
        self.used = self._loop.time()
        exchange.begin(self._headers())
        self._prime(exchange, stream)
        for event_id, chunks in missed:
            exchange.event(event(chunks, event_id=event_id))
        if stream == self._own:
            self._take_own(exchange)
        elif (call := self._streams.get(stream)) is not None:
            if call.exchange is not None:
                call.exchange.finish()
            call.exchange = exchange
            exchange.gone = lambda: self._left(call)
            self._relieved()
            self._hold_up_for(exchange)
        else:
            exchange.finish()
        return ""

    def hear(self, exchange: HttpExchange, endpoint: str) -> None:
        """The GET that begins a session of 2024-11-05: a transport of the legacy era, so no message there is modern."""
        self.session.era = Era.LEGACY
        exchange.begin({})
        exchange.event(event([endpoint.encode("ascii")], name="endpoint"))
        self._take_own(exchange)

    def foreign(self, pid: int) -> None:
        """Another process wrote on a connection of this session."""
        self._carry_out(self.session.foreign_writer(pid, MessageClock()))

    def leave(self) -> None:
        """The client is done with the session."""
        self._carry_out([*self.session.client_closed(MessageClock()), End("", "the client ended the session")])

    def tick(self) -> None:
        """The periodic look."""
        self._carry_out(self.session.tick(MessageClock()))
        if self._closed:
            return
        now = self._loop.time()
        for call in set(self._calls.values()):
            if now - call.since > STREAM_S and call.exchange is not None and call.exchange.takes_events:
                call.since = now
                self._ping(call.exchange if call.stream is not None else self._stream(call))
        if self._own_exchange is not None and now - self.used > STREAM_S:
            self.used = now
            self._ping(self._own_exchange)
        if self.kind == "pool" and not self._calls and now - self.used > POOL_IDLE_S:
            self._carry_out([End("", "nobody used it")])

    def grants_changed(self) -> None:
        """Tell the session."""
        self._general = True
        self._carry_out(self.session.grants_changed(MessageClock()))
        self._general = False

    def close(self, cause: Cause, text: str) -> None:
        """End from outside: shutdown, a removed server."""
        self._carry_out(self.session.server_gone(cause, text, MessageClock()))

    @property
    def secret(self) -> str:
        """What only the attested process is told."""
        return self._proof.secret

    def knows(self, told: str) -> bool:
        """Whether that is it."""
        return compare_digest(told.encode(), self.secret.encode())

    def has(self, request_id: str | int) -> bool:
        """Whether a request with this id waits, for its answer or for its turn."""
        if request_id in self.session.outstanding or request_id in self._calls:
            return True
        return bool(self._queue) and any(call.asked == request_id for call in self._queue)

    # -- the server's side: implements ``link.LinkOwner`` -----------------------------------------------------------

    def server_message(self, message: ServerMessage) -> None:
        """From the link."""
        if message.method is None:  # an answer goes where its request came from
            self._carry_out(self.session.server_message(message, MessageClock()))
            return
        before, self._related, self._general = (self._related, self._general), self._asker(message), is_own(message)
        self._carry_out(self.session.server_message(message, MessageClock()))
        self._related, self._general = before

    def server_malformed(self, request_id: str | int, error: WireError) -> None:
        """From the link."""
        self._carry_out(self.session.server_malformed(request_id, error, MessageClock()))

    def server_streams(self, request_id: str | int) -> None:
        """From the link: who asked for events gets its stream now, not with the first of them.

        Not before the session is established: until then its name cannot stand in the head. Other calls are answered
        as JSON where nothing comes before the answer: after a stream many clients begin a new connection, and that
        costs an attestation.
        """
        call, entry = self._calls.get(request_id), self.session.outstanding.get(request_id)
        named = self.kind == "pool" or (self.kind == "session" and self.established)
        if call is None or entry is None or not named or not wants_events(entry.request):
            return
        if call.exchange is not None and call.exchange.takes_events:
            self._stream(call)

    def server_gone(self, cause: Cause, text: str) -> None:
        """From the link."""
        self._uplink.lost()
        self._carry_out(self.session.server_gone(cause, text, MessageClock()))

    def server_failed(self, cause: Cause, text: str) -> None:
        """The link could not be opened."""
        self._carry_out(self.session.server_failed(cause, text, MessageClock()))
        self._drain()

    def server_relieved(self) -> None:
        """From the link."""
        self._drain()

    @property
    def backlog(self) -> int:
        """Bytes that wait for the client."""
        return sum(exchange.connection.queued for exchange in self._exchanges())

    # -- effects ----------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        while self._queue and not self._held_up:
            self._mediate(self._queue.popleft())

    @property
    def _held_up(self) -> bool:
        """Whether nothing can be mediated now: for the server's or the client's sake, or while something else is."""
        if self._closed or self._current is not None or self._uplink.congested:
            return True
        return self.kind == "events" and self._own_exchange is not None and self._own_exchange.congested

    def _mediate(self, call: Call) -> None:
        """Steps 3 to 7 for what one POST brought."""
        if self.kind == "events" and call.exchange is not None:
            call.exchange.accepted()  # not before: what waits must wait with the client
        self._current = call
        self.used = call.since = self._loop.time()
        self._proof.marks = call.marks
        call.batch = call.batch and self.session.revision == BATCH_REVISION
        before = set(self.session.outstanding)
        effects = self.session.client_line(call.line, self._writer, MessageClock())
        call.awaits = self.session.outstanding.keys() - before
        self._calls.update(dict.fromkeys(call.awaits, call))
        self._carry_out(effects)
        self._current = None
        if not call.awaits and call.exchange is not None and call.exchange.open:
            if call.stream is not None:
                self._finish(call)
            else:
                call.exchange.accepted()

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if self._closed:
                return
            if type(effect) is ToServer:
                self._uplink.send(effect)
            elif type(effect) is ToClient:
                if effect.reply:
                    self._reply(effect)
                else:
                    self._tell(effect.chunks)
            elif type(effect) is Withdraw:
                if self._uplink.withdraw(effect.request_id):
                    self.session.unsent(effect.request_id)
            elif type(effect) is End:
                self._close(effect.cause, effect.text)

    def _reply(self, effect: ToClient) -> None:
        call = self._current
        if effect.answers is not None and (call is None or effect.answers not in self.session.outstanding):
            call = self._calls.pop(effect.answers, call)  # else it refuses a second request with the id of a first one
        if call is None:
            return
        if effect.answers is not None:
            call.awaits.discard(effect.answers)
        first = not self.established
        self.established = self.established or effect.code == 0
        if self.kind == "events":
            self._to_own(effect.chunks)
        elif call.batch or call.stream is not None or not self._plain(call):
            self._to_stream(call, effect.chunks)
            if not call.awaits and call is not self._current:
                self._finish(call)
        elif call.exchange is not None:
            call.exchange.answer(self._status(effect.code), effect.chunks, self._headers())
        if first and self.kind == "session" and not self.established:
            self._close("", "the session was not admitted")

    def _plain(self, call: Call) -> bool:
        """Whether the answer may be JSON."""
        return call.exchange is None or call.exchange.takes_json

    def _status(self, code: int) -> int:
        if self.session.era is Era.MODERN or self.kind == "pool":
            return STATUS.get(code, 200)
        return 400 if code in {PARSE_ERROR, INVALID_REQUEST} else 200

    def _headers(self) -> dict[str, str]:
        return {SESSION: self.name} if self.kind == "session" and self.established else {}

    def _tell(self, chunks: Chunks) -> None:
        """A request or notification for the client."""
        if self.kind == "events":
            self._to_own(chunks)
            return
        call = self._related
        if call is None and not self._general:
            call = self._oldest()
        if call is not None and (call.stream is not None or (call.exchange is not None and call.exchange.takes_events)):
            self._to_stream(call, chunks)
        elif self.kind != "pool":
            self._to_own(chunks)

    def _oldest(self) -> Call | None:
        waiting = (call for call in self._calls.values() if call.exchange is not None and call.exchange.open)
        return self._current or next((call for call in waiting if call.exchange and call.exchange.takes_events), None)

    def _to_own(self, chunks: Chunks) -> None:
        event_id = self._log.append(self._own, chunks) if self.kind == "session" else ""
        exchange = self._own_exchange
        if exchange is None or not exchange.open:
            return
        if exchange.congested and self.kind == "session":
            self._own_exchange = None  # it can be resumed
            exchange.abort()
            return
        self._own_shown = event_id
        exchange.event(event(chunks, event_id=event_id))
        if self.kind == "events":
            self._hold_up_for(exchange)

    def _hold_up_for(self, exchange: HttpExchange) -> None:
        """Take nothing more from the server until this one is read, if it is not."""
        if exchange.congested:
            exchange.relieved = self._relieved
            self._uplink.pause()

    def _relieved(self) -> None:
        """Who held the session up reads again, or waits for nothing more of it; perhaps another still does."""
        if not any(exchange.congested for exchange in self._exchanges()):
            self._uplink.resume()
            self._drain()

    def _to_stream(self, call: Call, chunks: Chunks) -> None:
        exchange = self._stream(call)
        event_id = self._log.append(call.stream, chunks) if self._logs and call.stream is not None else ""
        if exchange is not None and exchange.open:
            exchange.event(event(chunks, event_id=event_id))
            self._hold_up_for(exchange)

    @property
    def _logs(self) -> bool:
        return self.kind == "session"

    def _stream(self, call: Call) -> HttpExchange | None:
        """Make a stream of the exchange, if it is none."""
        if call.stream is None:
            call.stream = self._log.open() if self._logs else -1
            self._streams[call.stream] = call
            if call.exchange is not None:
                call.exchange.begin(self._headers())
                self._prime(call.exchange, call.stream)
        return call.exchange

    def _prime(self, exchange: HttpExchange, stream: int) -> None:
        if self._logs and (self.session.revision or "") >= PRIMED_FROM:
            exchange.event([priming(self._log.last(stream))])

    def _finish(self, call: Call) -> None:
        if call.stream is not None:
            self._streams.pop(call.stream, None)
            if self._logs:
                self._log.end(call.stream)
        if call.exchange is not None:
            call.exchange.finish()
            self._relieved()

    def _left(self, call: Call) -> None:
        """The client has closed the exchange before its end."""
        call.exchange = None
        if call in self._queue:
            self._queue.remove(call)
        self._relieved()
        if self.kind != "pool":
            return
        for request_id in list(call.awaits):
            self._calls.pop(request_id, None)
            self._carry_out(abandon(self.session.outstanding, request_id))
        call.awaits.clear()

    def _take_own(self, exchange: HttpExchange) -> None:
        if self._own_exchange is not None:
            self._own_exchange.finish()
        self._own_exchange = exchange
        self._own_shown = self._log.last(self._own)
        exchange.gone = lambda: self._own_gone(exchange)

    def _own_gone(self, exchange: HttpExchange) -> None:
        if self._own_exchange is exchange:
            self._own_exchange = None
            if self.kind == "events":
                self.leave()

    def _asker(self, message: ServerMessage) -> Call | None:
        """The exchange that a request or notification of the server belongs to, where it says so."""
        if message.kind not in {Kind.REQUEST, Kind.NOTIFICATION} or not isinstance(message.params, dict):
            return None
        meta = message.params.get("_meta")
        listener: Json = meta.get(_SUBSCRIPTION) if isinstance(meta, dict) else None
        if isinstance(listener, str | int):
            return self._calls.get(listener)
        if message.method != "notifications/progress":
            return None
        token = message.params.get("progressToken")
        asked = (i for i, entry in self.session.outstanding.items() if entry.request.progress_token == token)
        found = next(asked, None)
        return None if found is None or token is None else self._calls.get(found)

    def _exchanges(self) -> list[HttpExchange]:
        calls = {call.exchange for call in (*self._calls.values(), *self._queue)} | {self._own_exchange}
        return [exchange for exchange in calls if exchange is not None]

    @staticmethod
    def _ping(exchange: HttpExchange | None) -> None:
        if exchange is not None and not exchange.congested:
            exchange.event([PING])

    def _close(self, cause: str, text: str) -> None:
        if self._closed:
            return
        self._closed = True
        self._uplink.close()
        self._hold.close()
        exchanges = self._exchanges()
        self._calls.clear()
        self._queue.clear()
        self._own_exchange = None
        for exchange in exchanges:
            exchange.gone = _nothing
            if exchange.streaming:
                exchange.finish()
            else:
                exchange.refuse(404, f"the session has ended: {text}")
        self._ended(self, cause, text)

    @property
    def open(self) -> bool:
        """Whether it takes requests."""
        return not self._closed and self.session.state is State.OPEN


def _nothing() -> None:
    pass
