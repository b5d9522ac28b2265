"""Refusals outside sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attestd.audit.query import Filters, query
from attestd.errors import Cause
from tests.support.daemons import Inside


@pytest.fixture(name="inside")
async def _inside(short_tmp: Path) -> AsyncIterator[Inside]:
    inside = Inside(short_tmp, settings="[limits]\nrefusals_per_minute = 2\n")
    yield inside
    await inside.close()


async def test_the_first_are_recorded_and_the_others_counted_by_uid(inside: Inside):
    """Two singly, three as a number; another user's first one singly again."""
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
