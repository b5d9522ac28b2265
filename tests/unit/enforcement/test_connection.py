"""A client's socket, its session and a back end, over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from attestd.enforcement.effects import State
from attestd.enforcement.link import ServerError
from attestd.errors import Cause
from tests.support.dialogue import ask, call, tell
from tests.support.waiting import until
from tests.support.wired import Wired


@pytest.fixture(name="wired")
async def _wired() -> AsyncIterator[Wired]:
    wired = Wired()
    yield wired
    await wired.close()


async def test_a_call_goes_through_and_its_answer_back(wired: Wired):
    """The back end is started by the first message that is forwarded, and not before."""
    assert wired.backs == []
    await wired.initialize()
    await wired.client.send(call("echo", 1))
    server = await wired.server()
    assert await server.message() == call("echo", 1)
    await server.send({"jsonrpc": "2.0", "id": 1, "result": {"content": []}})
    assert await wired.client.message() == {"jsonrpc": "2.0", "id": 1, "result": {"content": []}}
    assert len(wired.backs) == 1


async def test_a_refused_caller_starts_no_server(wired: Wired):
    """Who may not connect costs no process, and gets an answer."""
    wired.caller.admitted = False
    await wired.client.send(ask("initialize", {"protocolVersion": "2025-11-25"}))
    assert (await wired.client.message())["error"]["data"]["cause"] == "no_grant"
    assert wired.backs == []
    assert wired.ended == []


async def test_a_call_in_flight_is_cancelled_when_its_grant_goes(wired: Wired):
    """The client has its refusal at once, the server the cancellation, and its late answer goes nowhere."""
    await wired.initialize()
    server = await wired.server()
    await wired.client.send(call("echo", 1))
    assert await server.message() == call("echo", 1)
    wired.caller.allowed.clear()
    wired.connection.grants_changed()
    assert (await wired.client.message())["error"]["data"]["cause"] == "out_of_scope"
    assert (await server.message())["params"]["requestId"] == 1
    await server.send({"jsonrpc": "2.0", "id": 1, "result": {}}, {"jsonrpc": "2.0", "id": 0, "result": {}})
    await wired.client.send(ask("ping", None, 2))
    assert (await server.message())["method"] == "ping"
    await server.send({"jsonrpc": "2.0", "id": 2, "result": {}})
    assert (await wired.client.message())["id"] == 2


async def test_a_call_that_waits_for_the_server_to_start_is_never_sent(wired: Wired):
    """What was not sent has no effect: it is taken back, and its id is free again."""
    wired.opening.clear()
    await wired.client.send(call("echo", 1))
    await until(lambda: bool(wired.connection.session.outstanding))
    wired.caller.allowed.clear()
    wired.connection.grants_changed()
    assert (await wired.client.message())["error"]["data"]["cause"] == "out_of_scope"
    assert wired.connection.session.outstanding == {}
    wired.opening.set()
    server = await wired.server()
    await wired.client.send(ask("ping", None, 1))
    assert (await server.message())["method"] == "ping"


async def test_a_message_in_pieces_is_one_message(wired: Wired):
    """However the bytes arrive, the line counts."""
    await wired.initialize()
    data = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}\r\n'
    for position in range(0, len(data), 7):
        await wired.client.send(data[position : position + 7])
        await asyncio.sleep(0)
    assert (await (await wired.server()).message())["params"] == {"name": "echo"}


async def test_requests_that_come_while_the_server_starts_arrive_in_order(wired: Wired):
    """Nothing is lost between the first request and the moment the back end runs."""
    wired.opening.clear()
    first = [ask("initialize", {"protocolVersion": "2025-11-25"}, 0), call("echo", 1), call("echo", 2)]
    await wired.client.send(b"".join(json.dumps(each).encode() + b"\n" for each in first))
    await until(lambda: wired.connection.session.calls == 3)
    await wired.client.send(call("echo", 3))
    wired.opening.set()
    server = await wired.server()
    assert [(await server.message())["id"] for _ in range(4)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [
        (ServerError(Cause.SERVER_UNTRUSTED, "another program listens there"), "server_untrusted"),
        (ServerError(Cause.SERVER_UNAVAILABLE, "no such file"), "server_unavailable"),
    ],
)
async def test_a_server_that_cannot_be_opened_is_said_to_be_so(wired: Wired, trouble: ServerError, cause: str):
    """What waits is refused with the reason; the connection stays, and the next request tries again."""
    wired.trouble = trouble
    await wired.client.send(ask("initialize", {"protocolVersion": "2025-11-25"}))
    error = (await wired.client.message())["error"]
    assert error["data"]["cause"] == cause
    assert trouble.message in error["message"]
    assert wired.ended == []
    wired.trouble = None
    await wired.initialize()


async def test_a_bug_while_opening_ends_the_session_and_is_reported(wired: Wired):
    """The client is not left waiting, and the loop's handler hears of it."""
    heard: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: heard.append(context["exception"]))
    wired.trouble = KeyError("front")
    await wired.client.send(ask("initialize", {"protocolVersion": "2025-11-25"}))
    assert (await wired.client.message())["error"]["data"]["cause"] == "internal"
    assert await wired.client.message() is None
    assert heard == [wired.trouble]


async def test_a_session_that_ends_while_its_server_starts_lets_go_of_it(wired: Wired):
    """The back end that comes too late is closed at once."""
    wired.opening.clear()
    await wired.client.send(ask("initialize", {"protocolVersion": "2025-11-25"}))
    await until(lambda: wired.connection.session.calls == 1)
    wired.connection.close(Cause.SHUTTING_DOWN, "attestd is stopping")
    wired.opening.set()
    await until(lambda: bool(wired.backs))
    await until(lambda: wired.backs[0].stopped == 1)


async def test_half_a_message_and_the_end_is_answered(wired: Wired):
    """A client that closes in the middle of a message is told that it was malformed, then the connection ends."""
    await wired.client.send(b'{"jsonrpc":"2.0","id":3,"method":"tools/ca')
    wired.client.sock.shutdown(socket.SHUT_WR)
    answer = await wired.client.message()
    assert answer["id"] == 3
    assert answer["error"]["data"]["cause"] == "malformed"
    assert "ended inside a line" in answer["error"]["message"]
    assert await wired.client.message() is None
    assert wired.audit.causes() == ["malformed"]


async def test_a_client_that_closes_its_side_still_gets_its_answer(wired: Wired):
    """Half-closed is not gone: what is open is answered, then both sides end."""
    await wired.initialize()
    await wired.client.send(call("echo", 1))
    server = await wired.server()
    await server.message()
    wired.client.sock.shutdown(socket.SHUT_WR)
    await until(lambda: wired.connection.session.state is State.DRAINING)
    await server.send({"jsonrpc": "2.0", "id": 1, "result": {}})
    assert (await wired.client.message())["id"] == 1
    assert await wired.client.message() is None
    await until(lambda: wired.backs[0].stopped == 1)
    assert wired.ended == [("", "the client closed the connection")]


async def test_a_client_that_vanishes_ends_its_server(wired: Wired):
    """Writing to a client that has gone ends the session and its back end."""
    await wired.initialize()
    server = await wired.server()
    wired.client.close()
    await server.send(tell("notifications/message", {"level": "info", "data": "x"}))
    await until(lambda: bool(wired.ended))
    await until(lambda: wired.backs[0].stopped == 1)
    assert wired.watch.closed


async def test_bytes_of_another_process_end_the_session():
    """The kernel names the writer of every read; a stranger's bytes are never parsed."""
    wired = Wired(peer_pid=1)
    await wired.client.send(b"not even a lin")
    assert (await wired.client.message())["error"]["data"]["cause"] == "writer_mismatch"
    assert await wired.client.message() is None
    assert wired.ended[0][0] == "writer_mismatch"
    assert wired.audit.causes() == ["writer_mismatch"]
    await wired.close()


async def test_an_exit_of_the_peer_ends_the_session_without_a_message(wired: Wired):
    """The pidfd becomes readable, and the session looks at once."""
    await wired.initialize()
    wired.caller.changed = Cause.PEER_GONE
    os.write(wired.exit_end, b"x")
    assert await wired.client.message() is None
    assert wired.ended[0][0] == "peer_gone"
    assert wired.watch.closed


async def test_a_tick_looks_without_a_message(wired: Wired):
    """The periodic look ends a session whose process executed another program."""
    await wired.initialize()
    wired.connection.tick()
    assert wired.ended == []
    wired.caller.changed = Cause.IMAGE_CHANGED
    wired.connection.tick()
    assert wired.ended[0][0] == "image_changed"


async def test_a_client_that_does_not_read_stops_its_server(wired: Wired):
    """With the client congested the server is not read either; when the client reads on, nothing is missing."""
    await wired.initialize()
    server = await wired.server()
    note = tell("notifications/message", {"level": "info", "data": "x" * 50_000})
    sent = 0

    async def flood() -> None:
        nonlocal sent
        while True:
            await server.send(note)
            sent += 1

    flooding = asyncio.ensure_future(flood())
    while sent < 20 or wired.connection.backlog < 1 << 20:
        await asyncio.sleep(0.005)
    before = -1
    while before != sent:
        before = sent
        await asyncio.sleep(0.05)
    assert wired.connection.backlog < 4 << 20
    flooding.cancel()
    for _ in range(before):
        assert await wired.client.message() == note
    await until(lambda: wired.connection.backlog == 0)


async def test_a_server_that_does_not_read_stops_its_client(wired: Wired):
    """With the server congested the client is not read; when the server reads on, every request arrives."""
    await wired.initialize()
    sent = 0

    async def flood() -> None:
        nonlocal sent
        for number in range(100):
            await wired.client.send(call("echo", number + 1, pad="x" * 50_000))
            sent += 1

    flooding = asyncio.ensure_future(flood())
    before = -1
    while before != sent or sent < 5:
        before = sent
        await asyncio.sleep(0.05)
    assert sent < 100
    server = await wired.server()
    assert [(await server.message())["id"] for _ in range(100)] == list(range(1, 101))
    await flooding


async def test_a_malformed_answer_refuses_its_request(wired: Wired):
    """The link's complaint reaches the client as a refusal on the id it waits for; the next answer passes."""
    await wired.initialize()
    await wired.client.send(call("echo", 1), call("echo", 2))
    server = await wired.server()
    await server.send(b'{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2}}\n', {"jsonrpc": "2.0", "id": 2, "result": {}})
    refused = await wired.client.message()
    assert (refused["id"], refused["error"]["data"]["cause"]) == (1, "server_malformed")
    assert (await wired.client.message())["id"] == 2


async def test_last_words_are_delivered_before_the_end(wired: Wired):
    """What was queued for the client when the session ended still arrives, whole."""
    await wired.initialize()
    await wired.client.send(call("echo", 1))
    server = await wired.server()
    await server.message()
    text = "x" * 2_000_000
    await server.send({"jsonrpc": "2.0", "id": 1, "result": {"text": text}})
    await until(lambda: wired.connection.session.outstanding == {})
    wired.connection.close(Cause.SHUTTING_DOWN, "attestd is stopping")
    assert (await wired.client.message())["result"]["text"] == text
    assert await wired.client.message() is None


async def test_a_client_that_does_not_read_its_refusals_is_not_read(wired: Wired):
    """Refusals take room, too: beyond the mark nothing more is read, and afterwards each line has had its answer."""
    wired.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 15)  # else the kernel may hold them all
    sent = 0

    async def flood() -> None:
        nonlocal sent
        for _ in range(60):
            await wired.client.send(b"{}\n" * 1000)
            sent += 1000

    wired.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # or all of it may fit into the socket
    flooding = asyncio.ensure_future(flood())
    await until(lambda: wired.connection.backlog > 1 << 20)
    before = -1
    while before != sent:
        before = sent
        await asyncio.sleep(0.05)
    assert sent < 60_000
    assert wired.connection.backlog < 8 << 20
    answers = 0
    while answers < 60_000:
        answers += (await asyncio.get_running_loop().sock_recv(wired.client.sock, 1 << 18)).count(b"\n")
    await flooding
    assert answers == 60_000


async def test_many_short_lines_leave_turns_to_others(wired: Wired, monkeypatch: pytest.MonkeyPatch):
    """A block of lines is taken in turns of the loop, in order, and nothing is read meanwhile."""
    monkeypatch.setattr("attestd.enforcement.connection.TURN_S", 0.0)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(others())
    await wired.client.send(b"".join(json.dumps(call("delete", n)).encode() + b"\n" for n in range(50)))
    assert [(await wired.client.message())["id"] for _ in range(50)] == list(range(50))
    assert turns >= 50
    counting.cancel()


async def test_a_client_that_never_reads_is_let_go(wired: Wired, monkeypatch: pytest.MonkeyPatch):
    """The last words wait for a bounded time; then the socket is closed."""
    monkeypatch.setattr("attestd.enforcement.connection.LAST_WORDS_S", 0.05)
    await wired.initialize()
    server = await wired.server()
    await server.send(tell("notifications/message", {"level": "info", "data": "x" * 2_000_000}))
    await until(lambda: wired.connection.backlog > 0)
    wired.connection.close(Cause.SHUTTING_DOWN, "attestd is stopping")
    await until(lambda: wired.connection._sock.fileno() < 0)


async def test_grants_that_changed_are_told(wired: Wired):
    """A client whose server promised list changes is told through its socket."""
    await wired.client.send(ask("initialize", {"protocolVersion": "2025-11-25"}, 0))
    server = await wired.server()
    await server.message()
    capabilities = {"tools": {"listChanged": True}}
    result = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": {}}
    await server.send({"jsonrpc": "2.0", "id": 0, "result": result})
    await wired.client.message()
    wired.connection.grants_changed()
    assert await wired.client.message() == tell("notifications/tools/list_changed")
