"""A handle on one process that the reuse of its pid cannot redirect.

Rules: the handle owns a pidfd and an O_PATH descriptor of ``/proc/PID``. That directory is bound to the process for
ever, and a signal 0 through the pidfd *after* the directory was opened proves that it is this process. Everything is
read through the directory descriptor; no path with a pid in it is opened again. ``pagemap`` is kept open: reading it
gives end of file once the image has gone (exec or exit). ``status`` and ``stat`` are kept open because they are read
on every message or collection; they stay bound to the process and give ESRCH after its death.

A handle is shared by the fact cache and by any number of watches; it counts its users and closes with the last.
"""

from __future__ import annotations

import errno
import functools
import os
import select
import signal
import sys
import threading
from typing import Self

from attestd.errors import Cause, EvidenceError
from attestd.kernel.linux.abi import PIDFS_MAGIC, fs_magic, pidfd_ppid
from attestd.kernel.linux.status import Stat, Status, parse_stat, parse_status

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY
_CHUNK = 65536
UNTRACED = b"\nTracerPid:\t0\n"
_ONE_THREAD = b"\nThreads:\t1\n"
_LINKS_OF_ONE = 3  # the directory's own two and one for the thread
_count_lock = threading.Lock()


def gone(pid: int) -> EvidenceError:
    """The refusal for a process that no longer exists."""
    return EvidenceError(Cause.PEER_GONE, f"cannot attest process {pid}: it has exited")


@functools.cache
def _links_count_threads() -> bool:
    """Whether ``task`` has one link more for one thread more, tried out on ourselves."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        task = "/proc/self/task"
        return any(os.stat(task).st_nlink == len(os.listdir(task)) + 2 for _ in range(3))  # threads come and go
    finally:
        done.set()
        thread.join()


class Process:
    """One process: ``pid``, ``pidfd``, ``dirfd`` (O_PATH of /proc/PID), ``start_ticks``, ``pidfs_ino`` (or None)."""

    __slots__ = ("_stat_fd", "_users", "dirfd", "pagemap_fd", "pid", "pidfd", "pidfs_ino", "start_ticks", "status_fd")

    def __init__(self, pid: int, pidfd: int) -> None:
        """Take over ``pidfd``. Use ``Process.open``."""
        self.pid = pid
        self.pidfd = pidfd
        self.dirfd = self.status_fd = self._stat_fd = -1
        self.pagemap_fd: int | None = None
        self._users = 1
        try:
            self.dirfd = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._prove()
            self.status_fd = os.open("status", _READ, dir_fd=self.dirfd)
            self._stat_fd = os.open("stat", _READ, dir_fd=self.dirfd)
            self.pagemap_fd = self._open_pagemap()
            self.start_ticks = self.stat().start_ticks
            self.pidfs_ino = os.fstat(pidfd).st_ino if fs_magic(pidfd) == PIDFS_MAGIC else None
        except BaseException:
            self._close()
            raise

    @classmethod
    def open(cls, pid: int, pidfd: int | None = None) -> Process:
        """Hold process ``pid``; a ``pidfd`` given is taken over and must be that process's.

        Raises:
            EvidenceError: PEER_GONE - no such process, or it exited meanwhile.
            PermissionError: ``/proc/PID`` is hidden from us.
        """
        try:
            return cls(pid, os.pidfd_open(pid) if pidfd is None else pidfd)
        except (ProcessLookupError, FileNotFoundError) as error:
            raise gone(pid) from error
        except OSError as error:
            if error.errno == errno.EINVAL:  # pidfd_open of a thread that leads no group
                raise gone(pid) from error
            raise

    def retain(self) -> Process:
        """Add one user."""
        with _count_lock:
            self._users += 1
        return self

    def close(self) -> None:
        """Give up one user; the last one closes every descriptor."""
        with _count_lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def exists(self) -> bool:
        """Whether the process still owns its pid (a zombie does)."""
        try:
            signal.pidfd_send_signal(self.pidfd, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def exited(self) -> bool:
        """Whether the process has ended, reaped or not."""
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return bool(poller.poll(0))

    def same_image(self) -> bool:
        """Whether the image of the moment of opening is alive; without a readable pagemap only: not ended."""
        if self.pagemap_fd is None:
            return not self.exited()
        return len(os.pread(self.pagemap_fd, 8, 0)) == 8

    def ppid(self) -> int:
        """The parent's pid now. Raises ProcessLookupError once the process was reaped."""
        try:
            return pidfd_ppid(self.pidfd)
        except ProcessLookupError:
            raise
        except OSError:
            return self.stat().ppid

    def status_bytes(self) -> bytes:
        """``/proc/PID/status``. Raises ProcessLookupError after its death."""
        return os.pread(self.status_fd, 4096, 0)

    def status(self) -> Status:
        """The parsed status. Raises ProcessLookupError."""
        raw = self.status_bytes()
        return parse_status(raw if len(raw) < 4096 else self.read("status"))

    def stat_bytes(self) -> bytes:
        """``/proc/PID/stat``. Raises ProcessLookupError after its death."""
        return os.pread(self._stat_fd, 1024, 0)

    def stat(self) -> Stat:
        """The parsed stat line. Raises ProcessLookupError."""
        return parse_stat(self.stat_bytes())

    def open_file(self, name: str, flags: int = _READ) -> int:
        """Open a file below ``/proc/PID``; the caller closes the descriptor. Raises OSError."""
        return os.open(name, flags | os.O_CLOEXEC, dir_fd=self.dirfd)

    def read(self, name: str, limit: int = 1 << 20) -> bytes:
        """At most ``limit`` bytes of a file below ``/proc/PID``. Raises OSError."""
        fd = self.open_file(name)
        try:
            parts: list[bytes] = []
            left = limit
            while left and (part := os.read(fd, min(left, _CHUNK))):
                parts.append(part)
                left -= len(part)
            return b"".join(parts)
        finally:
            os.close(fd)

    def readlink(self, name: str) -> str:
        """The text of a link below ``/proc/PID`` (``exe``, ``cwd``, ``ns/user``, ``fd/0``). Raises OSError."""
        return os.readlink(name, dir_fd=self.dirfd)

    def argv(self) -> tuple[str, ...]:
        """The whole command line as the process shows it; invalid UTF-8 becomes U+FFFD. Raises OSError."""
        raw = self.read("cmdline")
        return tuple(word.decode("utf-8", "replace") for word in raw.removesuffix(b"\0").split(b"\0")) if raw else ()

    def environ(self) -> dict[str, str]:
        """The environment as the process shows it: its own memory, so its own words. Raises OSError."""
        pairs = (entry.partition(b"=") for entry in self.read("environ").split(b"\0") if b"=" in entry)
        return {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, _, value in pairs}

    def alone(self) -> bool:
        """Whether the process has one thread only. Raises OSError after its death.

        The kernel counts a process's threads as links of its ``task`` directory: a third of the price of ``status``.
        """
        if _links_count_threads():
            return os.stat("task", dir_fd=self.dirfd).st_nlink == _LINKS_OF_ONE
        return _ONE_THREAD in self.status_bytes()

    def thread_tracers(self) -> tuple[int, ...]:
        """Tracers of any thread. A tracer attaches to threads one by one, so the main thread alone does not tell."""
        task = self.open_file("task", os.O_RDONLY | os.O_DIRECTORY)
        try:
            threads = os.listdir(task)
        finally:
            os.close(task)
        found: set[int] = set()
        for tid in threads:
            try:
                status = self.read(f"task/{tid}/status")
                if UNTRACED not in status:
                    found.add(parse_status(status).tracer_pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
        return tuple(sorted(found - {0}))

    def _prove(self) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd, 0)
        except PermissionError:
            return

    def _open_pagemap(self) -> int | None:
        try:
            return os.open("pagemap", _READ, dir_fd=self.dirfd)
        except PermissionError:
            return None

    def _close(self) -> None:
        for fd in (self.pidfd, self.dirfd, self.status_fd, self._stat_fd, self.pagemap_fd):
            if fd is not None and fd >= 0:
                os.close(fd)
        self.dirfd = self.status_fd = self._stat_fd = self.pidfd = -1
        self.pagemap_fd = None
