"""What links over HTTP have in common: order, backpressure, failures, and an end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from attestd.enforcement import http_link
from attestd.enforcement.effects import UnansweredError
from attestd.enforcement.http_link import HIGH_BYTES, HttpLink, Item
from attestd.enforcement.http_wire import HttpError
from attestd.enforcement.link import ServerError
from attestd.errors import Cause
from attestd.wire.model import Limits
from tests.fakes.http_peer import Owner

CALL = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "x"}}
MODERN = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}


class Nobody:
    """An ``HttpClient`` that only closes."""

    closed = 0

    def close(self) -> None:
        """Count."""
        self.closed += 1


class Script(HttpLink):
    """A link whose exchanges the test ends."""

    def __init__(self, owner: Owner) -> None:
        self.client = Nobody()
        self.farewells: list[Any] = []
        super().__init__(
            loop=asyncio.get_running_loop(),
            client=self.client,  # type: ignore[arg-type]
            owner=owner,
            limits=Limits(),
            annotations={},
            farewell=self._bid,
        )
        self.items: list[Item] = []
        self.ends: dict[str, asyncio.Future[bytes]] = {}
        self.goodbyes = 0

    async def _exchange(self, item: Item) -> None:
        self.items.append(item)
        end = self.ends.setdefault(item.method, asyncio.get_running_loop().create_future())
        answer = await end
        self._left(item)
        if answer:
            await self._receive(answer, item)

    def _bid(self, client: Any, words: Any) -> None:
        self.farewells.append((client, words))

    async def _goodbye(self, client: Any) -> None:
        del client
        self.goodbyes += 1

    async def turn(self) -> list[str]:
        """Let the loop run; the methods that are under way."""
        for _ in range(5):
            await asyncio.sleep(0)
        return [item.method for item in self.items]

    def end(self, method: str, answer: bytes = b"") -> None:
        """The exchange of this method is over."""
        self.ends[method].set_result(answer)


@pytest.fixture(name="owner")
def _owner() -> Owner:
    return Owner()


@pytest.fixture(name="link")
async def _link(owner: Owner) -> Any:
    link = Script(owner)
    yield link
    link.close()


def notification(method: str, **params: Any) -> dict[str, Any]:
    """A message without an id."""
    return {"jsonrpc": "2.0", "method": method, "params": params}


async def test_order_of_the_handshake(link: Script, owner: Owner):
    """What follows initialize waits for its answer, what follows the notification until it is accepted."""
    link.send({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}})
    link.send(notification("notifications/initialized"))
    link.send(CALL)
    link.send({"jsonrpc": "2.0", "id": 8, "method": "tools/list"})
    assert await link.turn() == ["initialize"]
    link.end("initialize", b'{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25"}}')
    assert await link.turn() == ["initialize", "notifications/initialized"]
    assert owner.messages[0].id == 1
    link.end("notifications/initialized")
    assert await link.turn() == ["initialize", "notifications/initialized", "tools/call", "tools/list"]


async def test_congestion(link: Script, owner: Owner):
    """Above the mark the client must wait until what is queued has left."""
    link.send(CALL, b"x" * HIGH_BYTES)
    assert not link.congested
    link.send({**CALL, "id": 8}, b"x")
    assert link.congested
    await link.turn()
    link.end("tools/call")
    await link.turn()
    assert not link.congested
    assert owner.relieved == 1


async def test_a_client_that_does_not_read(link: Script, owner: Owner):
    """While paused nothing is delivered; then everything is."""
    link.pause()
    link.send(CALL)
    await link.turn()
    link.end("tools/call", b'{"jsonrpc":"2.0","id":7,"result":{}}')
    await link.turn()
    assert owner.messages == []
    link.resume()
    await link.turn()
    assert owner.messages[0].id == 7


@pytest.mark.parametrize(
    ("method", "sent", "told"), [("tools/call", True, True), ("tools/call", False, False), ("tools/list", True, False)]
)
async def test_a_failure_says_whether_it_may_have_been_done(
    link: Script, owner: Owner, method: str, sent: bool, told: bool
):
    """The request is answered with the cause; where it may have had its effect, the text says so."""
    link.send({**CALL, "method": method})
    await link.turn()
    link.ends[method].set_exception(HttpError("it broke", sent=sent))
    error = await owner.answer(7)
    assert isinstance(error, UnansweredError)
    assert (error.cause, error.sent) == (Cause.SERVER_UNAVAILABLE, sent)
    assert ("it may have been done" in error.message) is told


async def test_answers_to_nothing_and_answers_twice(link: Script, owner: Owner):
    """They are dropped."""
    link.send(CALL)
    await link.turn()
    await link._receive(b'{"jsonrpc":"2.0","id":99,"result":{}}', None)
    await link._receive(b'{"jsonrpc":"2.0","id":7,"result":{}}', None)
    await link._receive(b'{"jsonrpc":"2.0","id":7,"result":{"again":true}}', None)
    assert [message.id for message in owner.messages] == [7]


async def test_an_answer_that_is_not_mcp(link: Script, owner: Owner):
    """Its request fails as malformed; too many bad messages end the link."""
    link.send(CALL)
    await link.turn()
    await link._receive(b'{"jsonrpc":"2.0","id":7,"result":5}', None)
    assert link.items[0].settled
    assert link.items[0].failure is not None
    for _ in range(http_link.BAD_LINES):
        await link._receive(b"nonsense", None)
    assert owner.gone[0][0] is Cause.SERVER_MALFORMED


async def test_a_modern_request_is_cancelled_by_closing_it(link: Script, owner: Owner):
    """No message goes out; the exchange ends, and the request is given back."""
    link.send({**CALL, "params": MODERN})
    await link.turn()
    link.send(notification("notifications/cancelled", requestId=7))
    error = await owner.answer(7)
    assert isinstance(error, UnansweredError)
    assert await link.turn() == ["tools/call"]
    link.send({**notification("notifications/cancelled", requestId=99), "params": {"requestId": 99, **MODERN}})
    assert await link.turn() == ["tools/call"]


async def test_a_legacy_cancellation_is_a_message(link: Script, owner: Owner):
    """It goes to the server, and the request stays open."""
    link.send(CALL)
    link.send(notification("notifications/cancelled", requestId=7))
    assert await link.turn() == ["tools/call", "notifications/cancelled"]
    assert owner.failures == {}


async def test_what_the_lists_say_about_headers(link: Script):
    """Annotations are learned from tools/list, replaced, and forgotten."""
    for properties, expected in (
        ({"a": {"type": "string", "x-mcp-header": "A"}}, {"t": {("a",): "A"}}),
        ({"b": {"type": "string", "x-mcp-header": "B"}}, {"t": {("b",): "B"}}),
        ({}, {}),
    ):
        link.ends.pop("tools/list", None)
        link.send({"jsonrpc": "2.0", "id": 3, "method": "tools/list"})
        await link.turn()
        tool = {"name": "t", "inputSchema": {"type": "object", "properties": properties}}
        message = {"jsonrpc": "2.0", "id": 3, "result": {"tools": [tool]}}
        link.end("tools/list", http_link.to_bytes(message))
        await link.turn()
        assert link._annotations == expected


async def test_closing(link: Script, owner: Owner):
    """Everything under way ends without a word to the client, the server is told goodbye, and nothing is sent."""
    link.send(CALL)
    await link.turn()
    link.close()
    link.close()
    link.send(CALL)
    link.finish()
    assert await link.turn() == ["tools/call"]
    assert (owner.messages, owner.failures, owner.gone) == ([], {}, [])
    ((client, words),) = link.farewells
    await words(client)
    assert (link.goodbyes, client) == (1, link.client)


async def test_a_bug_ends_the_link(link: Script, owner: Owner):
    """The client is told, and so is the loop."""
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
    link.send(CALL)
    await link.turn()
    link.ends["tools/call"].set_exception(ZeroDivisionError("oops"))
    assert await owner.ended() == (Cause.INTERNAL, "ZeroDivisionError: oops")
    assert isinstance(told[0], ZeroDivisionError)


def test_causes_of_the_door_are_kept():
    """A refusal to connect keeps its cause."""
    assert ServerError(Cause.SERVER_UNTRUSTED, "x").cause is Cause.SERVER_UNTRUSTED
