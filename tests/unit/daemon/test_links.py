"""Ways to back ends, in one process with a kernel of one process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from attestd.daemon.links import PROGRAMS
from attestd.decision.model import Deny
from attestd.enforcement.bridged import BridgedLink
from attestd.enforcement.link import StreamLink
from attestd.errors import Cause
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
    assert inside.daemon.errors[-1][1] == front.trouble


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
