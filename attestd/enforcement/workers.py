"""Threads for work that blocks (collecting evidence hashes files), with a time limit for whoever waits.

A thread that hangs in the kernel, for a file on a file system that does not answer, cannot be ended. So whoever waits
gives up after a time, another thread takes the place of the hung one, up to a bound, and no thread here keeps the
process from exiting.

Work has an owner, the uid that it is done for, and owners take turns. However much one of them has, two threads are
left to the others; what hangs for one is replaced for that one up to a bound of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from attestd.errors import AttestdError

P = ParamSpec("P")
T = TypeVar("T")
SPARE = 64
"""Hung threads that are replaced; with more of them, work waits and is given up in its turn."""


class TooSlowError(AttestdError):
    """The work did not end in time."""

    code = "too_slow"


OWN_SPARE = 16
"""Hung threads that are replaced for one owner."""
RESERVE = 2
"""Threads that one owner alone never takes, where there are more than that."""
NOBODY = -1
"""The owner of what is done for the service itself."""

Job = tuple["Future[Any]", Callable[[], Any], int]


class Workers(Executor):
    """A pool of daemon threads. Everything but the work itself happens on the loop's thread."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._share = max(1, count - RESERVE)
        self._name = name
        self._waiting: OrderedDict[int, deque[Job]] = OrderedDict()
        """By owner; whose turn it is comes first."""
        self._running: Counter[int] = Counter()
        self._hung: Counter[int] = Counter()
        self._threads = 0
        self._turn = threading.Condition()
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue one piece of the service's own work. Raises RuntimeError after ``shutdown``."""
        return self.submit_for(NOBODY, lambda: fn(*args, **kwargs))

    def submit_for(self, owner: int, work: Callable[[], T]) -> Future[T]:
        """Queue one piece of work for a uid. Raises RuntimeError after ``shutdown``."""
        if self._closed:
            raise RuntimeError("cannot take work: the pool is closed")
        future: Future[T] = Future()
        with self._turn:
            self._waiting.setdefault(owner, deque()).append((future, work, owner))
            self._turn.notify()
        self._grow()
        return future

    async def run(
        self,
        fn: Callable[..., T],
        *args: object,
        seconds: float,
        late: Callable[[T | None], None],
        owner: int = NOBODY,
    ) -> T:
        """The result of ``fn(*args)``, or what it raises, within ``seconds``. ``owner``: the uid that it is done for.

        If that time runs out, or the waiting task is cancelled, the work may still run and use what it was given. Once
        it has ended, ``late`` is called on the loop's thread with its result, None if it failed or never ran.

        Raises:
            TooSlowError: The time ran out.
        """
        loop = asyncio.get_running_loop()
        job = self.submit_for(owner, lambda: fn(*args))
        waiting = asyncio.wrap_future(job)
        try:
            await asyncio.wait((waiting,), timeout=seconds)
        except asyncio.CancelledError:
            waiting.add_done_callback(_retrieved)
            self._give_up(loop, job, late, owner)
            raise
        if waiting.done() and not waiting.cancelled():
            return waiting.result()
        waiting.add_done_callback(_retrieved)
        self._give_up(loop, job, late, owner)
        raise TooSlowError(f"it did not end within {seconds:g} s")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - the base's signature
        """Take no more work and drop what has not begun. Does not wait: a hung thread would never end."""
        self._closed = True
        with self._turn:
            dropped = [job for jobs in self._waiting.values() for job in jobs]
            self._waiting.clear()
            self._turn.notify_all()
        for future, _, _ in dropped:
            future.cancel()

    def _give_up(
        self, loop: asyncio.AbstractEventLoop, job: Future[T], late: Callable[[T | None], None], owner: int
    ) -> None:
        begun = not job.cancel()
        hung = begun and not job.done()
        if hung:
            with self._turn:
                self._hung[owner] += 1
                self._turn.notify()
            self._grow()
        elif not begun:
            self._forget(job, owner)

        def ended(done: Future[T]) -> None:
            failed = done.cancelled() or done.exception() is not None
            result = None if failed else done.result()
            if not loop.is_closed():
                loop.call_soon_threadsafe(back, result)

        def back(result: T | None) -> None:
            if hung:
                with self._turn:
                    self._hung[owner] -= 1
                    if not self._hung[owner]:
                        del self._hung[owner]
            late(result)

        job.add_done_callback(ended)

    def _forget(self, job: Future[Any], owner: int) -> None:
        """Take what never began out of the queue."""
        with self._turn:
            left = deque(each for each in self._waiting.get(owner, ()) if each[0] is not job)
            if left:
                self._waiting[owner] = left
            else:
                self._waiting.pop(owner, None)

    def _grow(self) -> None:
        with self._turn:
            if self._threads >= self._allowed() or not any(self._may(owner) for owner in self._waiting):
                return
            self._threads += 1
            name = f"{self._name}-{self._threads}"
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _allowed(self) -> int:
        return self._count + min(self._hung.total(), SPARE)

    def _may(self, owner: int) -> bool:
        """Whether one more thread may work for this owner."""
        return self._running[owner] - min(self._hung[owner], OWN_SPARE) < self._share

    def _next(self) -> Job | None:
        for owner, jobs in self._waiting.items():
            if self._may(owner):
                job = jobs.popleft()
                if jobs:
                    self._waiting.move_to_end(owner)
                else:
                    del self._waiting[owner]
                self._running[owner] += 1
                return job
        return None

    def _work(self) -> None:
        while True:
            with self._turn:
                while (job := self._next()) is None and not self._closed:
                    self._turn.wait()
            if job is None:
                return
            future, work, owner = job
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as error:  # noqa: BLE001 - it is raised again where the result is awaited
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del future, work, job
            with self._turn:
                self._running[owner] -= 1
                if not self._running[owner]:
                    del self._running[owner]
                self._turn.notify()
                if self._threads > self._allowed():
                    self._threads -= 1
                    return


def _retrieved(waiting: asyncio.Future[Any]) -> None:
    """Nobody waits for this any more; its error is no news."""
    if not waiting.cancelled():
        waiting.exception()
