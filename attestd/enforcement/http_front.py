"""What is done with one HTTP request: whose it is, for which server and session, and everything that is refused.

Order: Host and Origin; the path; the method; the session, which exists only for the process that began it (404 for
anybody else, and recorded); the body. Then the ``Session`` of mediation has the word.

| path | what |
|---|---|
| ``/SERVER/mcp``, on a Unix socket also ``/mcp`` and ``/`` | Streamable HTTP |
| ``/SERVER/sse``, on a Unix socket also ``/sse`` | GET begins a session of 2024-11-05 |
| ``/SERVER/message?sessionId=…``, likewise | POST of that session |
| any other, on the port of a sealed server | the same as ``/mcp``; a GET of its url as ``/sse`` |

A session id was told only to the attested process, after its attestation. So whatever follows it in a stream is not
older than the attestation (docs/adr/0020), on TCP too, where nothing else tells.

A session looks at the process that it was begun for. A request on another connection may have been written before that,
by what the process executed then: so that connection's own attestation must still be true as well.
"""

from __future__ import annotations

import secrets
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol
from urllib.parse import parse_qs

import msgspec

from attestd.enforcement.http_connection import HttpCaller, HttpConnection, HttpExchange
from attestd.enforcement.http_session import HttpSession
from attestd.errors import Cause
from attestd.evidence.model import Peer
from attestd.wire.era import era_of
from attestd.wire.framing import Line
from attestd.wire.http_request import HttpRefusal, RequestHead
from attestd.wire.http_rules import (
    LAST_EVENT,
    SESSION,
    VERSION,
    Routing,
    demand_headers,
    demand_json,
    demand_own,
    demand_token,
    is_modern,
    routing,
)
from attestd.wire.methods import LEGACY, client_row, revision_of
from attestd.wire.model import Era, Json, Kind, Limits, Message, WireError
from attestd.wire.param_headers import demand_params
from attestd.wire.parse import parse_message
from attestd.wire.repeated import Annotations

SESSIONS: Final = 256
"""Sessions of one process on one server; beginning one more ends the one that was unused for longest."""
_ENDPOINTS: Final = frozenset({"mcp", "sse", "message"})
_ALLOWED: Final = {"mcp": "GET, POST, DELETE", "sse": "GET", "message": "POST"}

_CAUSES: Final = {403: Cause.NOT_FOUND, 413: Cause.TOO_LARGE, 414: Cause.TOO_LARGE, 431: Cause.TOO_LARGE}
"""What a refusal of HTTP itself is recorded as, where it is not malformed."""

Key = tuple[object, ...]


class Way(msgspec.Struct, frozen=True):
    """Where the head of a POST leads that keeps every rule. The same head leads there again, on its connection."""

    origins: tuple[str, ...]
    """Which were allowed then."""
    server: str
    endpoint: str
    session: str | None
    """The one that it names."""
    modern: bool
    """It declares the modern era."""
    routing: Routing


class Opener(Protocol):
    """Makes sessions. Implemented by the composition root."""

    def __call__(
        self, server: str, kind: str, name: str, caller: HttpCaller, ended: Callable[[HttpSession, str, str], None]
    ) -> HttpSession | None:
        """A session, recorded; None: there is no such server."""


class HttpFront:
    """Every HTTP connection and session of every server."""

    def __init__(
        self,
        *,
        loop: Any,
        limits: Callable[[], Limits],
        origins: Callable[[], tuple[str, ...]],
        sessions_per_uid: Callable[[], int],
        annotations: Callable[[str, int, Json], Annotations],
        opener: Opener,
        refused: Callable[[str, Peer | None, Cause, str], None],
        left: Callable[[Peer], None],
    ) -> None:
        """``left`` is told of every connection that ended.

        ``annotations(server, uid, tool)``: as far as they are known to callers of that uid.
        """
        self._loop = loop
        self._limits = limits
        self._origins = origins
        self._sessions_per_uid = sessions_per_uid
        self._annotations = annotations
        self._opener = opener
        self._refused = refused
        self._left = left
        self.connections: set[HttpConnection] = set()
        self._named: dict[tuple[str, str], HttpSession] = {}
        self._kept: dict[Key, list[HttpSession]] = {}
        self._of_uid: Counter[int] = Counter()

    # -- connections ------------------------------------------------------------------------------------------------

    def serve(self, sock: socket.socket, caller: HttpCaller) -> HttpConnection:
        """Take over a connection."""
        if not caller.unix:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = HttpConnection(
            loop=self._loop,
            sock=sock,
            caller=caller,
            body_bytes=self._limits().message_bytes,
            respond=self.respond,
            foreign=self._foreign,
            refused=self._refused_as_http,
            ended=self._connection_ended,
        )
        self.connections.add(connection)
        return connection

    def tick(self) -> None:
        """The periodic look at connections; sessions are looked at with all others."""
        for connection in list(self.connections):
            connection.tick()

    def close(self) -> None:
        """End every connection."""
        for connection in list(self.connections):
            connection.close()

    def _connection_ended(self, connection: HttpConnection) -> None:
        self.connections.discard(connection)
        self._left(connection.caller.peer)

    def _foreign(self, connection: HttpConnection, pid: int) -> None:
        caller = connection.caller
        self._refused(caller.server or "", caller.peer, Cause.WRITER_MISMATCH, f"process {pid} wrote")
        for (_, *bound), kept in list(self._kept.items()):
            if tuple(bound) == caller.bound:
                for session in list(kept):
                    session.foreign(pid)

    def _refused_as_http(self, connection: HttpConnection, refusal: HttpRefusal) -> None:
        caller = connection.caller
        cause = _CAUSES.get(refusal.status, Cause.MALFORMED)
        self._refused(caller.server or "", caller.peer, cause, refusal.text)

    # -- requests ---------------------------------------------------------------------------------------------------

    def respond(self, exchange: HttpExchange) -> None:
        """One request. Raises HttpRefusal."""
        head = exchange.request.head
        way: Way | None = head.found
        if way is not None and way.origins is self._origins():
            if self._outdated(exchange.connection.caller, way.server):
                exchange.abort()
            else:
                self._post(exchange, way)
            return
        served = self._served(exchange)
        if served is None:
            return
        server, endpoint = served
        if head.method != "POST" and exchange.request.body:
            raise HttpRefusal(400, f"cannot accept the request: {head.method} with a body")
        if endpoint == "sse":
            self._hear(exchange, server)
        elif head.method != "POST":
            self._of_session(exchange, server)
        else:
            head.found = way = self._way(exchange, server, endpoint)
            if way is not None:
                self._post(exchange, way)

    def _served(self, exchange: HttpExchange) -> tuple[str, str] | None:
        """Server and endpoint, if whoever asks may ask there; otherwise it was answered. Raises HttpRefusal."""
        head, caller = exchange.request.head, exchange.connection.caller
        demand_own(head, caller.hosts, self._origins())
        server, endpoint = _place(head.path, caller.server) if caller.events is None else _sealed(head, caller)
        if endpoint not in _ENDPOINTS or server is None:
            exchange.refuse(404, "nothing is served at this path")
        elif head.method not in _ALLOWED[endpoint]:
            exchange.refuse(405, f"this path does not serve {head.method}", {"Allow": _ALLOWED[endpoint]})
        elif self._outdated(caller, server):
            exchange.abort()
        else:
            return server, endpoint
        return None

    def _way(self, exchange: HttpExchange, server: str, endpoint: str) -> Way | None:
        """Where a POST leads; None: it was answered. Raises HttpRefusal."""
        head = exchange.request.head
        demand_json(head)
        if not (exchange.takes_json or exchange.takes_events):
            exchange.refuse(406, "cannot answer: expected application/json or text/event-stream in Accept")
            return None
        if endpoint == "message":
            name: str | None = (parse_qs(head.query).get("sessionId") or [""])[0]
        else:
            name = demand_token(head, SESSION)
        modern = endpoint == "mcp" and is_modern(head)
        return Way(self._origins(), server, endpoint, name, modern, routing(head))

    def _post(self, exchange: HttpExchange, way: Way) -> None:
        request, caller = exchange.request, exchange.connection.caller
        if way.session is None or way.modern:
            self._unnamed(exchange, way)
        elif (session := self._find(way.server, way.session, caller)) is None:
            exchange.refuse(404, "there is no such session")
        elif (version := request.head.header(VERSION)) is not None and revision_of(version) not in LEGACY:
            exchange.refuse(400, f"cannot accept protocol version {version[:32]!a}")
        else:
            caller.marks.shown(request.start)
            session.submit(exchange, Line(_one_line(request.body), request.start, request.end))

    def _unnamed(self, exchange: HttpExchange, way: Way) -> None:
        """A message without a session: the first of one, or of 2026-07-28, or out of place."""
        request, caller, server, modern = exchange.request, exchange.connection.caller, way.server, way.modern
        data = _one_line(request.body)
        try:
            message = parse_message(data, self._limits())
        except WireError:  # the session says so, and records it
            self._pooled(exchange, server, Line(data, request.start, request.end), None, modern=modern)
            return
        line = Line(data, request.start, request.end, message)
        if not modern and message.method == "initialize" and message.kind is Kind.REQUEST:
            self._begin(exchange, server, line)
        elif not modern and era_of(message) is not Era.MODERN:
            self._pooled(exchange, server, line, message, modern=False)
        else:
            try:
                if not way.routing.agrees(message):
                    demand_headers(request.head, message)
                if message.method == "tools/call":
                    known = self._annotations(server, caller.attested.result.uid, message.params.get("name"))
                    demand_params(request.head, message, known)
            except WireError as error:
                self._pooled(exchange, server, error, message, modern=True)
                return
            if message.kind is Kind.NOTIFICATION:
                exchange.accepted()  # a stream is cancelled by closing it, and there is nothing else to tell
            elif self._unproven(exchange, server, message):
                self._redirect(exchange, server)
            else:
                self._pooled(exchange, server, line, message, modern=True)

    def _unproven(self, exchange: HttpExchange, server: str, message: Message) -> bool:
        """Whether it may be older than the attestation, and was not sent again yet to an address that tells."""
        request, caller = exchange.request, exchange.connection.caller
        query = request.head.query
        told = (parse_qs(query).get("proof") or [""])[0] if query else ""
        if told and any(each.knows(told) for each in self._kept.get((server, *caller.bound), ())):
            caller.marks.shown(request.start)
        row = client_row(message.method or "")
        return row is not None and row.effectful and not told and request.start < caller.marks.old

    def _redirect(self, exchange: HttpExchange, server: str) -> None:
        """Have it sent again to an address that only the attested image is told."""
        kept = self._kept.get((server, *exchange.connection.caller.bound), ())
        session = next((each for each in kept if each.kind == "pool" and each.open), None)
        session = session or self._open(exchange, server, "pool", secrets.token_hex(8))
        if session is not None:
            session.modern = True
            address = f"{exchange.request.head.path}?proof={session.secret}"
            exchange.answer(307, (b"{}\n",), {"Location": address})

    def _begin(self, exchange: HttpExchange, server: str, line: Line) -> None:
        """``initialize``: a session of its own."""
        session = self._open(exchange, server, "session", secrets.token_urlsafe(32))
        if session is not None:
            session.submit(exchange, line)

    def _pooled(
        self, exchange: HttpExchange, server: str, line: Line | WireError, message: Message | None, *, modern: bool
    ) -> None:
        """The process's session without a name; another one where two requests have one id."""
        caller = exchange.connection.caller
        request_id = message.id if message is not None else None
        for session in self._kept.get((server, *caller.bound), ()):
            fits = session.kind == "pool" and session.modern is modern and session.open
            if fits and (request_id is None or not session.has(request_id)):
                session.submit(exchange, line, request_id)
                return
        opened = self._open(exchange, server, "pool", secrets.token_hex(8))
        if opened is not None:
            opened.modern = modern
            opened.submit(exchange, line, request_id)

    def _of_session(self, exchange: HttpExchange, server: str) -> None:
        """GET and DELETE."""
        head, caller = exchange.request.head, exchange.connection.caller
        name = demand_token(head, SESSION)
        if name is None:
            allowed = {"Allow": "POST"}
            exchange.refuse(405, f"this path serves {head.method} only within a session", allowed)
            return
        session = self._find(server, name, caller)
        if session is None or session.kind != "session":
            exchange.refuse(404, "there is no such session")
        elif head.method == "DELETE":
            session.leave()
            exchange.answer(200, (b"{}\n",))
        elif not exchange.takes_events:
            exchange.refuse(406, "cannot answer: expected text/event-stream in Accept")
        else:
            caller.marks.shown(exchange.request.start)
            why = session.attach(exchange, demand_token(head, LAST_EVENT))
            if why:
                self._refused(server, caller.peer, Cause.NOT_FOUND, why)
                exchange.refuse(404 if why.startswith("no") else 400, why)

    def _hear(self, exchange: HttpExchange, server: str) -> None:
        if not exchange.takes_events:
            exchange.refuse(406, "cannot answer: expected text/event-stream in Accept")
            return
        name = secrets.token_urlsafe(32)
        session = self._open(exchange, server, "events", name)
        if session is not None:
            session.hear(exchange, f"/{server}/message?sessionId={name}")

    # -- sessions ---------------------------------------------------------------------------------------------------

    def _find(self, server: str, name: str, caller: HttpCaller) -> HttpSession | None:
        session = self._named.get((server, name))
        if session is None or session.bound != caller.bound:
            what = "it is another process's" if session is not None else "it has ended or never was"
            self._refused(server, caller.peer, Cause.NOT_FOUND, f"no such session: {what}")
            return None
        return session

    def _outdated(self, caller: HttpCaller, server: str) -> bool:
        """Whether the process executed something since this connection was attested; recorded."""
        for session in self._kept.get((server, *caller.bound), ()):
            if session.watch is not caller.watch:
                break
        else:
            return False  # every session asks its own with every message
        cause = caller.watch.verify(caller.peer.pid)
        if cause is None:
            return False
        self._refused(server, caller.peer, cause, "the attested process changed after it made the connection")
        return True

    def _open(self, exchange: HttpExchange, server: str, kind: str, name: str) -> HttpSession | None:
        caller = exchange.connection.caller
        uid = caller.peer.uid
        if self._of_uid[uid] >= self._sessions_per_uid():
            self._refused(server, caller.peer, Cause.LIMIT_CONNECTIONS, f"uid {uid} has too many sessions")
            exchange.refuse(503, "attestd refused the request: too many sessions are open")
            return None
        key = (server, *caller.bound)
        kept = self._kept.setdefault(key, [])
        if len(kept) >= SESSIONS:
            min(kept, key=lambda each: each.used).close(Cause.LIMIT_CONNECTIONS, "the process began too many sessions")

        def ended(session: HttpSession, cause: str, text: str) -> None:
            self._named.pop((server, name), None)
            remaining = self._kept.get(key, [])
            if session in remaining:
                remaining.remove(session)
            if not remaining:
                self._kept.pop(key, None)
            self._of_uid[uid] -= 1
            del cause, text

        session = self._opener(server, kind, name, caller, ended)
        if session is None:
            if not kept:
                self._kept.pop(key, None)
            exchange.refuse(404, "nothing is served at this path")
            return None
        self._of_uid[uid] += 1
        self._kept.setdefault(key, kept).append(session)
        if kind != "pool":
            self._named[server, name] = session
        return session


def _place(path: str, own: str | None) -> tuple[str | None, str]:
    """Server and endpoint that a path names; on the socket of one server that server only."""
    parts = path.strip("/").split("/")
    if own is not None and path in {"/", "/mcp", "/sse", "/message"}:
        return own, parts[0] or "mcp"
    if len(parts) != 2 or (own is not None and parts[0] != own):
        return None, ""
    return parts[0], parts[1]


def _sealed(head: RequestHead, caller: HttpCaller) -> tuple[str | None, str]:
    """Server and endpoint on the port of a sealed server: every path but ``.well-known`` is its own."""
    parts = head.path.strip("/").split("/")
    if parts[0] == ".well-known":
        return None, ""
    if parts == [caller.server, "message"]:
        return caller.server, "message"
    hearing = head.method == "GET" and (parts[-1] == "sse" or head.path == caller.events)
    return caller.server, "sse" if hearing else "mcp"


def _one_line(body: bytes) -> bytes:
    """JSON may be laid out on several lines; ours is parsed as one. A raw line end inside a string stays an error."""
    body = body.strip(b" \t\r\n")
    if b"\n" not in body and b"\r" not in body:
        return body
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return body
    return body.replace(b"\r", b" ").replace(b"\n", b" ")
