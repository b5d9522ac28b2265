"""One back end for many callers: what is mapped, what is told to whom, what to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from attestd.enforcement import shared
from attestd.enforcement.link import LinkOwner, ServerError, StreamLink
from attestd.enforcement.outbox import HIGH_BYTES
from attestd.enforcement.shared import BACKLOG_BYTES, SharedLink, SharedServer
from attestd.errors import Cause
from attestd.wire.model import Kind, Limits, WireError
from attestd.wire.server import ServerMessage, result_of
from tests.fakes.backs import SocketBack
from tests.support.dialogue import ask, call, tell
from tests.support.waiting import until

LIMITS = Limits()
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}


class Caller:
    """Implements ``Attached``: keeps what it is told."""

    def __init__(self) -> None:
        self.backlog = 0
        self.messages: list[ServerMessage] = []
        self.malformed: list[tuple[str | int, str]] = []
        self.gone: list[tuple[Cause, str]] = []
        self.relieved = 0
        self.streams: list[str | int] = []
        self.link: SharedLink

    def server_message(self, message: ServerMessage) -> None:
        self.messages.append(message)

    def server_malformed(self, request_id: str | int, error: WireError) -> None:
        self.malformed.append((request_id, error.message))

    def server_streams(self, request_id: str | int) -> None:
        self.streams.append(request_id)

    def server_gone(self, cause: Cause, text: str) -> None:
        self.gone.append((cause, text))

    def server_relieved(self) -> None:
        self.relieved += 1

    @property
    def results(self) -> dict[Any, Any]:
        """By id."""
        return {m.id: result_of(m, LIMITS) for m in self.messages if m.kind is Kind.RESULT}


class Hub:
    """A shared server and its far end."""

    def __init__(self) -> None:
        self.backs: list[SocketBack] = []
        self.trouble: BaseException | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.server = SharedServer(asyncio.get_running_loop(), self._open, LIMITS, "0.1")

    async def _open(self, owner: LinkOwner) -> StreamLink:
        await self.go_on.wait()
        if self.trouble is not None:
            raise self.trouble
        self.backs.append(SocketBack())
        return StreamLink(asyncio.get_running_loop(), self.backs[-1], owner, LIMITS)

    @property
    def far(self) -> Any:
        """The server's end."""
        return self.backs[-1].far

    async def hello(self, number: int) -> None:
        """The server's half of the handshake, for the back end of this number."""
        await until(lambda: len(self.backs) == number)
        first = await self.far.message()
        assert (first["method"], first["id"]) == ("initialize", 0)
        await self.far.send({"jsonrpc": "2.0", "id": 0, "result": HELLO})
        assert (await self.far.message())["method"] == "notifications/initialized"

    async def callers(self, count: int) -> list[Caller]:
        """So many attached callers, after the handshake."""
        found, before = [Caller() for _ in range(count)], len(self.backs)
        attaching = [asyncio.ensure_future(self.server.attach(caller)) for caller in found]
        await self.hello(before + 1)
        for caller, task in zip(found, attaching, strict=True):
            caller.link = await task
        return found


@pytest.fixture(name="hub")
async def _hub() -> AsyncIterator[Hub]:
    hub = Hub()
    yield hub
    hub.server.close()
    for back in hub.backs:
        back.far.close()


async def test_the_back_end_is_started_and_initialised_once(hub: Hub):
    """Each caller gets that one answer to its own initialize, on its own id; the server hears of none of them."""
    one, two = await hub.callers(2)
    one.link.send(ask("initialize", {"protocolVersion": "2024-11-05"}, "a"))
    two.link.send(ask("initialize", {"protocolVersion": "2025-11-25"}, 0))
    assert one.results == {"a": HELLO}
    assert two.results == {0: HELLO}
    assert len(hub.backs) == 1
    one.link.send(call("echo", 5))
    assert (await hub.far.message())["method"] == "tools/call"


async def test_equal_ids_of_two_callers_do_not_meet(hub: Hub):
    """Ids are mapped to the server's and back, text stays text, and each gets its own answer."""
    one, two = await hub.callers(2)
    one.link.send(call("a", 1))
    two.link.send(call("b", 1))
    one.link.send(call("c", "1"))
    asked = [await hub.far.message() for _ in range(3)]
    assert len({each["id"] for each in asked}) == 3
    for each in reversed(asked):
        await hub.far.send({"jsonrpc": "2.0", "id": each["id"], "result": {"tool": each["params"]["name"]}})
    await until(lambda: len(one.messages) == 2 and len(two.messages) == 1)
    assert one.results == {1: {"tool": "a"}, "1": {"tool": "c"}}
    assert two.results == {1: {"tool": "b"}}


async def test_an_answer_that_begins_as_a_stream(hub: Hub):
    """Only the caller whose request it answers is told, by its own id."""
    one, two = await hub.callers(2)
    one.link.send(call("a", 1))
    two.link.send(call("b", "x"))
    asked = {each["params"]["name"]: each["id"] for each in [await hub.far.message() for _ in range(2)]}
    hub.server.server_streams(asked["b"])
    hub.server.server_streams(99)
    assert (one.streams, two.streams) == ([], ["x"])


async def test_an_answer_to_nobody_is_dropped(hub: Hub):
    """An id that was never given, was answered, or is no number, reaches no caller."""
    (one,) = await hub.callers(1)
    one.link.send(call("a", 1))
    mapped = (await hub.far.message())["id"]
    for message_id in (999, "1", mapped, mapped):
        await hub.far.send({"jsonrpc": "2.0", "id": message_id, "result": {}})
    await until(lambda: bool(one.messages))
    await asyncio.sleep(0.02)
    assert [m.id for m in one.messages] == [1]


async def test_errors_keep_their_way(hub: Hub):
    """An error of the server reaches the caller that asked."""
    one, two = await hub.callers(2)
    two.link.send(call("a", 3))
    mapped = (await hub.far.message())["id"]
    await hub.far.send({"jsonrpc": "2.0", "id": mapped, "error": {"code": -1, "message": "no"}})
    await until(lambda: bool(two.messages))
    assert (two.messages[0].kind, two.messages[0].id) == (Kind.ERROR, 3)
    assert one.messages == []


async def test_progress_tokens_are_mapped(hub: Hub):
    """Two callers with one token each hear of their own request only, under their own token."""
    one, two = await hub.callers(2)
    for caller in (one, two):
        caller.link.send(call("a", 1, _meta={"progressToken": "t", "x": 1}))
    asked = [await hub.far.message() for _ in range(2)]
    tokens = [each["params"]["_meta"]["progressToken"] for each in asked]
    assert len(set(tokens)) == 2
    assert asked[0]["params"]["_meta"]["x"] == 1
    await hub.far.send(tell("notifications/progress", {"progressToken": tokens[1], "progress": 5}))
    await until(lambda: bool(two.messages))
    assert two.messages[0].params == {"progressToken": "t", "progress": 5}
    await hub.far.send(tell("notifications/progress", {"progressToken": "t", "progress": 5}))
    await hub.far.send({"jsonrpc": "2.0", "id": asked[1]["id"], "result": {}})
    await hub.far.send(tell("notifications/progress", {"progressToken": tokens[1], "progress": 6}))
    await until(lambda: len(two.messages) == 2)
    assert one.messages == []


async def test_a_cancellation_names_the_mapped_request(hub: Hub):
    """A caller cancels its own request, in the server's numbers; another's, or one of another type, it cannot name."""
    one, two = await hub.callers(2)
    one.link.send(call("a", 1))
    mapped = (await hub.far.message())["id"]
    two.link.send(tell("notifications/cancelled", {"requestId": 1}))
    one.link.send(tell("notifications/cancelled", {"requestId": "1"}))
    one.link.send(tell("notifications/cancelled", {"requestId": 1, "reason": "enough"}))
    cancelled = await hub.far.message()
    assert cancelled["params"] == {"requestId": mapped, "reason": "enough"}


async def test_notifications_of_a_caller_are_kept_from_the_server(hub: Hub):
    """The server was initialised once; what one caller says about its own state is nothing to it."""
    (one,) = await hub.callers(1)
    for method in ("notifications/initialized", "notifications/roots/list_changed", "notifications/progress"):
        one.link.send(tell(method, {}))
    one.link.send({"jsonrpc": "2.0", "id": 4, "result": {}})
    one.link.send(call("a", 1))
    assert (await hub.far.message())["method"] == "tools/call"


async def test_subscriptions_are_counted(hub: Hub):
    """News of a resource reach who subscribed; the server is unsubscribed by the last of them only."""
    one, two = await hub.callers(2)
    for caller in (one, two):
        caller.link.send(ask("resources/subscribe", {"uri": "file:///a"}, 1))
        await hub.far.message()
    news = tell("notifications/resources/updated", {"uri": "file:///a"})
    await hub.far.send(news, tell("notifications/resources/updated", {"uri": "file:///b"}))
    await until(lambda: bool(one.messages) and bool(two.messages))
    one.link.send(ask("resources/unsubscribe", {"uri": "file:///a"}, 2))
    assert one.results == {2: {}}
    await hub.far.send(news)
    await until(lambda: len(two.messages) == 2)
    assert len(one.messages) == 2
    two.link.send(ask("resources/unsubscribe", {"uri": "file:///a"}, 2))
    assert (await hub.far.message())["method"] == "resources/unsubscribe"


async def test_another_spelling_ends_nobody_elses_subscription(hub: Hub):
    """Python servers take FILE:///a for file:///a, and would end what the other caller subscribed."""
    one, two = await hub.callers(2)
    two.link.send(ask("resources/subscribe", {"uri": "file:///a"}, 1))
    await hub.far.message()
    one.link.send(ask("resources/unsubscribe", {"uri": "FILE:///%61"}, 1))
    assert one.results == {1: {}}
    two.link.send(ask("resources/unsubscribe", {"uri": "file://localhost/a"}, 2))
    assert (await hub.far.message())["method"] == "resources/unsubscribe"


async def test_subscriptions_of_one_caller_are_bounded(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    """One more is answered with an error and not passed on; another caller still has its own."""
    monkeypatch.setattr(shared, "SUBSCRIPTIONS", 2)
    one, two = await hub.callers(2)
    for number in range(3):
        one.link.send(ask("resources/subscribe", {"uri": f"file:///{number}"}, number))
    two.link.send(ask("resources/subscribe", {"uri": "file:///mine"}, 1))
    passed = [(await hub.far.message())["params"]["uri"] for _ in range(3)]
    assert passed == ["file:///0", "file:///1", "file:///mine"]
    (refused,) = one.messages
    assert (refused.id, refused.kind) == (2, Kind.ERROR)


async def test_a_caller_that_leaves_takes_everything_along(hub: Hub):
    """Its requests are cancelled, its subscriptions end, and late answers go nowhere."""
    one, two = await hub.callers(2)
    one.link.send(ask("resources/subscribe", {"uri": "file:///a"}, 1))
    subscribed = (await hub.far.message())["id"]
    one.link.send(call("a", 2, _meta={"progressToken": "t"}))
    mapped = (await hub.far.message())["id"]
    one.link.close()
    gone = [await hub.far.message() for _ in range(3)]
    assert [each["params"]["requestId"] for each in gone[:2]] == [subscribed, mapped]
    assert (gone[2]["method"], gone[2]["params"]) == ("resources/unsubscribe", {"uri": "file:///a"})
    await hub.far.send({"jsonrpc": "2.0", "id": mapped, "result": {}})
    await hub.far.send(tell("notifications/progress", {"progressToken": mapped, "progress": 1}))
    two.link.send(call("b", 1))
    await hub.far.send({"jsonrpc": "2.0", "id": (await hub.far.message())["id"], "result": {}})
    await until(lambda: bool(two.messages))
    assert one.messages == []
    assert one.gone == []


async def test_questions_of_the_server_are_answered_by_us(hub: Hub):
    """A shared server cannot ask one of its callers; its ping is answered."""
    one, two = await hub.callers(2)
    await hub.far.send(ask("ping", None, 7), ask("sampling/createMessage", {}, 8))
    assert await hub.far.message() == {"jsonrpc": "2.0", "id": 7, "result": {}}
    refused = await hub.far.message()
    assert (refused["id"], refused["error"]["code"]) == (8, -32601)
    assert one.messages == two.messages == []


async def test_what_is_for_nobody_in_particular(hub: Hub):
    """List changes reach everybody; log messages, which may hold another's data, reach nobody."""
    one, two = await hub.callers(2)
    await hub.far.send(tell("notifications/message", {"level": "info", "data": "secret of one"}))
    await hub.far.send(tell("notifications/cancelled", {"requestId": 1}))
    await hub.far.send(tell("notifications/tools/list_changed"))
    await until(lambda: bool(one.messages) and bool(two.messages))
    assert [m.method for m in (*one.messages, *two.messages)] == ["notifications/tools/list_changed"] * 2


async def test_the_modern_era_is_declined(hub: Hub):
    """server/discover is answered "method not found", which makes clients fall back to initialize."""
    (one,) = await hub.callers(1)
    one.link.send(ask("server/discover", {}, 1))
    assert one.messages[0].kind is Kind.ERROR
    assert one.messages[0].error["code"] == -32601


async def test_a_malformed_answer_is_told_to_its_caller(hub: Hub):
    """Only the one that waits for it hears of it, under its own id."""
    one, two = await hub.callers(2)
    two.link.send(call("a", "x"))
    mapped = (await hub.far.message())["id"]
    await hub.far.send(b'{"jsonrpc":"2.0","id":%d,"result":{"a":1,"a":2}}\n' % mapped)
    await until(lambda: bool(two.malformed))
    assert two.malformed[0][0] == "x"
    await hub.far.send(b'{"jsonrpc":"2.0","id":"text","result":{"a":1,"a":2}}\n')
    await hub.far.send({"jsonrpc": "2.0", "id": mapped, "result": {}})
    await asyncio.sleep(0.02)
    assert one.malformed == []
    assert two.messages == []


async def test_the_end_of_the_server_reaches_every_caller(hub: Hub):
    """All sessions end with the reason; the next caller starts it again."""
    one, two = await hub.callers(2)
    hub.far.close()
    await until(lambda: bool(one.gone) and bool(two.gone))
    assert one.gone == [(Cause.SERVER_UNAVAILABLE, "the server exited with status 3")]
    one.link.send(call("a", 1))  # into nothing
    await hub.callers(1)
    assert len(hub.backs) == 2


@pytest.mark.parametrize("answer", [{"error": {"code": -1, "message": "no"}}, {"result": {"a": "\x00" * 3}}])
async def test_a_server_that_refuses_initialize(hub: Hub, answer: dict[str, Any]):
    """An error to initialize puts every waiting caller off; any result is taken as the server wrote it."""
    caller = Caller()
    attaching = asyncio.ensure_future(hub.server.attach(caller))
    await until(lambda: bool(hub.backs))
    await hub.far.message()
    await hub.far.send({"jsonrpc": "2.0", "id": 0, **answer})
    if "result" in answer:
        assert isinstance(await attaching, SharedLink)
        return
    with pytest.raises(ServerError, match="refused initialize") as found:
        await attaching
    assert found.value.cause is Cause.SERVER_UNAVAILABLE


@pytest.mark.parametrize(
    "line",
    [b'{"jsonrpc":"2.0","id":0,"result":{"a":1,"a":2}}\n', b'{"jsonrpc":"2.0","id":0,"result":{"b":{"a":1,"a":2}}}\n'],
)
async def test_a_malformed_answer_to_initialize(hub: Hub, line: bytes):
    """A handshake that is not MCP ends the back end, and the caller is told why; the next one may try again."""
    attaching = asyncio.ensure_future(hub.server.attach(Caller()))
    await until(lambda: bool(hub.backs))
    await hub.far.message()
    await hub.far.send(line)
    with pytest.raises(ServerError, match="malformed"):
        await attaching
    assert hub.backs[0].stopped == 1
    await hub.callers(1)


async def test_a_server_that_does_not_answer_initialize(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    """After the time every waiting caller is put off, and the next one meets a new process."""
    monkeypatch.setattr(shared, "HANDSHAKE_S", 0.05)
    attaching = [asyncio.ensure_future(hub.server.attach(Caller())) for _ in range(2)]
    for each in attaching:
        with pytest.raises(ServerError, match="did not answer initialize"):
            await each
    assert hub.backs[0].stopped == 1
    monkeypatch.setattr(shared, "HANDSHAKE_S", 10)
    await hub.callers(1)


@pytest.mark.parametrize("trouble", [ServerError(Cause.SERVER_UNTRUSTED, "a stranger listens"), KeyError("bug")])
async def test_a_server_that_cannot_be_started(hub: Hub, trouble: Exception):
    """Everybody who waits is told; the next caller tries anew."""
    hub.trouble = trouble
    hub.go_on.clear()
    first, second = (asyncio.ensure_future(hub.server.attach(Caller())) for _ in range(2))
    await asyncio.sleep(0)
    hub.go_on.set()
    with pytest.raises(type(trouble)):
        await first
    with pytest.raises(ServerError):
        await second
    hub.trouble = None
    await hub.callers(1)


async def test_closing_while_it_starts_leaves_nothing_behind(hub: Hub):
    """A back end that is ready too late is stopped at once, and nobody waits on."""
    hub.go_on.clear()
    first, second = (asyncio.ensure_future(hub.server.attach(Caller())) for _ in range(2))
    await asyncio.sleep(0)
    hub.server.close()
    hub.go_on.set()
    for each in (first, second):
        with pytest.raises(ServerError, match="closed"):
            await each
    assert hub.backs[0].stopped == 1


async def test_a_caller_that_does_not_read_is_put_off(hub: Hub):
    """Its backlog would grow in our memory: it is disconnected, and the others go on."""
    one, two = await hub.callers(2)
    one.backlog = BACKLOG_BYTES + 1
    await hub.far.send(tell("notifications/tools/list_changed"))
    await until(lambda: bool(one.gone) and bool(two.messages))
    assert one.gone[0][0] is Cause.LIMIT_REQUESTS
    assert one.messages == []
    one.link.pause()
    one.link.resume()
    one.link.finish()
    await hub.far.send(tell("notifications/tools/list_changed"))
    await until(lambda: len(two.messages) == 2)


async def test_a_server_that_does_not_read_congests_everybody(hub: Hub):
    """Callers must wait while the server takes nothing, and are relieved when it reads on; nothing is lost."""
    one, two = await hub.callers(2)
    assert not two.link.congested
    count = 0
    while not one.link.congested:
        count += 1
        one.link.send(call("a", count, pad="x" * 100_000))
    assert two.link.congested
    assert count * 100_000 > HIGH_BYTES
    assert [(await hub.far.message())["params"]["name"] for _ in range(count)] == ["a"] * count
    await until(lambda: one.relieved == 1 and two.relieved == 1)
    assert not two.link.congested
    assert two.link.backlog == 0
