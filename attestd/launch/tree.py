"""Processes as the launchers see them: children, and signals that hit nobody else.

Standard library only: this runs in isolated interpreters.

Rules
- Signals go through pidfds whose parent was read again, so a reused pid is never hit.
- A process is asked to die with its parent only after its credentials have changed for the last time, because a change
  makes the kernel forget it.
"""
# ruff: noqa: PTH110, PTH123, PTH208 - pathlib would double what each forked supervisor carries

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterable

if sys.platform != "linux":
    sys.exit("error: cannot launch servers on this platform: the launcher needs Linux")

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

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
