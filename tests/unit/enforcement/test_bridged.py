"""The link with the bridge in it: order, silence, congestion, and the ends of both sides."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from attestd.enforcement.bridge_effects import Eras
from attestd.enforcement.bridged import BridgedLink
from attestd.errors import Cause
from attestd.wire.model import WireError
from attestd.wire.serialise import to_line
from attestd.wire.server import ServerMessage, parse_server_line
from tests.support.bridging import LIMITS, REFUSES, Talk, discovery, handshake, meta, told


class Link:
    """A back end's link that remembers what it was sent, and may answer at once."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.lines: list[bytes | None] = []
        self.did: list[str] = []
        self.congested = False
        self.at_once: Any = None

    def send(self, body: dict[str, Any], line: bytes | None = None) -> None:
        self.sent.append(body)
        self.lines.append(line)
        if self.at_once is not None:
            self.at_once(body)

    def finish(self) -> None:
        self.did.append("finish")

    def pause(self) -> None:
        self.did.append("pause")

    def resume(self) -> None:
        self.did.append("resume")

    def close(self) -> None:
        self.did.append("close")


class Owner:
    """A session that remembers what it was shown."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []
        self.malformed: list[tuple[Any, Cause]] = []
        self.did: list[Any] = []
        self.backlog = 3

    def server_message(self, message: ServerMessage) -> None:
        self.shown.append(told(message))

    def server_malformed(self, request_id: Any, error: WireError) -> None:
        self.malformed.append((request_id, error.cause))

    def server_streams(self, request_id: Any) -> None:
        self.did.append(request_id)

    def server_gone(self, cause: Cause, text: str) -> None:
        self.did.append((cause, text))

    def server_relieved(self) -> None:
        self.did.append("relieved")


@pytest.fixture(name="parts")
async def _parts() -> tuple[BridgedLink, Link, Owner]:
    link, owner = Link(), Owner()
    bridged = BridgedLink(asyncio.get_running_loop(), owner, Talk().setting, Eras(), ask_s=0.05)
    bridged.attach(link)
    return bridged, link, owner


def message(**body: Any) -> ServerMessage:
    """A message of the server."""
    return parse_server_line(to_line({"jsonrpc": "2.0", **body})[:-1], LIMITS)


DISCOVER = {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": meta()}}


async def test_native_messages_pass_with_their_lines(parts: tuple[BridgedLink, Link, Owner]):
    """What needs no translation is not serialised again."""
    bridged, link, owner = parts
    bridged.send(DISCOVER, b"first\n")
    bridged.server_message(message(id=1, result=discovery()))
    bridged.send({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}, b"second\n")
    assert link.lines == [b"first\n", b"second\n"]
    assert owner.shown[0]["id"] == 1


async def test_a_stream_is_told_of_where_nothing_is_translated(parts: tuple[BridgedLink, Link, Owner]):
    """The answer to a translated request may still need a status of its own."""
    bridged, _, owner = parts
    bridged.send(DISCOVER)
    bridged.server_streams(1)
    assert owner.did == []
    bridged.server_message(message(id=1, result=discovery()))
    bridged.server_streams(2)
    assert owner.did == ["relieved", 2]


async def test_the_client_waits_while_the_server_is_asked(parts: tuple[BridgedLink, Link, Owner]):
    """Congested until the era is known, then relieved."""
    bridged, link, owner = parts
    bridged.send(DISCOVER)
    assert bridged.congested
    bridged.server_message(message(id=1, error=REFUSES))
    assert bridged.congested
    bridged.server_message(message(id="attestd-initialize", result=handshake()))
    assert not bridged.congested
    assert owner.did == ["relieved"]
    link.congested = True
    assert bridged.congested


async def test_silence_counts_as_a_legacy_server(parts: tuple[BridgedLink, Link, Owner]):
    """After a while the server is asked the other question, and after another while the client is refused."""
    bridged, link, owner = parts
    bridged.send(DISCOVER)
    async with asyncio.timeout(5):
        while not owner.malformed:
            await asyncio.sleep(0.01)
    assert [body["method"] for body in link.sent] == ["server/discover", "initialize"]
    assert owner.malformed == [(1, Cause.ERA)]


async def test_a_link_that_answers_at_once(parts: tuple[BridgedLink, Link, Owner]):
    """An answer that comes while the question is still being sent is looked at after it, in order."""
    bridged, link, owner = parts

    def answer(body: dict[str, Any]) -> None:
        if body.get("method") == "server/discover":
            bridged.server_message(message(id=body["id"], error=REFUSES))
        elif body.get("method") == "initialize":
            bridged.server_message(message(id=body["id"], result=handshake()))

    link.at_once = answer
    bridged.send(DISCOVER)
    assert [body["method"] for body in link.sent] == ["server/discover", "initialize", "notifications/initialized"]
    assert owner.shown[0]["result"]["resultType"] == "complete"


async def test_the_ends(parts: tuple[BridgedLink, Link, Owner]):
    """The server's end reaches the session, the session's the link; afterwards nothing is sent."""
    bridged, link, owner = parts
    assert bridged.backlog == 3
    bridged.pause()
    bridged.resume()
    bridged.finish()
    bridged.server_relieved()
    bridged.close()
    bridged.send(DISCOVER)
    assert link.did == ["pause", "resume", "finish", "close"]
    assert link.sent == []
    bridged.server_gone(Cause.SERVER_UNAVAILABLE, "it ended")
    assert owner.did == ["relieved", (Cause.SERVER_UNAVAILABLE, "it ended")]


async def test_what_is_malformed_keeps_its_reason(parts: tuple[BridgedLink, Link, Owner]):
    """An answer that is not MCP reaches the session under the client's id."""
    bridged, _link, owner = parts
    bridged.send({"jsonrpc": "2.0", "id": 4, "method": "ping"})
    bridged.server_malformed(4, WireError(Cause.MALFORMED, "garbled"))
    assert owner.malformed == [(4, Cause.MALFORMED)]
