"""What ``attestctl doctor`` says of polkit: whether anybody but root can decide on this system installation."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from attestd.control.replies import Check
from attestd.daemon.app import Daemon
from attestd.daemon.polkit import APPROVE, MANAGE, PolkitError

AGENT: Final = Path("/usr/bin/pkttyagent")
_COST: Final = "only root can approve"


async def polkit_checks(daemon: Daemon) -> tuple[Check, ...]:
    """The bus, polkit, our actions and the agent for terminals; nothing in user mode."""
    if daemon.paths.user_mode:
        return ()
    if daemon.authority is None:
        return (Check(name="polkit", status="fail", detail="it is not asked here", cost=_COST),)
    try:
        version = await daemon.authority.version()
        missing = [action for action in (APPROVE, MANAGE) if not await daemon.authority.knows(action)]
    except PolkitError as error:
        remedy = "apt install polkitd dbus"
        return (Check(name="polkit", status="fail", detail=error.message, remedy=remedy, cost=_COST),)
    actions = Check(
        name="polkit",
        status="fail" if missing else "ok",
        detail=f"version {version}" + (f", without the action {' and '.join(missing)}" if missing else ""),
        remedy="put dev.attestd.policy into /usr/share/polkit-1/actions" if missing else "",
        cost=_COST if missing else "",
    )
    agent = AGENT.exists()
    asks = Check(
        name="polkit agent",
        status="ok" if agent else "warn",
        detail=f"{AGENT} asks for passwords on terminals" if agent else f"{AGENT} is not there",
        remedy="" if agent else "apt install polkitd",
        cost="" if agent else "passwords can be asked for by a desktop session only",
    )
    return actions, asks
