"""Ways to back ends, in one process with a kernel of one process."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from attestd.daemon.links import PROGRAMS
from attestd.decision.model import Deny
from attestd.enforcement.bridged import BridgedLink
from attestd.enforcement.link import ServerError, StreamLink
from attestd.errors import Cause
from attestd.launch.protocol import LaunchError
from tests.support.daemons import Inside


@pytest.fixture(name="inside")
async def _inside(short_tmp: Path) -> AsyncIterator[Inside]:
    inside = Inside(short_tmp)
    yield inside
    await inside.close()


@pytest.mark.parametrize(("bridge", "kind"), [("auto", BridgedLink), ("never", StreamLink)])
async def test_a_bridge_stands_before_the_server_unless_it_is_switched_off(
    inside: Inside, bridge: str, kind: type[object]
):
    """The link of a session, as its server is configured."""
    await inside.granted()
    (session,) = inside.daemon.sessions
    front = inside.daemon.fronts["time"]
    front.settings = msgspec.structs.replace(front.settings, bridge=bridge)
    link = await inside.daemon.links.open(front, session)
    assert isinstance(link, kind)
    link.close()


async def test_what_cannot_be_opened_is_trouble(inside: Inside):
    """The session is told, and so are status and the server's entry."""
    await inside.granted()
    (session,) = inside.daemon.sessions
    front = inside.daemon.fronts["time"]
    front.settings = msgspec.structs.replace(front.settings, transport="unix", socket="/nowhere/x.sock")
    with pytest.raises(Exception, match="cannot"):
        await inside.daemon.links.open(front, session)
    assert front.trouble
    assert inside.daemon.troubles.seen(None)[-1][1] == front.trouble


async def test_what_a_program_does_is_remembered_for_so_many(inside: Inside):
    """Its habits are one object at every server, until a thousand others were seen since."""
    first = inside.daemon.links.habits("first")
    first.said("server/discover", refused=True)
    for number in range(PROGRAMS - 1):
        inside.daemon.links.habits(str(number))
    assert inside.daemon.links.habits("first").modern_only
    for number in range(PROGRAMS):
        inside.daemon.links.habits(str(number))
    assert not inside.daemon.links.habits("first").modern_only


async def test_a_refusal_tells_of_the_program(inside: Inside):
    """Who is refused at server/discover for want of a grant, and says nothing else, speaks the modern era only."""
    await inside.granted()
    (session,) = inside.daemon.sessions.values()
    caller, habits = session.caller, inside.daemon.links.habits(session.caller.result.program)
    habits.falls_back = False  # as it was before it was granted
    for method, modern_only in (("server/discover", True), ("initialize", False)):
        inside.daemon.pend(caller, method, "", Deny(cause=Cause.NO_GRANT, detail=""), 0)
        assert habits.modern_only is modern_only


def descriptors() -> int:
    """How many of ours are open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_started_server_is_for_the_peer_of_its_session(inside: Inside):
    """The launcher is shown a copy of the session's pidfd, which is closed when the server runs, or could not be started."""
    await inside.granted()
    (session,) = inside.daemon.sessions
    front = inside.daemon.fronts["time"]
    caller = inside.daemon.sessions[session].caller
    caller.pidfd = os.pidfd_open(os.getpid())
    before = descriptors()
    inside.launcher.failure = LaunchError("cannot start it")
    with pytest.raises(ServerError, match="cannot start it"):
        await inside.daemon.links.open(front, session)
    assert descriptors() == before
    shown = inside.launcher.clients[-1]
    assert shown not in (None, caller.pidfd)
    os.close(caller.pidfd)
    caller.pidfd = -1


async def test_a_session_that_has_ended_starts_nothing(inside: Inside):
    """Between the first request and the start the session may go: nobody is there to be shown to the launcher."""
    await inside.granted()
    (session,) = inside.daemon.sessions
    front = inside.daemon.fronts["time"]
    info = inside.daemon.sessions.pop(session)
    started = len(inside.launcher.commands)
    with pytest.raises(ServerError, match="the session has ended"):
        await inside.daemon.links.open(front, session)
    assert len(inside.launcher.commands) == started
    inside.daemon.sessions[session] = info
