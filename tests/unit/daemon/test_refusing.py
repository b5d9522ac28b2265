"""Refusals outside sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attestd.audit.query import Filters, query
from attestd.daemon.refusing import FULL_SESSIONS
from attestd.errors import Cause
from tests.support.daemons import Inside


@pytest.fixture(name="inside")
async def _inside(short_tmp: Path) -> AsyncIterator[Inside]:
    inside = Inside(short_tmp, settings="[limits]\nrefusals_per_minute = 2\n")
    yield inside
    await inside.close()


async def test_the_first_are_recorded_and_the_others_counted_by_uid(inside: Inside):
    """Two singly, three as a number; another user's first one singly again."""
    await inside.connect()
    refusals = inside.daemon.refusals
    peer = inside.kernel.evidence.peer
    for _ in range(5):
        refusals.turned_away("time", peer, Cause.LIMIT_CONNECTIONS, "too many")
    refusals.turned_away("time", None, Cause.LIMIT_CONNECTIONS, "too many")
    refusals.settle(end=True)
    rows = [row.record for row in query(inside.paths.audit, Filters())]
    mine = [row for row in rows if row.cause == "limit_connections" and row.uid == peer.uid]
    assert len(mine) == 3
    assert sum(int(row.detail.get("times", 1)) for row in mine) == 5
    assert len([row for row in rows if row.cause == "limit_connections" and row.uid == -1]) == 1


@pytest.mark.root
async def test_a_user_of_many_sessions_has_fewer_on_record_in_each(short_tmp: Path):
    """On a system installation, after so many in a minute, one of a kind; other users are not concerned."""
    inside = Inside(short_tmp, system=True)
    refusals = inside.daemon.refusals
    limit = inside.daemon.settings.limits.refusals_per_minute
    assert [refusals.singly(5) for _ in range(FULL_SESSIONS + 2)] == [limit] * FULL_SESSIONS + [1, 1]
    assert refusals.singly(6) == limit
    await inside.close()


async def test_in_user_mode_every_session_has_all(inside: Inside):
    """There is one user."""
    assert {inside.daemon.refusals.singly(5) for _ in range(2 * FULL_SESSIONS)} == {2}
