"""The supervisor of one stdio server where the kernel ties no process to its parent: macOS.

Run by the daemon as ``python -I -S supervise.py LINE_FD``, with the server's standard input, output and error as its
own: standard library only, and of attestd nothing but this file, ``supervision``, ``bell`` and ``frames``. Nothing here
is of one operating system, so the tests run it as it is.

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

from attestd.launch.bell import describe
from attestd.launch.frames import Frames, receive
from attestd.launch.supervision import LOST_GRACE_S, Fields, Supervision, make_plain

MIB = 1 << 20
RLIMITS = {
    b"open_files": (resource.RLIMIT_NOFILE, 1),
    b"processes": (resource.RLIMIT_NPROC, 1),
    b"file_mib": (resource.RLIMIT_FSIZE, MIB),
}
"""Limits that macOS enforces: kernel's number and unit in bytes. It takes RLIMIT_AS, and ignores it."""


class Order(Fields):
    """What to start, as the daemon sent it. Raises ValueError."""

    def __init__(self, message: bytes) -> None:
        super().__init__(message)
        limits = (word.split(b"=", 1) for word in self.confinement)
        self.limits = [(RLIMITS[key], int(number)) for key, number in limits]


def become_server(order: Order, report: int) -> NoReturn:
    """In the forked child: set everything up and execute; on failure say where, on ``report``, and leave."""
    stage = b"set up its process"
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, make_plain())
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


class Supervisor(Supervision):
    """Lives as long as its group is to live."""

    def __init__(self, order: Order, line: Frames) -> None:
        super().__init__(order.grace_s, line.fileno(), hear=line.recv, say=line.send)
        self._order = order
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
            self._listen()
            self._reap()
            self._act()

    def _reported(self) -> None:
        if self._failed():
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


def main(words: list[str]) -> None:
    """Be the supervisor on the line whose descriptor is the second word."""
    line = socket.socket(fileno=int(words[1]))
    line.set_inheritable(False)
    message = receive(line)
    if message:
        Supervisor(Order(message), Frames(line)).run()


if __name__ == "__main__":
    main(sys.argv)
