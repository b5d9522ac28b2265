"""Which processes have a descriptor of a socket, found by looking through /proc.

Rules: a socket is named by the text of the descriptor's link, which no path can have (paths begin with a slash). Inode
numbers come round; where we may take a copy of the descriptor (pidfd_getfd), the socket's cookie proves that it is the
one. Processes are chosen by the owner of ``/proc/PID``, which is the effective uid even of processes that are not
dumpable; only where none of that uid has the socket is everyone looked at. Everything about one process is read
through one descriptor of its directory, and the start time with it, so the answer is of that process whatever becomes
of its pid.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from attestd.evidence.recorder import ProcessKey
from attestd.kernel.linux.connector.glance import TICK_NS
from attestd.kernel.linux.status import parse_stat

if sys.platform != "linux":
    raise ImportError(f"cannot use Linux interfaces on {sys.platform}")

_SYS_PIDFD_GETFD = 438
_SO_COOKIE = 57
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


class Holder(NamedTuple):
    """One process with the socket, and one of its descriptors."""

    key: ProcessKey
    """The start time is cut to the clock tick."""
    fd: int


def scan(inode: int, cookie: int, uid: int | None) -> tuple[Holder, ...]:
    """Every process of effective uid ``uid`` (None: of any) that has the socket."""
    found = (holder(pid, inode, cookie) for pid in _pids(uid))
    return tuple(each for each in found if each is not None)


def holder(pid: int, inode: int, cookie: int) -> Holder | None:
    """Process ``pid`` if it has the socket; None: it has not, is gone, or may not be looked at."""
    try:
        directory = os.open(f"/proc/{pid}", os.O_PATH | _DIRECTORY)
    except OSError:
        return None
    try:
        fd = _descriptor(directory, f"socket:[{inode}]")
        if fd is None or proven(pid, fd, cookie) is False:
            return None
        return Holder(ProcessKey(pid, _start_ns(directory)), fd)
    except (OSError, ValueError):
        return None
    finally:
        os.close(directory)


def still_holds(known: Holder, inode: int, cookie: int) -> bool:
    """Whether a holder found earlier is alive and has the socket at the same descriptor: microseconds."""
    try:
        directory = os.open(f"/proc/{known.key.pid}", os.O_PATH | _DIRECTORY)
    except OSError:
        return False
    try:
        return (
            os.readlink(f"fd/{known.fd}", dir_fd=directory) == f"socket:[{inode}]"
            and _start_ns(directory) == known.key.start_ns
            and proven(known.key.pid, known.fd, cookie) is not False
        )
    except (OSError, ValueError):
        return False
    finally:
        os.close(directory)


def proven(pid: int, fd: int, cookie: int) -> bool | None:
    """Whether descriptor ``fd`` of ``pid`` is the socket with ``cookie``; None: we may not copy the descriptor."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        copy = _libc.syscall(_SYS_PIDFD_GETFD, pidfd, fd, 0)
    finally:
        os.close(pidfd)
    if copy < 0:
        return None
    try:
        return _cookie(copy) == cookie
    finally:
        os.close(copy)


def _cookie(fd: int) -> int | None:
    """The cookie of a socket, asked without a socket object: one may change the flags that we share with the client."""
    answer, size = ctypes.c_uint64(), ctypes.c_uint32(8)
    refused = _libc.getsockopt(fd, socket.SOL_SOCKET, _SO_COOKIE, ctypes.byref(answer), ctypes.byref(size))
    return None if refused else answer.value


def _pids(uid: int | None) -> Iterator[int]:
    for pid in _numbers(os.listdir("/proc")):
        if uid is None:
            yield pid
            continue
        try:
            if os.stat(f"/proc/{pid}").st_uid == uid:
                yield pid
        except OSError:
            continue


def _descriptor(directory: int, wanted: str) -> int | None:
    fds = os.open("fd", _DIRECTORY, dir_fd=directory)
    try:
        for fd in _numbers(os.listdir(fds)):
            try:
                if os.readlink(str(fd), dir_fd=fds) == wanted:
                    return fd
            except FileNotFoundError:
                continue
    finally:
        os.close(fds)
    return None


def _start_ns(directory: int) -> int:
    fd = os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return parse_stat(os.read(fd, 1024)).start_ticks * TICK_NS
    finally:
        os.close(fd)


def _numbers(names: Iterable[str]) -> Iterator[int]:
    return (int(name) for name in names if name.isdigit())
