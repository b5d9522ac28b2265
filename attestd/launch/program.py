"""The launcher: a small single-threaded process that starts stdio servers and lets nothing of them survive.

Run by the daemon as ``python -I -S program.py CONTROL_FD DAEMON_PID``: standard library only, and of attestd nothing
but this file, ``supervision``, ``bell``, ``tree`` and ``sandbox``. ``system`` builds the launcher of system mode from
the same parts.

Rules
- The daemon sends one datagram per server on the control socket: fields joined by NUL (``grace in ms``, program file,
  working directory, number of arguments, the arguments, number of words of its sandbox, these words, ``NAME=value`` …)
  and four descriptors: the server's standard input, output and error, and one end of a *line*, the socket on which the
  daemon hears of this server alone.
- For each server one supervisor is forked. It is a subreaper, so every descendant of the server, however often it
  forked or called setsid, becomes the supervisor's child when its parent dies; no child left (ECHILD) is the proof that
  nothing survives.
- On the line the supervisor says ``started PID`` or ``failed ERRNO STAGE`` and later ``exit TEXT``; the line closes
  when the last descendant is gone. The daemon says ``stop``; the line closing means that the daemon is gone.
- Death travels downwards: the launcher and the supervisors get SIGTERM when their parent dies, the server SIGKILL.
  What a killed supervisor leaves behind becomes the launcher's child and is killed there.
- The server gets what the daemon sent and nothing else: environment, working directory, three descriptors, default
  signals, no new privileges, none of the daemon's ambient capabilities, its own session.
"""

import array
import contextlib
import errno
import gc
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

if __name__ == "__main__":  # last, so that nothing beside this package can stand for the standard library
    sys.path.append(__file__.removesuffix("/attestd/launch/program.py"))

from attestd.launch.bell import Bell, describe, reap
from attestd.launch.sandbox import Sandbox, Step
from attestd.launch.supervision import LOST_GRACE_S, Fields, Supervision, make_plain
from attestd.launch.tree import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_NAME,
    PR_SET_NO_NEW_PRIVS,
    prctl,
    signal_tree,
    tie_to_parent,
)

if sys.platform != "linux":
    sys.exit("error: cannot launch servers on this platform: the launcher needs Linux")

MESSAGE_BYTES = 1 << 18
KILL_AGAIN_S = 0.02
ALERT_S = 0.2
"""How long after the end of a child the launcher looks for what it may have left behind."""
REPORT_FD = 3
"""Where the server's process says why it cannot execute; closed by a successful execution."""


class Order(Fields):
    """What to start, as the daemon sent it."""

    def __init__(self, message: bytes) -> None:
        super().__init__(message)
        self.sandbox = Sandbox(self.confinement)

    def steps(self) -> Iterable[Step]:
        """What the server's process does between the common set-up and its execution."""
        return (*self.sandbox.limited(), *self.sandbox.confined())

    def execute(self) -> NoReturn:
        """Become the program. Raises OSError."""
        os.execve(self.file, self.argv, self.env)  # noqa: S606 - a shell is what must not be here


def become_server(order: Order, stdio: list[int], supervisor: int, report: int) -> NoReturn:
    """In the forked child: set everything up and execute; on failure say where, on ``report``, and leave."""
    stage = b"set up its process"
    try:
        os.setsid()
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
        files = make_plain()
        for target, fd in enumerate(stdio):
            os.dup2(fd, target)
        if report != REPORT_FD:
            os.dup2(report, REPORT_FD, inheritable=False)
            report = REPORT_FD
        os.closerange(REPORT_FD + 1, os.sysconf("SC_OPEN_MAX"))
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
        for stage, step in order.steps():  # noqa: B007 - the failure below names it
            step()
        stage = b"set up its process"
        tie_to_parent(supervisor, signal.SIGKILL)
        stage = b"enter " + order.cwd
        os.chdir(order.cwd)
        stage = b"execute " + order.file
        order.execute()
    except OSError as error:
        os.write(report, b"%d\0%s" % (error.errno or errno.EINVAL, stage))
    finally:
        os._exit(127)


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)


class Supervisor(Supervision):
    """Lives as long as one server or any of its descendants."""

    def __init__(self, order: Order, line: socket.socket) -> None:
        super().__init__(
            order.grace_s, line.fileno(), hear=line.recv, say=lambda words: line.send(words, socket.MSG_DONTWAIT)
        )
        self._order = order

    def run(self, stdio: list[int]) -> None:
        """Start the server and stay until nothing of it is left."""
        me = os.getpid()
        self._report, report = os.pipe2(os.O_CLOEXEC)
        self._server = os.fork()
        if self._server == 0:
            become_server(self._order, stdio, me, report)
        close_all((*stdio, report))
        self._fds.add(self._report)
        remain = True
        while remain:
            self._listen()
            ended, remain = reap()
            if self._server in ended:
                self._exited(ended[self._server])
            self._act()

    def _reported(self) -> None:
        if self._failed():
            self._server = 0

    def _exited(self, status: int) -> None:
        if self._report >= 0:
            self._reported()
        if self._server:
            self._say(b"exit\0" + describe(status).encode())
        self._server = 0
        self._end_after(0.0, LOST_GRACE_S)

    def _act(self) -> None:
        now = time.monotonic()
        while self._plan and self._plan[0][0] <= now:
            number = self._plan.pop(0)[1]
            signal_tree(number)
            if not self._plan:
                self._plan = [(now + KILL_AGAIN_S, number)]


class Launcher:
    """Forks supervisors and kills what a dead one left behind."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._bell = Bell()
        self._supervisors: set[int] = set()
        self._alert_until = 0.0

    def run(self) -> None:
        """Serve until the daemon is gone, then end everything."""
        fds = [self._control.fileno()]
        open_ = True
        while open_ and not self._bell.ended:
            if self._bell.wait(fds, KILL_AGAIN_S if time.monotonic() < self._alert_until else None):
                open_ = self._serve()
            self._tidy()
        self._control.close()
        for pid in self._supervisors:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 4 * LOST_GRACE_S
        while self._tidy():
            if time.monotonic() > deadline:
                signal_tree(signal.SIGKILL)
            self._bell.wait((), KILL_AGAIN_S)

    def _tidy(self) -> bool:
        """Reap; kill every child that is not a supervisor. Returns whether any child remains."""
        ended, remain = reap()
        self._supervisors.difference_update(ended)
        if ended:
            self._cleared(ended)
            self._alert_until = time.monotonic() + ALERT_S
        if remain and time.monotonic() < self._alert_until:
            signal_tree(signal.SIGKILL, self._supervisors)
        return remain

    def _cleared(self, ended: Iterable[int]) -> None:
        """These children have ended."""

    def _serve(self) -> bool:
        """One order. False at the end of the control socket."""
        try:
            message, fds = receive(self._control)
        except ConnectionError:
            return False
        if not message:
            close_all(fds)
            return False
        *stdio, line = fds
        try:
            self._supervise(Order(message), stdio, line)
        finally:
            close_all(fds)
        return True

    def _supervise(self, order: Order, stdio: list[int], line: int) -> int:
        """Fork the supervisor of one server; its pid, or 0 after having told the line why there is none."""

        def supervise() -> None:
            supervisor = Supervisor(order, socket.socket(fileno=line))
            prctl(PR_SET_CHILD_SUBREAPER, 1)
            prctl(PR_SET_NAME, b"attestd-superv")
            supervisor.run(stdio)

        try:
            return self._fork(supervise)
        except OSError as error:
            tell(line, b"failed\0%d\0fork" % (error.errno or errno.EAGAIN))
            return 0

    def _fork(self, work: Callable[[], None]) -> int:
        """A child that does ``work``, tied to us; its pid. Raises OSError."""
        me = os.getpid()
        pid = os.fork()
        if pid != 0:
            self._supervisors.add(pid)
            return pid
        try:
            self._bell.close()
            self._control.close()
            tie_to_parent(me, signal.SIGTERM)
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            raise
        finally:
            os._exit(0)


def tell(line: int, words: bytes) -> None:
    """Say something on a line that is not ours."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(line)) as told:
        told.send(words, socket.MSG_DONTWAIT)


def receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """One datagram and its descriptors, closed on exec."""
    fds = array.array("i")
    message, ancillary, _flags, _ = control.recvmsg(
        MESSAGE_BYTES, socket.CMSG_SPACE(4 * fds.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return message, list(fds)


def main(words: list[str]) -> None:
    """Be the launcher of the daemon whose pid is the second word."""
    tie_to_parent(int(words[2]), signal.SIGTERM)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_NAME, b"attestd-launch")
    launcher = Launcher(socket.socket(fileno=int(words[1])))
    gc.disable()
    gc.freeze()
    launcher.run()


if __name__ == "__main__":
    main(sys.argv)
