"""A relay hands over its client's own descriptors, and what stands in their way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from typing import Any

from attestd.enforcement.client_end import DECLINED, OFFER, TAKEN, take
from attestd.enforcement.effects import State
from attestd.evidence.model import InputHolders
from tests.support.dialogue import ask, call
from tests.support.streams import Far
from tests.support.waiting import until
from tests.support.wired import Wired


class Stdio:
    """What a relay offers: the far ends of two pipes, and the client's ends."""

    def __init__(self) -> None:
        self.source, self.writes = os.pipe()
        self.reads, self.sink = os.pipe()
        self.kept = os.dup(self.sink)

    def take(self, fds: tuple[int, ...]) -> Any:
        """As the daemon does after the attestation."""
        found = InputHolders(kind="pipe", pids=(), complete=True, ino=os.fstat(self.source).st_ino)
        return take(fds, found, os.getpid(), frozenset())

    def offer(self, client: Far) -> None:
        """As the shim does; the offered descriptors are not ours any more."""
        client.sock.setblocking(True)
        socket.send_fds(client.sock, [OFFER], [self.source, self.sink])
        client.sock.setblocking(False)

    async def answer(self) -> Any:
        """The next message that reaches the client."""
        data = b""
        while not data.endswith(b"\n"):
            data += await asyncio.to_thread(os.read, self.reads, 1 << 20)
        return json.loads(data)

    def close(self) -> None:
        """Release everything."""
        for fd in (self.source, self.sink, self.kept, self.reads, self.writes):
            with contextlib.suppress(OSError):
                os.close(fd)


async def test_a_relay_steps_aside():
    """Its client's descriptors serve in its place, large answers and the end of the input included."""
    stdio = Stdio()
    wired = Wired(take=stdio.take)
    stdio.offer(wired.client)
    assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(wired.client.sock, 9), 5) == TAKEN
    hello = ask("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, 0)
    os.write(stdio.writes, json.dumps(hello).encode() + b"\n" + json.dumps(call("echo", 1)).encode() + b"\n")
    server = await wired.server()
    assert (await server.message())["method"] == "initialize"
    assert (await server.message())["method"] == "tools/call"
    text = "x" * (1 << 20)
    await server.send({"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": text}]}})
    assert (await stdio.answer())["result"]["content"][0]["text"] == text
    os.close(stdio.writes)
    await until(lambda: wired.connection.session.state is not State.OPEN)
    await wired.close()
    stdio.close()


async def test_an_offer_that_cannot_be_taken_leaves_the_relay_in_place():
    """It is told so in one byte, and its bytes count as before."""
    stdio = Stdio()
    wired = Wired(take=lambda fds: take(fds, None, 1, frozenset()))
    stdio.offer(wired.client)
    assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(wired.client.sock, 9), 5) == DECLINED
    await wired.initialize()
    await wired.close()
    stdio.close()


async def test_a_relay_that_offers_nothing_relays():
    """Older shims and terminals: the first bytes are the client's, and descriptors beside them are dropped."""
    stdio = Stdio()
    wired = Wired(take=stdio.take)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted
    socket.send_fds(wired.client.sock, [b"{"], [stdio.source, stdio.sink])
    await wired.client.send(b"}\n")
    assert (await wired.client.message())["error"]["code"] == -32600
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - counted
    await wired.initialize()
    await wired.close()
    stdio.close()


async def test_only_a_relay_is_asked_for_its_descriptors():
    """The same first byte from anybody else is a malformed message."""
    stdio = Stdio()
    wired = Wired()
    stdio.offer(wired.client)
    await wired.client.send(b"\n")
    assert "error" in await wired.client.message()
    await wired.close()
    stdio.close()
