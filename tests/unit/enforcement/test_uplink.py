"""The link of one session: opened on first need, once."""

from __future__ import annotations

import asyncio
from typing import Any

from attestd.enforcement.effects import ToServer
from attestd.enforcement.link import ServerError
from attestd.enforcement.uplink import Uplink
from attestd.errors import Cause
from tests.support.waiting import until


class Line:
    """A link that remembers."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.congested = False

    def send(self, body: dict[str, Any], line: bytes | None = None) -> None:
        del line
        self.done.append(body)

    def finish(self) -> None:
        self.done.append("finish")

    def pause(self) -> None:
        self.done.append("pause")

    def resume(self) -> None:
        self.done.append("resume")

    def close(self) -> None:
        self.done.append("close")


class Owner:
    """What an uplink tells."""

    backlog = 0

    def __init__(self) -> None:
        self.told: list[Any] = []

    def server_failed(self, cause: Cause, text: str) -> None:
        del text
        self.told.append(cause)

    def server_streams(self, request_id: Any) -> None:
        """Not told."""

    def server_gone(self, cause: Cause, text: str) -> None:
        self.told.append((cause, text))

    def server_relieved(self) -> None:
        self.told.append("relieved")

    def server_message(self, message: Any) -> None:
        """Not told."""

    def server_malformed(self, request_id: Any, error: Any) -> None:
        """Not told."""


async def test_what_was_sent_before_it_was_open_is_sent_in_order():
    """One link for both; the client waits meanwhile."""
    line, owner, opened = Line(), Owner(), asyncio.Event()

    async def open_link(_: Any) -> Line:
        await opened.wait()
        return line

    uplink = Uplink(asyncio.get_running_loop(), owner, open_link)
    uplink.pause()
    uplink.resume()
    uplink.send(ToServer({"id": 1}))
    assert uplink.congested
    uplink.send(ToServer({"id": 2}))
    opened.set()
    await until(lambda: owner.told == ["relieved"])
    uplink.send(ToServer({"id": 3}))
    uplink.pause()
    uplink.resume()
    uplink.close()
    assert line.done == [{"id": 1}, {"id": 2}, {"id": 3}, "pause", "resume", "finish", "close"]


async def test_a_failure_is_told_and_the_next_message_tries_again():
    """Nothing of what waited is sent later."""
    owner, line = Owner(), Line()
    answers: list[Any] = [ServerError(Cause.SERVER_UNAVAILABLE, "no"), line]

    async def open_link(_: Any) -> Line:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    uplink = Uplink(asyncio.get_running_loop(), owner, open_link)
    uplink.send(ToServer({"id": 1}))
    await until(lambda: owner.told == [Cause.SERVER_UNAVAILABLE])
    assert not uplink.congested
    uplink.send(ToServer({"id": 2}))
    await until(lambda: line.done == [{"id": 2}])
    uplink.lost()
    uplink.close()
    assert line.done == [{"id": 2}]


async def test_a_link_that_opens_too_late_is_closed():
    """The session has ended meanwhile."""
    owner, line, opened = Owner(), Line(), asyncio.Event()

    async def open_link(_: Any) -> Line:
        await opened.wait()
        return line

    uplink = Uplink(asyncio.get_running_loop(), owner, open_link)
    uplink.send(ToServer({"id": 1}))
    uplink.close()
    opened.set()
    await until(lambda: line.done == ["close"])


async def test_our_own_bug_is_told():
    """To the session, and to the loop."""
    owner = Owner()
    loop = asyncio.get_running_loop()
    seen: list[Any] = []
    loop.set_exception_handler(lambda _, context: seen.append(context["exception"]))

    async def open_link(_: Any) -> Line:
        raise KeyError("bug")

    uplink = Uplink(loop, owner, open_link)
    uplink.send(ToServer({"id": 1}))
    await until(lambda: bool(seen))
    assert owner.told == [(Cause.INTERNAL, "KeyError: 'bug'")]
