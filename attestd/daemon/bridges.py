"""Where the era bridge stands in the daemon: above every link, and below a shared server too.

What a shared server speaks to its callers is the legacy era, whatever its own back end speaks; so a modern caller and a
modern back end each get a bridge of their own.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

from attestd import __version__
from attestd.enforcement.bridge_effects import Eras, Habits, Setting
from attestd.enforcement.bridged import BridgedLink
from attestd.enforcement.link import Attached, Link
from attestd.wire.model import Limits

OpenBelow = Callable[[Attached], Awaitable[Link]]
"""Opens the link below; its owner is the bridge. Raises ServerError."""


async def bridged(  # noqa: PLR0917 - what a bridge needs, and the link that it is put before
    loop: asyncio.AbstractEventLoop,
    owner: Attached,
    eras: Eras,
    limits: Limits,
    allows: Callable[[str], bool],
    open_link: OpenBelow,
    *,
    shared: bool = False,
    always: bool = False,
    habits: Habits | None = None,
) -> BridgedLink:
    """Open a link with a bridge before it. Raises what ``open_link`` raises."""
    setting = Setting(
        limits=limits,
        shared=shared,
        always=always,
        habits=habits if habits is not None else Habits(),
        own={"name": "attestd", "version": __version__},
        new_state=lambda: f"attestd-{secrets.token_urlsafe(24)}",
        allows=allows,
    )
    bridge = BridgedLink(loop, owner, setting, eras)
    bridge.attach(await open_link(bridge))
    return bridge


def shared_eras() -> Eras:
    """What every shared server speaks to its callers."""
    return Eras(modern=False, legacy=True)
