"""What doctor says of polkit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attestd.daemon.polkit import MANAGE
from attestd.daemon.polkit_checks import polkit_checks
from tests.fakes.authority import FakeAuthority
from tests.support.daemons import Inside

pytestmark = pytest.mark.root
"""The configuration of a system installation is root's, or it is refused."""


@pytest.fixture(name="inside")
async def _inside(short_tmp: Path) -> AsyncIterator[Inside]:
    inside = Inside(short_tmp, system=True)
    yield inside
    await inside.close()


async def test_what_is_there_is_ok(inside: Inside):
    """Version, actions and the agent for terminals."""
    inside.daemon.authority = FakeAuthority()
    polkit, agent = await polkit_checks(inside.daemon)
    assert (polkit.status, polkit.detail) == ("ok", "version fake")
    assert agent.status in {"ok", "warn"}


async def test_what_is_missing_costs_approving(inside: Inside):
    """No polkit, a broken one, and one without our actions: each says what is lost and what to do."""
    (none,) = await polkit_checks(inside.daemon)
    authority = inside.daemon.authority = FakeAuthority()
    authority.actions.discard(MANAGE)
    lacking = (await polkit_checks(inside.daemon))[0]
    authority.broken = "the bus is away"
    (broken,) = await polkit_checks(inside.daemon)
    assert {each.status for each in (none, lacking, broken)} == {"fail"}
    assert {each.cost for each in (none, lacking, broken)} == {"only root can approve"}
    assert MANAGE in lacking.detail
    assert "the bus is away" in broken.detail
    assert all(each.remedy for each in (lacking, broken))


async def test_user_mode_does_not_need_it(short_tmp: Path):
    """There is nothing to say."""
    inside = Inside(short_tmp)
    assert await polkit_checks(inside.daemon) == ()
    await inside.close()
