"""Threads with a time limit for whoever waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from attestd.enforcement.workers import TooSlowError, Workers
from tests.support.waiting import until


class Pool:
    """One worker, and what came late."""

    def __init__(self) -> None:
        self.workers = Workers(1, "test")
        self.late: list[int | None] = []
        self.go_on = threading.Event()

    def hang(self) -> int:
        """Hangs until told."""
        self.go_on.wait(20)
        return 7

    async def run(self, work: object, seconds: float = 10.0) -> int:
        """One piece of work."""
        return await self.workers.run(work, seconds=seconds, late=self.late.append)  # type: ignore[arg-type]


@pytest.fixture(name="pool")
def _pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.go_on.set()
    pool.workers.shutdown()


async def test_results_and_errors_come_back(pool: Pool):
    """Work that ends in time gives its result or raises its error, and nothing comes late."""
    assert await pool.run(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 // 0)
    assert pool.late == []


async def test_work_that_hangs_is_given_up_and_its_result_comes_late(pool: Pool):
    """Whoever waits is freed after the time; the result is delivered on the loop's thread once there is one."""
    with pytest.raises(TooSlowError):
        await pool.run(pool.hang, 0.05)
    assert pool.late == []
    pool.go_on.set()
    await until(lambda: pool.late == [7])


async def test_a_hung_thread_is_replaced(pool: Pool):
    """With its only thread hung the pool still works; once that comes back there is one thread again."""
    with pytest.raises(TooSlowError):
        await pool.run(pool.hang, 0.05)
    assert await pool.run(lambda: 5) == 5
    pool.go_on.set()
    await until(lambda: pool.late == [7])
    assert await pool.run(lambda: 6) == 6
    await until(lambda: sum(t.name.startswith("test-") for t in threading.enumerate()) <= 1)


async def test_work_that_never_began_comes_late_as_nothing(pool: Pool):
    """What waited behind a hung thread until its time ran out is dropped and never runs."""
    ran: list[int] = []
    hanging = asyncio.ensure_future(pool.run(pool.hang))
    await asyncio.sleep(0)
    with pytest.raises(TooSlowError):
        await pool.run(lambda: ran.append(1), 0.05)
    await until(lambda: pool.late == [None])
    pool.go_on.set()
    assert await hanging == 7
    assert ran == []


async def test_a_cancelled_wait_lets_the_work_end(pool: Pool):
    """Cancelling frees the task; the work's result comes late, so that it can be released."""
    waiting = asyncio.ensure_future(pool.run(pool.hang))
    await asyncio.sleep(0.02)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    pool.go_on.set()
    await until(lambda: pool.late == [7])


async def test_an_error_that_comes_late_is_told_as_nothing(pool: Pool):
    """An error that nobody waits for is no result."""

    def fail() -> None:
        pool.go_on.wait(20)
        raise OSError("gone")

    with pytest.raises(TooSlowError):
        await pool.run(fail, 0.05)
    pool.go_on.set()
    await until(lambda: pool.late == [None])


async def test_threads_do_not_keep_the_process(pool: Pool):
    """Every thread is a daemon: a hung one ends with the process."""
    with pytest.raises(TooSlowError):
        await pool.run(pool.hang, 0.02)
    assert all(t.daemon for t in threading.enumerate() if t.name.startswith("test-"))


async def test_a_closed_pool_takes_no_work(pool: Pool):
    """After ``shutdown`` new work is refused and waiting work is dropped."""
    hanging = asyncio.ensure_future(pool.run(pool.hang))
    await asyncio.sleep(0.02)
    waiting = asyncio.ensure_future(pool.run(lambda: 1))
    await asyncio.sleep(0)
    pool.workers.shutdown()
    with pytest.raises(TooSlowError):
        await waiting
    with pytest.raises(RuntimeError):
        await pool.run(lambda: 1)
    pool.go_on.set()
    assert await hanging == 7


async def test_owners_take_turns():
    """What one owner queued first does not keep another waiting until all of it is done."""
    pool, order = Workers(1, "turns"), []
    go_on = threading.Event()
    first = pool.submit_for(1, lambda: go_on.wait(20))
    jobs = [pool.submit_for(1, lambda n=n: order.append((1, n))) for n in range(3)]  # type: ignore[misc]
    jobs.append(pool.submit_for(2, lambda: order.append((2, 0))))
    go_on.set()
    for job in (first, *jobs):
        await asyncio.wrap_future(job)
    assert order.index((2, 0)) <= 1
    assert [each for each in order if each[0] == 1] == [(1, 0), (1, 1), (1, 2)]
    pool.shutdown()


async def test_one_owner_leaves_threads_to_the_others():
    """However much of one owner hangs, also beyond what is replaced for it, another owner's work is done."""
    pool, go_on = Workers(4, "shares"), threading.Event()
    late: list[object] = []
    hanging = [
        asyncio.ensure_future(pool.run(go_on.wait, 20, seconds=0.02, late=late.append, owner=1)) for _ in range(40)
    ]
    results = await asyncio.gather(*hanging, return_exceptions=True)
    assert all(isinstance(each, TooSlowError) for each in results)
    assert await pool.run(lambda: 5, seconds=10, late=late.append, owner=2) == 5
    assert await pool.run(lambda: 6, seconds=10, late=late.append) == 6
    go_on.set()
    await until(lambda: len(late) == 40)
    assert await pool.run(lambda: 7, seconds=10, late=late.append, owner=1) == 7
    pool.shutdown()
