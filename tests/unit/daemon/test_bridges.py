"""Where the bridge stands in the daemon."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from attestd.daemon.bridges import bridged, shared_eras
from attestd.enforcement.bridge_effects import Eras
from attestd.enforcement.link import ServerError
from attestd.errors import Cause
from attestd.wire.model import Limits


class Owner:
    """Nobody in particular."""

    backlog = 0

    def server_message(self, message: Any) -> None:
        raise AssertionError(message)

    server_malformed = server_gone = server_relieved = server_message


async def test_the_bridge_owns_the_link_below():
    """The link is opened with the bridge as its owner, and used through it."""
    opened: list[Any] = []

    class Below:
        congested = True

        def close(self) -> None:
            opened.append("closed")

    async def open_link(owner: Any) -> Any:
        opened.append(owner)
        return Below()

    loop = asyncio.get_running_loop()
    bridge = await bridged(loop, Owner(), Eras(), Limits(), lambda _: True, open_link)
    assert bridge is opened[0]
    assert bridge.congested
    bridge.close()
    assert opened[1:] == ["closed"]


async def test_a_link_that_cannot_be_opened():
    """Its error is the bridge's."""

    async def open_link(_: Any) -> Any:
        raise ServerError(Cause.SERVER_UNAVAILABLE, "gone")

    with pytest.raises(ServerError, match="gone"):
        await bridged(asyncio.get_running_loop(), Owner(), Eras(), Limits(), lambda _: True, open_link)


def test_a_shared_server_speaks_the_legacy_era_to_its_callers():
    """That is known, and each caller's bridge has a memory of its own."""
    assert shared_eras() == Eras(modern=False, legacy=True)
    assert shared_eras() is not shared_eras()
