"""Opening links to HTTP back ends: what the links of one server share, and how they end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from attestd.daemon import http_backs
from attestd.daemon.backs import Backs
from attestd.daemon.config import ServerSettings
from attestd.daemon.http_backs import HttpBacks
from attestd.enforcement.link import ServerError
from attestd.enforcement.sse_link import SseLink
from attestd.enforcement.streamable_link import StreamableLink
from attestd.enforcement.workers import Workers
from attestd.errors import Cause
from attestd.evidence.acceptors import Acceptor
from attestd.wire.model import Limits
from tests.fakes.http_peer import HttpPeer, Owner
from tests.fakes.kernel import OneProcess
from tests.fakes.launcher import FakeLauncher
from tests.fakes.pins import Pins
from tests.support.evidence import evidence_of, python_client, shell


class Always:
    """Implements ``Acceptors``: process 7 has accepted every connection."""

    def find(self, sock_fd: int, near: object) -> Acceptor:
        """At once."""
        del sock_fd, near
        return Acceptor(cookie=1, inode=2, uid=0, pids=(7,))

    def holds(self, pid: int, acceptor: Acceptor) -> bool:
        """Whether it is 7."""
        return (pid, acceptor.inode) == (7, 2)


class Bench:
    """HTTP back ends over a kernel of one process and a server in the test's hands."""

    def __init__(self, peer: HttpPeer) -> None:
        self.peer = peer
        self.kernel = OneProcess(evidence_of(python_client("/srv/server.py", uid=os.geteuid()), shell()))
        self.workers = Workers(1, "backs")
        self.seen: list[str] = []
        loop = asyncio.get_running_loop()
        backs = Backs(
            loop=loop,
            launcher=FakeLauncher(),
            kernel=self.kernel,
            workers=self.workers,
            attest_seconds=lambda: 10.0,
            seen=lambda name, _image: self.seen.append(name),
        )
        self.backs = HttpBacks(
            loop=loop,
            backs=backs,
            acceptors=Always(),
            pins=Pins(),
            pinned=lambda _: None,
            state=lambda *_: None,
            let_through=lambda _: None,
        )

    def server(self, **changes: Any) -> ServerSettings:
        """At the peer."""
        url = f"http://127.0.0.1:{self.peer.port}/mcp"
        return ServerSettings(**{"name": "far", "transport": "http", "url": url, **changes})

    async def open(self, **changes: Any) -> Any:
        """A link."""
        return await self.backs.open(self.server(**changes), Owner(), Limits())


@pytest.fixture(name="bench")
async def _bench() -> AsyncIterator[Bench]:
    peer = HttpPeer()
    await peer.start()
    bench = Bench(peer)
    yield bench
    await bench.backs.close()
    assert bench.kernel.open == 0
    bench.workers.shutdown()
    peer.stop()


async def test_links_of_one_server_share_its_door(bench: Bench):
    """The process is looked at once; each link connects before it is handed out, and has its own connections."""
    first, second = await bench.open(), await bench.open()
    assert isinstance(first, StreamableLink)
    await bench.peer.caller()
    await bench.peer.caller()
    assert bench.seen == ["far"]
    assert len(bench.kernel.watches) == 1
    assert first._annotations is second._annotations
    first.close()
    second.close()


async def test_a_changed_server_has_a_new_door(bench: Bench):
    """What was remembered of the old one is let go."""
    (await bench.open()).close()
    (await bench.open(shared=True)).close()
    assert len(bench.kernel.watches) == 2
    assert bench.kernel.open == 1
    bench.backs.forget("far")
    bench.backs.forget("far")
    assert bench.kernel.open == 0


async def test_a_legacy_server_is_open_when_it_named_its_endpoint(bench: Bench):
    """Only then is the link handed out."""
    opening = asyncio.ensure_future(bench.open(transport="sse"))
    caller = await bench.peer.caller()
    await caller.request()
    await caller.stream()
    await caller.event("/post", name="endpoint")
    link = await opening
    assert isinstance(link, SseLink)
    link.close()


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_a_server_that_is_not_there(bench: Bench, transport: str):
    """The refusal has the cause, and nothing stays open."""
    bench.peer.stop()
    with pytest.raises(ServerError) as found:
        await bench.open(transport=transport)
    assert found.value.cause is Cause.SERVER_UNAVAILABLE


async def test_a_secret_that_cannot_be_read(bench: Bench, tmp_path: Path):
    """Nothing is connected."""
    with pytest.raises(ServerError):
        await bench.open(token_file=str(tmp_path / "missing"))
    assert bench.peer.none()


async def test_closing_waits_for_the_last_words(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """A server that remembers a session is told, but is not waited for without end."""
    monkeypatch.setattr(http_backs, "FAREWELL_S", 0.2)
    link = await bench.open()
    link.handshake.session_id = "s-1"
    caller = await bench.peer.caller()
    link.close()
    closing = asyncio.ensure_future(bench.backs.close())
    request = await caller.request()
    assert (request.method, request.headers["mcp-session-id"]) == ("DELETE", "s-1")
    await asyncio.wait_for(closing, 5)
