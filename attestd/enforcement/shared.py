"""One back end for many callers: ids, progress tokens and subscriptions are mapped, so that no caller meets another's.

For servers declared ``shared``. The back end is initialised once, by attestd; each client gets that answer to its own
``initialize``. What cannot be given to exactly one caller is given to none: requests of the server are answered with
an error, log messages are dropped. A shared back end speaks the legacy era only (its handshake belongs to the
process), so ``server/discover`` is answered "method not found" and clients fall back to ``initialize``. A caller that
does not read is disconnected before it can hold back the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from attestd.enforcement.link import Attached, Link, ServerError
from attestd.errors import Cause
from attestd.wire.model import Kind, Limits, WireError
from attestd.wire.serialise import to_line
from attestd.wire.server import ServerMessage, parse_server_line, result_of
from attestd.wire.uris import canonical

REVISION = "2025-11-25"
HANDSHAKE_S = 30.0
BACKLOG_BYTES = 32 << 20
SUBSCRIPTIONS = 256
"""Of one caller."""
DROPPED = frozenset({"notifications/initialized", "notifications/roots/list_changed", "notifications/progress"})
"""Notifications of a client that mean nothing to a back end that it does not own."""
Body = dict[str, Any]


class SharedServer:
    """The back end of one shared server and everybody who is attached to it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        open_link: Callable[[SharedServer], Awaitable[Link]],
        limits: Limits,
        version: str,
    ) -> None:
        self._loop = loop
        self._open_link = open_link
        self._limits = limits
        self._version = version
        self._link: Link | None = None
        self._ready: asyncio.Future[Body] | None = None
        self._links: set[SharedLink] = set()
        self._closed = False
        self._next = 0
        self._requests: dict[int, tuple[SharedLink, str | int]] = {}
        self._tokens: dict[int, tuple[SharedLink, object]] = {}
        self._subscribers: dict[str, set[SharedLink]] = {}

    async def attach(self, connection: Attached) -> SharedLink:
        """A link for one session; starts and initialises the back end if it does not run. Raises ServerError."""
        if self._ready is None:
            self._ready = self._loop.create_future()
            await self._start(self._ready)
        ready = self._ready
        await asyncio.wait((ready,), timeout=HANDSHAKE_S)
        if not ready.done():
            self._unusable(f"the shared server did not answer initialize in {HANDSHAKE_S:.0f} s")
        initialised = await ready
        link = SharedLink(self, connection, initialised)
        self._links.add(link)
        return link

    def close(self) -> None:
        """End the back end for good."""
        self._closed = True
        self._release()
        if self._ready is not None and not self._ready.done():
            self._failed(self._ready, ServerError(Cause.SHUTTING_DOWN, "the shared server was closed"))

    def _release(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    @staticmethod
    def _failed(ready: asyncio.Future[Body], error: ServerError) -> None:
        ready.set_exception(error)
        ready.exception()  # whoever waits gets it; nobody need

    async def _start(self, ready: asyncio.Future[Body]) -> None:
        try:
            link = await self._open_link(self)
        except BaseException as error:
            self._ready = None
            if not ready.done():
                unexpected = ServerError(Cause.INTERNAL, f"{type(error).__name__}: {error}"[:256])
                self._failed(ready, error if isinstance(error, ServerError) else unexpected)
            raise
        if self._closed:
            link.close()
            raise ServerError(Cause.SHUTTING_DOWN, "the shared server was closed")
        self._link = link
        capabilities: Body = {}
        params = {
            "protocolVersion": REVISION,
            "capabilities": capabilities,
            "clientInfo": {"name": "attestd", "version": self._version},
        }
        self._link.send({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})

    # -- from the sessions ------------------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Nothing waits here: a caller that does not read is disconnected."""
        return 0

    @property
    def congested(self) -> bool:
        """Whether the back end takes no more for now."""
        return self._link is not None and self._link.congested

    def send(self, link: SharedLink, body: Body) -> None:
        """One message of one session, mapped."""
        if self._link is None:
            return
        method = body.get("method")
        if "id" in body and method is not None:
            mapped = self._request(link, body)
        elif method == "notifications/cancelled":
            mapped = self._cancelled(link, body)
        else:
            mapped = None if method is None or method in DROPPED else body
        if mapped is not None:
            self._link.send(mapped)

    def answer(self, body: Body) -> ServerMessage:
        """A message of our own making, as if the server had sent it."""
        return _message(body, self._limits)

    def detach(self, link: SharedLink) -> None:
        """The session is over: its requests are cancelled, its subscriptions end."""
        self._links.discard(link)
        for mapped in [n for n, (owner, _) in self._requests.items() if owner is link]:
            del self._requests[mapped]
            if self._link is not None:
                params = {"requestId": mapped, "reason": "the caller has gone"}
                self._link.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
        for token in [n for n, (owner, _) in self._tokens.items() if owner is link]:
            del self._tokens[token]
        for uri in [u for u, owners in self._subscribers.items() if link in owners]:
            if self._unsubscribed(link, uri) and self._link is not None:
                self._next += 1
                self._link.send(
                    {"jsonrpc": "2.0", "id": self._next, "method": "resources/unsubscribe", "params": {"uri": uri}}
                )

    def _request(self, link: SharedLink, body: Body) -> Body | None:
        params = body.get("params")
        params = dict(params) if isinstance(params, dict) else {}
        original = body["id"]
        if not isinstance(original, str | int):
            return None
        uri = _one_spelling(params)
        if body["method"] == "resources/subscribe":
            if sum(link in owners for owners in self._subscribers.values()) >= SUBSCRIPTIONS:
                error = {"code": -32603, "message": f"attestd keeps {SUBSCRIPTIONS} subscriptions of one caller"}
                link.deliver(self.answer({"jsonrpc": "2.0", "id": original, "error": error}))
                return None
            self._subscribers.setdefault(uri, set()).add(link)
        elif body["method"] == "resources/unsubscribe" and not self._unsubscribed(link, uri):
            link.deliver(self.answer({"jsonrpc": "2.0", "id": original, "result": {}}))
            return None
        self._next += 1
        self._requests[self._next] = (link, original)
        meta = params.get("_meta")
        if isinstance(meta, dict) and "progressToken" in meta:
            self._tokens[self._next] = (link, meta["progressToken"])
            params["_meta"] = {**meta, "progressToken": self._next}
        mapped = {**body, "id": self._next}
        if "params" in body:
            mapped["params"] = params
        return mapped

    def _cancelled(self, link: SharedLink, body: Body) -> Body | None:
        params = body.get("params")
        wanted = params.get("requestId") if isinstance(params, dict) else None
        for mapped, (owner, original) in self._requests.items():
            if owner is link and original == wanted and type(original) is type(wanted):
                return {**body, "params": {**(params if isinstance(params, dict) else {}), "requestId": mapped}}
        return None

    def _unsubscribed(self, link: SharedLink, uri: str) -> bool:
        """Whether the last subscriber of ``uri`` has gone."""
        owners = self._subscribers.get(uri, set())
        owners.discard(link)
        if not owners:
            self._subscribers.pop(uri, None)
        return not owners

    # -- from the back end ------------------------------------------------------------------------------------------

    def server_message(self, message: ServerMessage) -> None:
        """Give each message to the one session that it belongs to, or to none."""
        if message.kind in (Kind.RESULT, Kind.ERROR):
            self._response(message)
        elif message.kind is Kind.REQUEST:
            self._refuse_request(message)
        else:
            self._notification(message)

    def server_malformed(self, request_id: str | int, error: WireError) -> None:
        """Tell the one session whose request will not be answered."""
        if request_id == 0 and self._ready is not None and not self._ready.done():
            self._unusable(f"the shared server's answer to initialize is malformed: {error.message}")
            return
        if not isinstance(request_id, int):
            return
        entry = self._requests.pop(request_id, None)
        self._tokens.pop(request_id, None)
        if entry is not None:
            link, original = entry
            link.malformed(original, error)

    def server_streams(self, request_id: str | int) -> None:
        """Tell the one session whose request is answered."""
        entry = self._requests.get(request_id) if isinstance(request_id, int) else None
        if entry is not None:
            link, original = entry
            link.streams(original)

    def server_gone(self, cause: Cause, text: str) -> None:
        """The back end ended: every session ends with it; the next caller starts it again."""
        self._link = None
        ready, self._ready = self._ready, None
        if ready is not None and not ready.done():
            self._failed(ready, ServerError(cause, text))
        links, self._links = self._links, set()
        self._requests.clear()
        self._tokens.clear()
        self._subscribers.clear()
        for link in links:
            link.gone(cause, text)

    def server_relieved(self) -> None:
        """The back end takes bytes again."""
        for link in list(self._links):
            link.relieved()

    def _response(self, message: ServerMessage) -> None:
        if message.id == 0 and self._ready is not None and not self._ready.done():
            self._initialised(message, self._ready)
            return
        if not isinstance(message.id, int):
            return
        entry = self._requests.pop(message.id, None)
        self._tokens.pop(message.id, None)
        if entry is not None:
            link, original = entry
            self._deliver(link, msgspec.structs.replace(message, id=original))

    def _initialised(self, message: ServerMessage, ready: asyncio.Future[Body]) -> None:
        if message.kind is not Kind.RESULT or self._link is None:
            self._unusable("the shared server refused initialize")
            return
        try:
            result = result_of(message, self._limits)
        except WireError as error:
            self._unusable(f"the shared server's answer to initialize is malformed: {error.message}")
            return
        self._link.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        ready.set_result(result)

    def _unusable(self, text: str) -> None:
        self._release()
        self.server_gone(Cause.SERVER_UNAVAILABLE, text)

    def _refuse_request(self, message: ServerMessage) -> None:
        if self._link is None or message.id is None:
            return
        if message.method == "ping":
            self._link.send({"jsonrpc": "2.0", "id": message.id, "result": {}})
            return
        error = {"code": -32601, "message": "a shared server cannot ask one of its callers"}
        self._link.send({"jsonrpc": "2.0", "id": message.id, "error": error})

    def _notification(self, message: ServerMessage) -> None:
        match message.method:
            case "notifications/progress":
                token = message.params.get("progressToken")
                entry = self._tokens.get(token) if isinstance(token, int) else None
                if entry is not None:
                    params = {**message.params, "progressToken": entry[1]}
                    body = {"jsonrpc": "2.0", "method": message.method, "params": params}
                    self._deliver(entry[0], self.answer(body))
            case "notifications/resources/updated":
                for link in list(self._subscribers.get(_one_spelling(message.params), ())):
                    self._deliver(link, message)
            case "notifications/cancelled" | "notifications/message":
                pass
            case _:
                for link in list(self._links):
                    self._deliver(link, message)

    def _deliver(self, link: SharedLink, message: ServerMessage) -> None:
        if link.backlog > BACKLOG_BYTES:
            self.detach(link)
            link.gone(Cause.LIMIT_REQUESTS, "the client does not read its answers")
            return
        link.deliver(message)


class SharedLink:
    """One session's way to a shared back end."""

    def __init__(self, server: SharedServer, connection: Attached, initialised: Body) -> None:
        self._server = server
        self._connection = connection
        self._initialised = initialised

    @property
    def congested(self) -> bool:
        """Whether the client must wait."""
        return self._server.congested

    @property
    def backlog(self) -> int:
        """Bytes that wait for the client."""
        return self._connection.backlog

    def send(self, body: Body, line: bytes | None = None) -> None:
        """One message of the session; its serialisation is of no use here, because ids change."""
        del line
        method = body.get("method")
        if method == "initialize":
            self.deliver(self._server.answer({"jsonrpc": "2.0", "id": body["id"], "result": self._initialised}))
        elif method == "server/discover":
            error = {"code": -32601, "message": "this server is shared and speaks revisions up to " + REVISION}
            self.deliver(self._server.answer({"jsonrpc": "2.0", "id": body["id"], "error": error}))
        else:
            self._server.send(self, body)

    def finish(self) -> None:
        """The client is done; the back end lives on."""

    def pause(self) -> None:
        """Nothing: the others must not wait."""

    def resume(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Let go."""
        self._server.detach(self)

    def deliver(self, message: ServerMessage) -> None:
        """To the session."""
        self._connection.server_message(message)

    def malformed(self, request_id: str | int, error: WireError) -> None:
        """The answer to a request of the session is not MCP."""
        self._connection.server_malformed(request_id, error)

    def streams(self, request_id: str | int) -> None:
        """The answer to a request of the session has begun as a stream."""
        self._connection.server_streams(request_id)

    def gone(self, cause: Cause, text: str) -> None:
        """The back end is gone for this session."""
        self._connection.server_gone(cause, text)

    def relieved(self) -> None:
        """The back end takes bytes again."""
        self._connection.server_relieved()


def _one_spelling(params: Body) -> str:
    """Of a resource, so that nobody ends another's subscription under a name that the server takes for the same."""
    try:
        return canonical(params.get("uri"))
    except WireError:
        return str(params.get("uri", ""))


def _message(body: Body, limits: Limits) -> ServerMessage:
    return parse_server_line(to_line(body).rstrip(b"\n"), limits)
