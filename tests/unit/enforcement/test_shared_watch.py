"""One watch, several holders."""

from __future__ import annotations

import asyncio
import os

from attestd.enforcement.shared_watch import SharedWatch
from attestd.errors import Cause
from tests.fakes.kernel import FakeWatch
from tests.support.waiting import until


async def test_it_closes_with_its_last_holder():
    """And answers for all of them until then."""
    watch = FakeWatch()
    shared = SharedWatch(asyncio.get_running_loop(), watch)
    one, two = shared.hold(lambda: None), shared.hold(lambda: None)
    watch.found = Cause.TRACED
    assert shared.verify(1) is Cause.TRACED
    shared.close()
    shared.pin_accountable(0)
    one.close()
    one.close()
    assert not watch.closed
    two.close()
    assert watch.closed
    assert shared.exit_fds() == ()


async def test_it_is_bound_to_no_connection():
    """Sessions go on over other connections than the one that they began on."""
    watch = FakeWatch()
    assert watch.connected
    hold = SharedWatch(asyncio.get_running_loop(), watch).hold(lambda: None)
    assert not watch.connected
    hold.close()


async def test_every_holder_hears_of_the_exit():
    """The loop has one reader for the descriptor; it is gone afterwards."""
    read, write = os.pipe()
    heard: list[str] = []
    shared = SharedWatch(asyncio.get_running_loop(), FakeWatch(fds=(read,)))
    holds = [shared.hold(lambda: heard.append("one")), shared.hold(lambda: heard.append("two"))]
    os.close(write)
    await until(lambda: heard == ["one", "two"])
    for hold in holds:
        hold.close()
    os.close(read)
