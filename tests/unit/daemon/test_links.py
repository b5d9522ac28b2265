"""Ways to back ends, in one process with a kernel of one process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from attestd.enforcement.bridged import BridgedLink
from attestd.enforcement.link import StreamLink
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
