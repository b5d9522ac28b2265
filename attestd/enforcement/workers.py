"""Threads for work that blocks (collecting evidence hashes files), with a time limit for whoever waits.

A thread that hangs in the kernel, for a file on a file system that does not answer, cannot be ended. So whoever waits
gives up after a time, another thread takes the place of the hung one, up to a bound, and no thread here keeps the
process from exiting.
"""

from __future__ import annotations

import asyncio
import queue
import threading
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


Job = tuple["Future[Any]", Callable[[], Any]]


class Workers(Executor):
    """A pool of daemon threads. Everything but the work itself happens on the loop's thread."""

    def __init__(self, count: int, name: str) -> None:
        self._allowed = count
        self._most = count + SPARE
        self._name = name
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads = 0
        self._pending = 0
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue one piece of work. Raises RuntimeError after ``shutdown``."""
        if self._closed:
            raise RuntimeError("cannot take work: the pool is closed")
        future: Future[T] = Future()
        with self._lock:
            self._pending += 1
        self._jobs.put((future, lambda: fn(*args, **kwargs)))
        self._grow()
        return future

    async def run(self, fn: Callable[..., T], *args: object, seconds: float, late: Callable[[T | None], None]) -> T:
        """The result of ``fn(*args)``, or what it raises, within ``seconds``.

        If that time runs out, or the waiting task is cancelled, the work may still run and use what it was given. Once
        it has ended, ``late`` is called on the loop's thread with its result, None if it failed or never ran.

        Raises:
            TooSlowError: The time ran out.
        """
        loop = asyncio.get_running_loop()
        job = self.submit(fn, *args)
        waiting = asyncio.wrap_future(job)
        try:
            await asyncio.wait((waiting,), timeout=seconds)
        except asyncio.CancelledError:
            waiting.add_done_callback(_retrieved)
            self._give_up(loop, job, late)
            raise
        if waiting.done() and not waiting.cancelled():
            return waiting.result()
        waiting.add_done_callback(_retrieved)
        self._give_up(loop, job, late)
        raise TooSlowError(f"it did not end within {seconds:g} s")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - the base's signature
        """Take no more work and drop what has not begun. Does not wait: a hung thread would never end."""
        self._closed = True
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is not None:
                job[0].cancel()
        for _ in range(self._threads):
            self._jobs.put(None)

    def _give_up(self, loop: asyncio.AbstractEventLoop, job: Future[T], late: Callable[[T | None], None]) -> None:
        begun = not job.cancel()
        hung = begun and not job.done()
        if hung:
            self._allowed = min(self._allowed + 1, self._most)
            self._grow()

        def ended(done: Future[T]) -> None:
            failed = done.cancelled() or done.exception() is not None
            result = None if failed else done.result()
            if not loop.is_closed():
                loop.call_soon_threadsafe(back, result)

        def back(result: T | None) -> None:
            if hung:
                self._allowed -= 1
            late(result)

        job.add_done_callback(ended)

    def _grow(self) -> None:
        with self._lock:
            if self._threads >= self._allowed or self._pending == 0:
                return
            self._threads += 1
            name = f"{self._name}-{self._threads}"
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work = job
            with self._lock:
                self._pending -= 1
            if future.set_running_or_notify_cancel():
                try:
                    result = work()
                except BaseException as error:  # noqa: BLE001 - it is raised again where the result is awaited
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del future, work, job
            with self._lock:
                if self._threads > self._allowed:
                    self._threads -= 1
                    return


def _retrieved(waiting: asyncio.Future[Any]) -> None:
    """Nobody waits for this any more; its error is no news."""
    if not waiting.cancelled():
        waiting.exception()
