"""The supervisor of one stdio server where the kernel ties no process to its parent: macOS.

Run by the daemon as ``python -I -S supervise.py LINE_FD``, with the server's standard input, output and error as its
own: standard library only, and of attestd nothing but this file, ``bell`` and ``frames``. Nothing here is of one
operating system, so the tests run it as it is.

Rules
- It leads a session, and the server and what that starts belong to its process group. A group exists as long as its
  leader does, so a signal to it hits nobody else. The last signal is SIGKILL, and ends the supervisor too.
- The first message on the line is the order (``starting.encode``). Then it says ``started PID`` or ``failed ERRNO
  STAGE``, and later ``exit TEXT``, like the supervisors of Linux (``program``); the line closes when the group is gone.
- The daemon says ``stop``. The line closing means that the daemon is gone. If the supervisor goes first, the daemon
  kills its group: it has not been reaped, so that the number is still its own.
- The server gets what the daemon sent and nothing else: environment, working directory, three descriptors, default
  signals, limits.

Weaker than on Linux (docs/macos.md): who leaves the group with setsid or setpgid is signalled only while it is the
server itself; if daemon and supervisor are killed at once, nobody is left to end the server; set-uid programs work.
"""

import contextlib
import errno
import os
import resource
import signal
import socket
import sys
import time
from typing import NoReturn

if __name__ == "__main__":  # last, so that nothing beside this package can stand for the standard library
    sys.path.append(__file__.removesuffix("/attestd/launch/supervise.py"))

from attestd.launch.bell import Bell, describe
from attestd.launch.frames import Frames, receive

STOP = b"stop"
LOST_GRACE_S = 0.25
"""Between SIGTERM and SIGKILL when the daemon or the server itself is gone."""
OPEN_FILES = 1024
UMASK = 0o022
WORD_BYTES = 64
MIB = 1 << 20
RLIMITS = {
    b"open_files": (resource.RLIMIT_NOFILE, 1),
    b"processes": (resource.RLIMIT_NPROC, 1),
    b"file_mib": (resource.RLIMIT_FSIZE, MIB),
}
"""Limits that macOS enforces: kernel's number and unit in bytes. It takes RLIMIT_AS, and ignores it."""


class Order:
    """What to start, as the daemon sent it. Raises ValueError."""

    def __init__(self, message: bytes) -> None:
        grace, self.file, self.cwd, count, *words = message.split(b"\0")
        self.grace_s = int(grace) / 1000
        self.argv, (count, *words) = words[: int(count)], words[int(count) :]
        self.limits = [(RLIMITS[key], int(number)) for key, _, number in _pairs(words[: int(count)])]
        self.env = {key: value for key, _, value in _pairs(words[int(count) :])}


def _pairs(words: list[bytes]) -> list[tuple[bytes, bytes, bytes]]:
    return [word.partition(b"=") for word in words]


def become_server(order: Order, report: int) -> NoReturn:
    """In the forked child: set everything up and execute; on failure say where, on ``report``, and leave."""
    stage = b"set up its process"
    try:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError):  # some numbers belong to the C library
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        soft = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.umask(UMASK)
        stage = b"limit its process"
        for (kind, unit), value in order.limits:
            resource.setrlimit(kind, (value * unit, value * unit))
        stage = b"enter " + order.cwd
        os.chdir(order.cwd)
        stage = b"execute " + order.file
        os.execve(order.file, order.argv, order.env)  # noqa: S606 - a shell is what must not be here
    except OSError as error:
        os.write(report, b"%d\0%s" % (error.errno or errno.EINVAL, stage))
    except ValueError:  # a limit above the hard one
        os.write(report, b"%d\0%s" % (errno.EPERM, stage))
    finally:
        os._exit(127)


class Supervisor:
    """Lives as long as its group is to live."""

    def __init__(self, order: Order, line: Frames) -> None:
        self._order = order
        self._line = line
        self._bell = Bell()
        self._fds = {line.fileno()}
        self._report = -1
        self._server = 0
        self._plan: list[tuple[float, int]] = []
        self._lost = False
        self._apart = False

    def run(self) -> NoReturn:
        """Start the server and stay until its group is to be killed."""
        self._report, report = os.pipe()
        self._server = os.fork()
        if self._server == 0:
            become_server(self._order, report)
        os.close(report)
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(nothing, fd)
        self._fds.add(self._report)
        while True:
            ready = self._bell.wait(self._fds, self._plan[0][0] - time.monotonic() if self._plan else None)
            if self._report in ready:
                self._reported()
            if self._line.fileno() in ready:
                self._told()
            if self._bell.ended:
                self._lose()
            self._reap()
            self._act()

    def _reported(self) -> None:
        """The server's exec succeeded (end of file) or failed."""
        failure = os.read(self._report, 8192)
        self._fds.discard(self._report)
        os.close(self._report)
        self._report = -1
        self._say(b"failed\0" + failure if failure else b"started\0%d" % self._server)
        if failure:
            os.waitpid(self._server, 0)
            self._server = 0
            self._kill()

    def _reap(self) -> None:
        """Not before the last signal if it leads a group of its own: until then nobody else can have the number."""
        if not self._server or self._apart:
            return
        pid, status = os.waitpid(self._server, os.WNOHANG)
        if pid == 0:
            return
        if self._report >= 0:
            self._reported()
        self._server = 0
        self._say(b"exit\0" + describe(status).encode())
        self._end_after(0.0, LOST_GRACE_S)

    def _told(self) -> None:
        """A word of the daemon, or its end."""
        try:
            word = self._line.recv(WORD_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            word = b""
        if word == STOP and not self._plan:
            self._end_after(self._order.grace_s, self._order.grace_s)
        elif not word:
            self._fds.discard(self._line.fileno())
            self._lose()

    def _lose(self) -> None:
        """The daemon is gone, or everything is to end: end quickly."""
        if not self._lost:
            self._lost = True
            self._end_after(0.0, LOST_GRACE_S)

    def _end_after(self, first_s: float, then_s: float) -> None:
        now = time.monotonic()
        plan = [(now + first_s, int(signal.SIGTERM)), (now + first_s + then_s, int(signal.SIGKILL))]
        if not self._plan or plan[-1][0] < self._plan[-1][0]:
            self._plan = plan

    def _act(self) -> None:
        now = time.monotonic()
        while self._plan and self._plan[0][0] <= now:
            if self._plan.pop(0)[1] == signal.SIGKILL:
                self._kill()
            self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        """To our group, and to the server's own if it has left ours."""
        if self._server:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                self._apart = os.getpgid(self._server) == self._server
        if self._apart:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._server, number)
        os.killpg(0, number)
        self._bell.ended = False  # the signal was our own

    def _kill(self) -> NoReturn:
        """The end of everything in the group, ourselves last."""
        if self._server:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self._server, signal.SIGKILL)
            if self._apart:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._server, signal.SIGKILL)
            self._say(b"exit\0" + describe(os.waitpid(self._server, 0)[1]).encode())
        os.killpg(0, signal.SIGKILL)
        os._exit(1)

    def _say(self, words: bytes) -> None:
        with contextlib.suppress(OSError):
            self._line.send(words)


def main(words: list[str]) -> None:
    """Be the supervisor on the line whose descriptor is the second word."""
    line = socket.socket(fileno=int(words[1]))
    line.set_inheritable(False)
    message = receive(line)
    if message:
        Supervisor(Order(message), Frames(line)).run()


if __name__ == "__main__":
    main(sys.argv)
