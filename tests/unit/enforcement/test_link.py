"""The link to one session's own back end, over real descriptors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from attestd.enforcement.link import BAD_LINES, StreamLink
from attestd.enforcement.outbox import HIGH_BYTES
from attestd.errors import Cause
from attestd.wire.model import Kind, Limits, WireError
from attestd.wire.server import ServerMessage
from tests.fakes.backs import SocketBack
from tests.support.waiting import until

LIMITS = Limits(message_bytes=100_000)


class Owner:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[ServerMessage] = []
        self.malformed: list[tuple[str | int, Cause]] = []
        self.gone: list[tuple[Cause, str]] = []
        self.relieved = 0

    def server_message(self, message: ServerMessage) -> None:
        self.messages.append(message)

    def server_malformed(self, request_id: str | int, error: WireError) -> None:
        self.malformed.append((request_id, error.cause))

    def server_streams(self, request_id: str | int) -> None:
        """Lines have none."""

    def server_gone(self, cause: Cause, text: str) -> None:
        self.gone.append((cause, text))

    def server_relieved(self) -> None:
        self.relieved += 1


class Wired:
    """A link, its owner and its back end."""

    def __init__(self) -> None:
        self.owner = Owner()
        self.back = SocketBack()
        self.link = StreamLink(asyncio.get_running_loop(), self.back, self.owner, LIMITS)


@pytest.fixture(name="wired")
async def _wired() -> Iterator[Wired]:  # type: ignore[misc]
    wired = Wired()
    yield wired
    wired.link.close()
    wired.back.far.close()


def result(message_id: Any, text: str = "x") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": message_id, "result": {"text": text}}


async def test_messages_pass_both_ways_in_order(wired: Wired):
    """What is sent arrives as a line, what comes back is parsed and handed over in order."""
    wired.link.send({"jsonrpc": "2.0", "id": 1, "method": "ping"})
    wired.link.send({}, b'{"as":"it is"}\n')
    assert await wired.back.far.message() == {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    assert await wired.back.far.message() == {"as": "it is"}
    await wired.back.far.send(result(1), {"jsonrpc": "2.0", "method": "notifications/message", "params": {}})
    await until(lambda: len(wired.owner.messages) == 2)
    assert [m.kind for m in wired.owner.messages] == [Kind.RESULT, Kind.NOTIFICATION]


async def test_a_printed_line_is_dropped_and_counted(wired: Wired):
    """A server that prints to its output by mistake goes on being served."""
    await wired.back.far.send(b"starting up...\n", b"\n", result(1))
    await until(lambda: len(wired.owner.messages) == 1)
    assert wired.link.bad_lines == 1
    assert wired.owner.malformed == []
    assert wired.owner.gone == []


async def test_a_malformed_answer_is_told_with_its_id(wired: Wired):
    """Whoever waits for that answer is told that it will not come."""
    twice = b'{"jsonrpc":"2.0","id":7,"result":{"a":1,"a":2}}\n'
    await wired.back.far.send(twice, b'{"jsonrpc":"2.0","id":"x","res\n', b'{"result":{"a":}}\n')
    await until(lambda: wired.link.bad_lines == 3)
    assert wired.owner.malformed == [(7, Cause.MALFORMED), ("x", Cause.MALFORMED)]


async def test_a_malformed_question_is_no_answer(wired: Wired):
    """The id of a server's own request is not the id of a client's: nobody's request is given up for it."""
    await wired.back.far.send(b'{"jsonrpc":"2.0","id":7,"method":"roots/list","params":[]}\n', result(1))
    await until(lambda: len(wired.owner.messages) == 1)
    assert wired.link.bad_lines == 1
    assert wired.owner.malformed == []


async def test_a_line_above_the_limit_ends_the_link(wired: Wired):
    """The back end is stopped, and the owner told once."""
    await wired.back.far.send(b'{"jsonrpc":"2.0","id":7,"result":"' + b"x" * 100_001 + b'"}\n')
    await until(lambda: bool(wired.owner.gone))
    assert wired.owner.gone == [(Cause.SERVER_MALFORMED, "the server sent a message above 100000 bytes")]
    assert wired.back.stopped == 1


async def test_a_line_that_never_ends_ends_the_link(wired: Wired):
    """Above the limit no line end is waited for."""
    await wired.back.far.send(b"x" * 100_002)
    await until(lambda: bool(wired.owner.gone))
    assert wired.owner.gone == [(Cause.SERVER_MALFORMED, "the server sent a message above 100000 bytes")]


async def test_a_flood_of_garbage_ends_the_link(wired: Wired):
    """A server that talks nonsense without end is not served for ever."""
    await wired.back.far.send(b"nonsense\n" * (BAD_LINES + 10))
    await until(lambda: bool(wired.owner.gone))
    assert wired.owner.gone[0][0] is Cause.SERVER_MALFORMED
    assert str(BAD_LINES) in wired.owner.gone[0][1]
    assert wired.link.bad_lines == BAD_LINES


async def test_the_end_of_the_server_is_told_with_its_reason(wired: Wired):
    """End of file: the back end's own word on why."""
    await wired.back.far.send(result(1))
    wired.back.far.close()
    await until(lambda: bool(wired.owner.gone))
    assert len(wired.owner.messages) == 1
    assert wired.owner.gone == [(Cause.SERVER_UNAVAILABLE, "the server exited with status 3")]
    wired.link.close()
    assert wired.back.stopped == 1


async def test_a_paused_link_reads_nothing(wired: Wired):
    """While the client is congested the server's bytes stay in the kernel; after ``resume`` none is missing."""
    wired.link.pause()
    wired.link.pause()
    await wired.back.far.send(result(1))
    await asyncio.sleep(0.05)
    assert wired.owner.messages == []
    wired.link.resume()
    wired.link.resume()
    await until(lambda: len(wired.owner.messages) == 1)


async def test_a_server_that_does_not_read_congests_the_link(wired: Wired):
    """Above the high mark the link says so; relief is told once when the server reads again, and nothing is lost."""
    block = {"jsonrpc": "2.0", "method": "m", "params": {"pad": "x" * 60_000}}
    count = 0
    while not wired.link.congested:
        wired.link.send(block)
        count += 1
    assert count * 60_000 > HIGH_BYTES
    for _ in range(count):
        assert await wired.back.far.message() == block
    await until(lambda: wired.owner.relieved == 1)
    assert not wired.link.congested


async def test_finish_sends_what_waits_and_then_closes_the_input(wired: Wired):
    """The server gets every request before the end of its input."""
    wired.link.send({"jsonrpc": "2.0", "method": "m", "params": {"pad": "x" * 900_000}})
    wired.link.finish()
    assert (await wired.back.far.message())["params"]["pad"] == "x" * 900_000
    await until(lambda: wired.back.finished == 1)
    assert await wired.back.far.message() is None


async def test_a_server_that_closed_its_input_may_still_answer(wired: Wired):
    """A broken write is no end: what the server still says is read."""
    import socket

    wired.back.far.sock.shutdown(socket.SHUT_RD)
    wired.link.send({"jsonrpc": "2.0", "id": 1, "method": "ping"})
    await wired.back.far.send(result(1))
    await until(lambda: len(wired.owner.messages) == 1)
    assert wired.owner.gone == []


async def test_close_is_final_and_idempotent(wired: Wired):
    """After ``close`` nothing is read, told or stopped again."""
    wired.link.close()
    wired.link.close()
    wired.link.resume()
    wired.link.send({"a": 1})
    assert wired.back.stopped == 1
    assert wired.owner.gone == []
