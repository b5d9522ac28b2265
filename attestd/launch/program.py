"""The launcher: a small single-threaded process that starts stdio servers and lets nothing of them survive.

Run by the daemon as ``python -I -S program.py CONTROL_FD DAEMON_PID``: standard library only, and nothing of attestd.

Rules
- The daemon sends one datagram per server on the control socket: fields joined by NUL (``grace in ms``, program file,
  working directory, number of arguments, the arguments, ``NAME=value`` …) and four descriptors: the server's standard
  input, output and error, and one end of a *line*, the socket on which the daemon hears of this server alone.
- For each server one supervisor is forked. It is a subreaper, so every descendant of the server, however often it
  forked or called setsid, becomes the supervisor's child when its parent dies; no child left (ECHILD) is the proof that
  nothing survives. Signals go through pidfds whose parent was read again, so a reused pid is never hit.
- On the line the supervisor says ``started PID`` or ``failed ERRNO STAGE`` and later ``exit TEXT``; the line closes
  when the last descendant is gone. The daemon says ``stop``; the line closing means that the daemon is gone.
- Death travels downwards: the launcher and the supervisors get SIGTERM when their parent dies, the server SIGKILL.
  What a killed supervisor leaves behind becomes the launcher's child and is killed there.
- The server gets what the daemon sent and nothing else: environment, working directory, three descriptors, default
  signals, no new privileges, none of the daemon's ambient capabilities, its own session.
"""
# ruff: noqa: PTH110, PTH123, PTH208 - pathlib would double what each forked supervisor carries

import array
import contextlib
import ctypes
import errno
import gc
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable
from typing import NoReturn

if sys.platform != "linux":
    sys.exit("error: cannot launch servers on this platform: the launcher needs Linux")

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

MESSAGE_BYTES = 1 << 18
STOP = b"stop"
LOST_GRACE_S = 0.25
"""Between SIGTERM and SIGKILL when the daemon, the launcher or the server itself is gone."""
KILL_AGAIN_S = 0.02
ALERT_S = 0.2
"""How long after the end of a child the launcher looks for what it may have left behind."""
OPEN_FILES = 1024
"""Soft limit of the server, what programs that use select expect; the hard limit stays."""
UMASK = 0o022
REPORT_FD = 3
"""Where the server's process says why it cannot execute; closed by a successful execution."""

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int | bytes) -> None:
    """Set one attribute of this process. Raises OSError."""
    zero = ctypes.c_ulong(0)
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    if _libc.prctl(option, argument, zero, zero, zero) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot set process attribute {option}: {os.strerror(number)}")


def tie_to_parent(parent: int, fatal: int) -> None:
    """Ask for a signal when the parent dies; leave at once if that has happened already."""
    prctl(PR_SET_PDEATHSIG, fatal)
    if os.getppid() != parent:
        os._exit(0)


class Bell:
    """Makes SIGCHLD and SIGTERM visible to poll, so that one wait sees everything."""

    def __init__(self) -> None:
        self.ended = False
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
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


def parent_of(pid: int) -> int:
    """Parent now; -1 if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return int(stat.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return -1


def children_by_scan(pid: int) -> list[int]:
    """Children found by reading every process; for kernels without CONFIG_PROC_CHILDREN."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and parent_of(int(name)) == pid]


def children_of(pid: int) -> list[int]:
    """Children of every thread of a process; may miss one that appears meanwhile, so callers look again."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", "rb") as listed:
                found += map(int, listed.read().split())
    except ProcessLookupError:
        return found
    except FileNotFoundError:
        return children_by_scan(pid) if os.path.exists(f"/proc/{pid}") else found
    return found


def signal_tree(number: int, spare: Iterable[int] = ()) -> None:
    """Send a signal to every descendant, parents first; ``spare`` and what is below them is left alone."""
    me = os.getpid()
    spared = set(spare)
    todo: list[tuple[int, int]] = []
    _find(me, me, -1, spared, todo)
    while todo:
        pid, fd = todo.pop()
        _find(pid, me, fd, spared, todo)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(fd, number)
        os.close(fd)


def _find(parent: int, me: int, parent_fd: int, spared: set[int], todo: list[tuple[int, int]]) -> None:
    """Add the children of ``parent`` that provably are its children, or ours, while their pidfd is held."""
    for child in children_of(parent):
        if child in spared:
            continue
        try:
            fd = os.pidfd_open(child)
        except OSError:
            continue
        if parent_of(child) in (parent, me) and (parent_fd < 0 or _unreaped(parent_fd)):
            todo.append((child, fd))
        else:
            os.close(fd)


def _unreaped(fd: int) -> bool:
    """Whether the pid behind this pidfd cannot have been reused."""
    try:
        signal.pidfd_send_signal(fd, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


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


class Order:
    """What to start, as the daemon sent it."""

    def __init__(self, message: bytes) -> None:
        grace, self.file, self.cwd, count, *words = message.split(b"\0")
        self.grace_s = int(grace) / 1000
        self.argv = words[: int(count)]
        self.env = dict(word.split(b"=", 1) for word in words[int(count) :])


def become_server(order: Order, stdio: list[int], supervisor: int, report: int) -> NoReturn:
    """In the forked child: set everything up and execute; on failure say where, on ``report``, and leave."""
    stage = b"set up its process"
    try:
        os.setsid()
        tie_to_parent(supervisor, signal.SIGKILL)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        soft = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.umask(UMASK)
        for target, fd in enumerate(stdio):
            os.dup2(fd, target)
        if report != REPORT_FD:
            os.dup2(report, REPORT_FD, inheritable=False)
            report = REPORT_FD
        os.closerange(REPORT_FD + 1, os.sysconf("SC_OPEN_MAX"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        stage = b"enter " + order.cwd
        os.chdir(order.cwd)
        stage = b"execute " + order.file
        os.execve(order.file, order.argv, order.env)  # noqa: S606 - a shell is what must not be here
    except OSError as error:
        os.write(report, b"%d\0%s" % (error.errno or errno.EINVAL, stage))
    finally:
        os._exit(127)


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors."""
    for fd in fds:
        os.close(fd)


class Supervisor:
    """Lives as long as one server or any of its descendants."""

    def __init__(self, order: Order, line: socket.socket) -> None:
        self._order = order
        self._line = line
        self._bell = Bell()
        self._fds = {line.fileno()}
        self._report = -1
        self._server = 0
        self._plan: list[tuple[float, int]] = []
        self._lost = False

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
            ready = self._bell.wait(self._fds, self._plan[0][0] - time.monotonic() if self._plan else None)
            if self._report in ready:
                self._reported()
            if self._line.fileno() in ready:
                self._told()
            if self._bell.ended:
                self._lose()
            ended, remain = reap()
            if self._server in ended:
                self._exited(ended[self._server])
            self._act()

    def _reported(self) -> None:
        """The server's exec succeeded (end of file) or failed."""
        failure = os.read(self._report, 8192)
        self._fds.discard(self._report)
        os.close(self._report)
        self._report = -1
        if failure:
            self._say(b"failed\0" + failure)
            self._server = 0
        else:
            self._say(b"started\0%d" % self._server)

    def _exited(self, status: int) -> None:
        if self._report >= 0:
            self._reported()
        if self._server:
            self._say(b"exit\0" + describe(status).encode())
        self._server = 0
        self._end_after(0.0, LOST_GRACE_S)

    def _told(self) -> None:
        """A word of the daemon, or its end."""
        try:
            word = self._line.recv(64)
        except ConnectionError:
            word = b""
        if word == STOP and not self._plan:
            self._end_after(self._order.grace_s, self._order.grace_s)
        elif not word:
            self._fds.discard(self._line.fileno())
            self._lose()

    def _lose(self) -> None:
        """Daemon or launcher are gone: end quickly."""
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
            number = self._plan.pop(0)[1]
            signal_tree(number)
            if not self._plan:
                self._plan = [(now + KILL_AGAIN_S, number)]

    def _say(self, words: bytes) -> None:
        with contextlib.suppress(OSError):
            self._line.send(words, socket.MSG_DONTWAIT)


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
            self._alert_until = time.monotonic() + ALERT_S
        if remain and time.monotonic() < self._alert_until:
            signal_tree(signal.SIGKILL, self._supervisors)
        return remain

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
            self._fork(Order(message), stdio, line)
        except OSError as error:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(line)) as told:
                told.send(b"failed\0%d\0fork" % (error.errno or errno.EAGAIN))
        finally:
            close_all(fds)
        return True

    def _fork(self, order: Order, stdio: list[int], line: int) -> None:
        me = os.getpid()
        pid = os.fork()
        if pid != 0:
            self._supervisors.add(pid)
            return
        try:
            self._bell.close()
            self._control.close()
            supervisor = Supervisor(order, socket.socket(fileno=line))
            tie_to_parent(me, signal.SIGTERM)
            prctl(PR_SET_CHILD_SUBREAPER, 1)
            prctl(PR_SET_NAME, b"attestd-superv")
            supervisor.run(stdio)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            raise
        finally:
            os._exit(0)


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
