"""One wait for everything that a supervisor has to see: signals, the end of children, words on descriptors.

Standard library only, and nothing of one operating system: this runs in isolated interpreters.
"""

import contextlib
import os
import select
import signal
from collections.abc import Iterable


class Bell:
    """Makes SIGCHLD and SIGTERM visible to poll, so that one wait sees everything."""

    def __init__(self) -> None:
        self.ended = False
        self._read, self._write = os.pipe()
        for fd in (self._read, self._write):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._end)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def wait(self, fds: Iterable[int], timeout_s: float | None) -> set[int]:
        """Those of ``fds`` that are readable or closed; empty after a signal or the timeout."""
        poll = select.poll()
        for fd in (self._read, *fds):
            poll.register(fd, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000)}
        if self._read in ready:
            ready.remove(self._read)
            with contextlib.suppress(BlockingIOError):
                while os.read(self._read, 512):
                    pass
        return ready

    def close(self) -> None:
        """Give the signals back to a forked child that rings its own bell."""
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)

    def _end(self, _number: int, _frame: object) -> None:
        self.ended = True


def reap() -> tuple[dict[int, int], bool]:
    """Wait statuses of the children that have ended, and whether any child remains."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended, False
        if pid == 0:
            return ended, True
        ended[pid] = status


def describe(status: int) -> str:
    """A wait status in words."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
