"""What every link to an HTTP back end does: order, backpressure, failures, and what the server is told again.

A message of the client becomes an ``Item``, which a task carries to the server, or nobody as long as its answer is a
plain one. Order: what follows ``initialize`` waits for its answer, and what follows ``notifications/initialized`` waits
until it is accepted; everything else runs side by side, as HTTP does. An item that fails is answered as
``UnansweredError``, which says whether the server may have done it; it is never sent a second time unless the server is
known not to have taken it, or it has no effect.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from attestd.enforcement.effects import UnansweredError
from attestd.enforcement.farewells import Words
from attestd.enforcement.handshake import OWN_ID, Body, Handshake
from attestd.enforcement.http_client import HttpClient
from attestd.enforcement.http_wire import HttpConnection, HttpError
from attestd.enforcement.link import BAD_LINES, LinkOwner
from attestd.errors import Cause
from attestd.wire.methods import CLIENT_REQUESTS
from attestd.wire.model import Kind, Limits, WireError
from attestd.wire.outgoing_headers import modern_revision
from attestd.wire.repeated import ANNOTATION, Annotations, annotated
from attestd.wire.serialise import to_bytes
from attestd.wire.server import ServerMessage, parse_server_line, result_of

HIGH_BYTES: Final = 1 << 20
LOW_BYTES: Final = 1 << 18
HANDSHAKE_S: Final = 30.0
"""For each request that the link makes itself."""
SILENCE_S: Final = 3600.0
"""How long an ordinary request waits without a byte of the server."""
_EFFECTFUL: Final = frozenset(row.name for row in CLIENT_REQUESTS if row.effectful)
_OPENING: Final = frozenset({"initialize", "notifications/initialized"})
CANCELLED: Final = "notifications/cancelled"
_KEPT: Final = "cannot keep the session: "


class Item:
    """One message on its way to the server."""

    __slots__ = (
        "answered",
        "begun",
        "body",
        "data",
        "ended",
        "failure",
        "id",
        "internal",
        "method",
        "revision",
        "session",
        "task",
    )

    def __init__(self, body: Body, data: bytes, *, internal: bool = False) -> None:
        method, number = body.get("method"), body.get("id")
        self.body = body
        self.data = data
        self.method = method if isinstance(method, str) else ""
        self.id = number if self.method and isinstance(number, str | int) else None
        """Of a request; None: a notification, or an answer to the server."""
        self.revision = modern_revision(body)
        """Of the modern era only."""
        self.internal = internal
        """The link itself asks; nobody else is told."""
        self.answered: ServerMessage | None = None
        self.failure: HttpError | None = None
        """Its answer came and is not MCP."""
        self.ended: asyncio.Event | None = None
        """Of who waits for it: set when the answer is here or will not come."""
        self.task: asyncio.Task[None] | None = None
        self.begun: HttpConnection | None = None
        """Where it was sent without a task."""
        self.session: str | None = None
        """The server's session that it was sent in then."""

    @property
    def settled(self) -> bool:
        """Whether nothing more is waited for."""
        return self.answered is not None or self.failure is not None

    def end(self) -> None:
        """Its answer is here, or will not come."""
        if self.ended is not None:
            self.ended.set()

    @property
    def effectful(self) -> bool:
        """Whether it must not happen twice."""
        return self.method in _EFFECTFUL and self.method != "subscriptions/listen"


class HttpLink(ABC):
    """Implements ``connection.Link``."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        client: HttpClient,
        owner: LinkOwner,
        limits: Limits,
        annotations: dict[str, Annotations],
        farewell: Callable[[HttpClient, Words], None],
    ) -> None:
        """``annotations``: by tool, what the server's lists said; ``farewell``: see ``Farewells.say``.

        Every link to the server shares them.
        """
        self._loop = loop
        self._client = client
        self._owner = owner
        self._limits = limits
        self._annotations = annotations
        self._farewell = farewell
        self.handshake = Handshake()
        self._queue: deque[Item] = deque()
        self._gate: Item | None = None
        self._waiting: dict[str | int, Item] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._flow = asyncio.Event()
        self._flow.set()
        self._renewing = asyncio.Lock()
        self._unsent = 0
        self._open = True
        self.bad_lines = 0
        """Messages so far that were not MCP."""

    # -- Link -------------------------------------------------------------------------------------------------------

    @property
    def congested(self) -> bool:
        """Whether the client must wait."""
        return self._unsent > HIGH_BYTES

    def send(self, body: dict[str, Any], line: bytes | None = None) -> None:
        """One message to the server; ``line`` is its serialisation, where it is at hand."""
        if not self._open or (body.get("method") == CANCELLED and self._aborted(body)):
            return
        item = Item(body, to_bytes(body) if line is None else line.rstrip(b"\n"))
        self._unsent += len(item.data)
        if self._gate is not None or self._queue:
            self._queue.append(item)
        else:
            self._start(item)

    def finish(self) -> None:  # noqa: B027 - there is nothing to do
        """HTTP has no word for it; what was sent is still answered."""

    def pause(self) -> None:
        """Take no more messages: what comes waits in the connections, and then at the server."""
        self._flow.clear()

    def resume(self) -> None:
        """Take messages again."""
        self._flow.set()

    def close(self) -> None:
        """End the session with the server, and every connection."""
        if not self._open:
            return
        self._open = False
        self._queue.clear()
        for task in tuple(self._tasks):
            task.cancel()
        self._farewell(self._client, self._goodbye)

    # -- what a transport does --------------------------------------------------------------------------------------

    @abstractmethod
    async def _exchange(self, item: Item) -> None:
        """Carry one item to the server; a request until it is answered. Raises HttpError."""

    @abstractmethod
    async def _goodbye(self, client: HttpClient) -> None:
        """Tell the server that the session is over, over this client. Raises HttpError."""

    # -- items ------------------------------------------------------------------------------------------------------

    def _start(self, item: Item) -> None:
        if item.method in _OPENING:
            self._gate = item
        if item.id is not None:
            self._waiting[item.id] = item
        if not self._sent(item):
            self._carry(item, self._exchange)

    def _sent(self, item: Item) -> bool:
        """Whether it is on its way without a task: its answer is told to ``_plain``."""
        del item
        return False

    def _carry(self, item: Item, work: Callable[[Item], Awaitable[None]]) -> None:
        item.task = self._loop.create_task(self._run(item, work))  # a callback of it would be a turn of the loop more
        self._tasks.add(item.task)

    async def _run(self, item: Item, work: Callable[[Item], Awaitable[None]]) -> None:
        try:
            await work(item)
        except HttpError as failure:
            self._failed(item, failure)
        except Exception as error:  # noqa: BLE001 - told like that of any other task
            self._broken(error)
        finally:
            self._finished(item)

    def _plain(self, item: Item, content: bytes | None) -> None:
        """The answer to what ``_sent`` has sent; None: it is not plain, and a task's."""
        if content is None:
            self._carry(item, self._exchange)
            return
        if item.begun is not None:
            self._client.release(item.begun)
            item.begun = None
        if not self._flow.is_set():
            self._carry(item, partial(self._delivered, content))
            return
        try:
            self._take(content, item)
            demand_answer(item)
        except HttpError as failure:
            self._failed(item, failure)
        except Exception as error:  # noqa: BLE001 - as in a task
            self._broken(error)
        finally:
            self._finished(item)

    async def _delivered(self, content: bytes, item: Item) -> None:
        await self._receive(content, item)
        demand_answer(item)

    def _finished(self, item: Item) -> None:
        """Nothing more is done about it. Idempotent."""
        self._left(item)
        item.end()
        if item.task is not None:
            self._tasks.discard(item.task)
        if item.id is not None and self._waiting.get(item.id) is item:
            del self._waiting[item.id]
        if self._gate is item:
            self._gate = None
            while self._open and self._queue and self._gate is None:
                self._start(self._queue.popleft())

    def _left(self, item: Item) -> None:
        """Its bytes are not ours any more."""
        size, item.data = len(item.data), b""
        before = self._unsent
        self._unsent -= 0 if item.internal else size
        if self._open and before > LOW_BYTES >= self._unsent:
            self._owner.server_relieved()

    def _failed(self, item: Item, failure: HttpError) -> None:
        if self._open and item.id is not None and item.answered is None and not item.internal:
            text = failure.message + ("; it may have been done" if failure.sent and item.effectful else "")
            error = UnansweredError(failure.cause, text, request_id=item.id, sent=failure.sent)
            self._owner.server_malformed(item.id, error)

    def _aborted(self, body: Body) -> bool:
        """In the modern era a request is cancelled by closing its stream; there is no message for it."""
        params = body.get("params")
        number = params.get("requestId") if isinstance(params, dict) else None
        item = self._waiting.get(number) if isinstance(number, str | int) else None
        if item is None or item.revision is None:
            return modern_revision(body) is not None
        if item.task is not None:
            item.task.cancel()
        if item.begun is not None:
            self._client.drop(item.begun)
            item.begun = None
        self._finished(item)  # a task that had not begun to run will not
        self._loop.call_soon(self._failed, item, HttpError("it was cancelled", sent=True))
        return True

    async def _ask(self, body: Body) -> ServerMessage | None:
        """A request or notification of the link itself. Raises HttpError."""
        item = Item(body, to_bytes(body), internal=True)
        if item.id is not None:
            self._waiting[item.id] = item
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await self._exchange(item)
        except TimeoutError as error:
            raise HttpError(f"{_KEPT}no answer to {item.method} in {HANDSHAKE_S:.0f} s", sent=False) from error
        finally:
            if item.id is not None:
                self._waiting.pop(item.id, None)
        return item.answered

    async def _again(self) -> None:
        """Tell a server that has forgotten the session what it knew. Raises HttpError."""
        if not self.handshake.repeatable:
            raise HttpError(f"{_KEPT}the server has forgotten it, and it was never initialised", sent=False)
        agreed, bodies = self.handshake.revision, self.handshake.afterwards()
        answer = await self._ask(self.handshake.again())
        if answer is None or answer.kind is Kind.ERROR or self.handshake.revision != agreed:
            text = f"the server was restarted and does not speak revision {agreed} any more: connect again"
            self._gone(Cause.SERVER_UNAVAILABLE, text)
            raise HttpError(text, sent=False)
        for body in bodies:
            await self._ask(body)

    # -- messages of the server -------------------------------------------------------------------------------------

    async def _receive(self, data: bytes, item: Item | None) -> None:
        """One message of the server; ``item`` is the request whose answer it may be."""
        if not self._flow.is_set():
            await self._flow.wait()
        self._take(data, item)

    def _take(self, data: bytes, item: Item | None) -> None:
        if not self._open:
            return
        try:
            message = parse_server_line(data.replace(b"\n", b" "), self._limits)
        except WireError as error:
            self._malformed(error, item)
        else:
            self._arrived(message)

    def _arrived(self, message: ServerMessage) -> None:
        if message.kind in (Kind.RESULT, Kind.ERROR):
            item = self._waiting.get(message.id) if message.id is not None else None
            if item is None or item.settled:
                return  # an answer to nothing
            item.answered = message
            item.end()
            self.handshake.answered(item.body, message)
            if item.method == "tools/list":
                self._learn(message)
            if item.internal:
                return
        if not (isinstance(message.id, str) and message.id.startswith(OWN_ID)):
            self._owner.server_message(message)

    def _malformed(self, error: WireError, item: Item | None) -> None:
        self.bad_lines += 1
        if error.request_id is not None:
            item = self._waiting.get(error.request_id)
        if item is not None and not item.settled:
            item.failure = HttpError(error.message, sent=True, cause=Cause.SERVER_MALFORMED)
            item.end()
        if self.bad_lines >= BAD_LINES:
            self._gone(Cause.SERVER_MALFORMED, f"the server sent {BAD_LINES} messages that are not MCP")

    def _learn(self, message: ServerMessage) -> None:
        """Which arguments of its tools the server wants in headers."""
        if message.result is None:
            return
        if not self._annotations and ANNOTATION.encode() not in bytes(message.result):
            return
        try:
            listed = annotated(result_of(message, self._limits))
        except WireError:
            return  # the session says so
        for tool, found in listed.items():
            if found:
                self._annotations[tool] = found
            else:
                self._annotations.pop(tool, None)

    # -- the end ----------------------------------------------------------------------------------------------------

    def _gone(self, cause: Cause, text: str) -> None:
        if self._open:
            self.close()
            self._owner.server_gone(cause, text)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._broken(error)

    def _broken(self, error: BaseException) -> None:
        """An error that nobody expects is our bug: the client is told, and so is the loop."""
        self._loop.call_exception_handler({"message": "a link to an HTTP server failed", "exception": error})
        self._gone(Cause.INTERNAL, f"{type(error).__name__}: {error}"[:256])


def demand_answer(item: Item) -> None:
    """What came was its answer. Raises HttpError."""
    if item.answered is None:
        text = f"the server ended its answer to {item.method} without a result"
        raise item.failure or HttpError(text, sent=True, cause=Cause.SERVER_UNAVAILABLE)
