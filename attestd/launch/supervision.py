"""What every supervisor of a server does alike: read its order, make its process plain, tell its line, keep its plan.

``program`` has the supervisor of Linux, where the kernel gives it every descendant; ``supervise`` the one of macOS,
where it leads a process group. Standard library only, and nothing of one operating system: this runs in isolated
interpreters.
"""

import contextlib
import os
import resource
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from attestd.launch.bell import Bell

STOP = b"stop"
WORD_BYTES = 64
LOST_GRACE_S = 0.25
"""Between SIGTERM and SIGKILL when the daemon, the launcher or the server itself is gone."""
OPEN_FILES = 1024
"""Soft limit of the server, what programs that use select expect; the hard limit stays."""
UMASK = 0o022


class Fields:
    """An order as ``starting.encode`` writes it. Raises ValueError."""

    def __init__(self, message: bytes) -> None:
        grace, self.file, self.cwd, count, *words = message.split(b"\0")
        self.grace_s = int(grace) / 1000
        self.argv, (count, *words) = words[: int(count)], words[int(count) :]
        self.confinement = words[: int(count)]
        """The words of its sandbox."""
        self.env = dict(word.split(b"=", 1) for word in words[int(count) :])


def make_plain() -> tuple[int, int]:
    """In the server's process: signals as they are by default, no core file, the usual mask for new files.

    Returns the limit of open files that it is to have when nothing more has to be opened: soft and hard.
    """
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(UMASK)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return (OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)), hard


class Supervision(ABC):
    """One server: what is said of it and heard about it, and which signals it gets when."""

    def __init__(
        self, grace_s: float, line_fd: int, *, hear: Callable[[int], bytes], say: Callable[[bytes], object]
    ) -> None:
        """``hear(size)`` and ``say(words)``: the daemon's line, whose descriptor is ``line_fd``; neither waits."""
        self._grace_s = grace_s
        self._line_fd = line_fd
        self._hear = hear
        self._say_it = say
        self._bell = Bell()
        self._fds = {line_fd}
        self._report = -1
        self._server = 0
        self._plan: list[tuple[float, int]] = []
        self._lost = False

    @abstractmethod
    def _reported(self) -> None:
        """Something came from the server's process on ``_report``: see ``_failed``."""

    def _listen(self) -> None:
        """Wait for whatever comes first, the next signal of the plan at the latest."""
        ready = self._bell.wait(self._fds, self._plan[0][0] - time.monotonic() if self._plan else None)
        if self._report in ready:
            self._reported()
        if self._line_fd in ready:
            self._told()
        if self._bell.ended:
            self._lose()

    def _failed(self) -> bool:
        """Say whether the server's exec succeeded (end of file) or failed; whether it failed."""
        failure = os.read(self._report, 8192)
        self._fds.discard(self._report)
        os.close(self._report)
        self._report = -1
        self._say(b"failed\0" + failure if failure else b"started\0%d" % self._server)
        return bool(failure)

    def _told(self) -> None:
        """A word of the daemon, or its end."""
        try:
            word = self._hear(WORD_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            word = b""
        if word == STOP and not self._plan:
            self._end_after(self._grace_s, self._grace_s)
        elif not word:
            self._fds.discard(self._line_fd)
            self._lose()

    def _lose(self) -> None:
        """Daemon or launcher are gone, or everything is to end: end quickly."""
        if not self._lost:
            self._lost = True
            self._end_after(0.0, LOST_GRACE_S)

    def _end_after(self, first_s: float, then_s: float) -> None:
        now = time.monotonic()
        plan = [(now + first_s, int(signal.SIGTERM)), (now + first_s + then_s, int(signal.SIGKILL))]
        if not self._plan or plan[-1][0] < self._plan[-1][0]:
            self._plan = plan

    def _say(self, words: bytes) -> None:
        with contextlib.suppress(OSError):
            self._say_it(words)
