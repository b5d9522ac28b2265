"""The last words to a server: in turn, on few connections, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from attestd.enforcement import farewells as module
from attestd.enforcement.farewells import Farewells, Words
from attestd.enforcement.http_client import HttpClient
from attestd.enforcement.http_wire import HttpError
from tests.fakes.http_peer import HttpPeer, PlainDoor
from tests.support.waiting import until


class Stage:
    """A server, and clients of links to it."""

    def __init__(self, peer: HttpPeer) -> None:
        self.peer = peer
        self.door = PlainDoor(peer.port)
        self.farewells = Farewells(asyncio.get_running_loop(), self.door)
        self.told: list[str] = []

    def client(self) -> HttpClient:
        """Of one link."""
        return HttpClient(asyncio.get_running_loop(), self.door)

    def words(self, name: str) -> Words:
        """The end of the session of this name."""

        async def say(client: HttpClient) -> None:
            exchange = await client.request("DELETE", [("Mcp-Session-Id", name)], b"", repeatable=True)
            await exchange.content(100)
            exchange.close()
            self.told.append(name)

        return say


@pytest.fixture(name="stage")
async def _stage() -> AsyncIterator[Stage]:
    peer = HttpPeer()
    await peer.start()
    stage = Stage(peer)
    yield stage
    stage.farewells.close()
    peer.stop()


async def test_the_idle_connection_of_a_closed_link_says_it_for_all(stage: Stage):
    """No other connection is made as long as that one is enough; the link's client is closed."""
    first = stage.client()
    await first.prepare()
    caller = await stage.peer.caller()
    stage.farewells.say(first, stage.words("a"))
    assert (first.connections, len(stage.farewells.speaking)) == (0, 1)
    for name in ("a", "b"):
        request = await caller.request()
        assert (request.method, request.headers["mcp-session-id"]) == ("DELETE", name)
        await caller.answer(200, b"{}")
        await until(lambda: not stage.farewells.speaking)
        if name == "a":
            stage.farewells.say(stage.client(), stage.words("b"))
    assert stage.told == ["a", "b"]
    assert stage.peer.none()


async def test_a_crowd_takes_few_connections(stage: Stage):
    """Each of fifty sessions is told of once."""

    async def serve() -> None:
        caller = await stage.peer.caller()
        while True:
            await caller.request()
            await caller.answer(200, b"{}")

    serving = [asyncio.ensure_future(serve()) for _ in range(module.IDLE_MAX)]
    for number in range(50):
        stage.farewells.say(stage.client(), stage.words(str(number)))
    assert len(stage.farewells.speaking) == module.IDLE_MAX
    await until(lambda: not stage.farewells.speaking)
    assert sorted(stage.told, key=int) == [str(number) for number in range(50)]
    assert stage.peer.none()
    for each in serving:
        each.cancel()


async def test_a_server_that_does_not_answer(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    """What waited for too long is not said any more."""
    monkeypatch.setattr(module, "FAREWELL_S", 0.1)
    for number in range(3 * module.IDLE_MAX):
        stage.farewells.say(stage.client(), stage.words(str(number)))
    done, left = await asyncio.wait(stage.farewells.speaking, timeout=5)
    assert (len(done), left, stage.told) == (module.IDLE_MAX, set(), [])


async def test_words_that_fail(stage: Stage):
    """The next ones are said all the same."""

    async def fail(client: HttpClient) -> None:
        del client
        raise HttpError("no", sent=False)

    stage.farewells.say(stage.client(), fail)
    stage.farewells.say(stage.client(), stage.words("a"))
    caller = await stage.peer.caller()
    await caller.request()
    await caller.answer(200, b"{}")
    await until(lambda: stage.told == ["a"])


async def test_closing(stage: Stage):
    """Nothing more is said, and no connection stays."""
    stage.farewells.say(stage.client(), stage.words("a"))
    caller = await stage.peer.caller()
    await caller.request()
    speaking = list(stage.farewells.speaking)
    stage.farewells.close()
    await asyncio.wait(speaking, timeout=5)
    assert await caller.ended()
    assert stage.told == []
