"""Who can write to the standard input of a process: the holders of the other end of its pipe or socket pair.

Rules: a pipe is named by its inode, and the mode bits of a descriptor link say whether it is open for writing; of a
socket the other end is asked from sock_diag, and any holder of it can write. All processes are looked at, then the
holders that were found are looked at once more: a process between fork and exec holds copies for an instant, and is
not reported unless it still does. The answer is a lower bound: a descriptor in flight between two processes, or
inside an io_uring, has no holder. A process of another user whose descriptors we may not list makes the answer
incomplete, except one whose real, effective and saved uid are 0: root can write into any process anyway.
"""

from __future__ import annotations

import os
import stat
import sys

import msgspec
import psutil

from attestd.evidence.model import InputHolders
from attestd.kernel.linux.process import Process
from attestd.kernel.linux.status import parse_status
from attestd.kernel.linux.unixdiag import peer_inode, socket_inode

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

_UNKNOWN = InputHolders(kind="unknown", pids=(), complete=False)


def input_holders(pid: int) -> InputHolders:
    """Holders of the write side of the standard input of ``pid``, that process left out.

    Raises:
        EvidenceError: PEER_GONE - no such process.
    """
    with Process.open(pid) as process:
        try:
            link = process.readlink("fd/0")
            found = os.stat("fd/0", dir_fd=process.dirfd)
        except FileNotFoundError:
            return InputHolders(kind="none", pids=(), complete=True)
        except OSError:
            return _UNKNOWN
        kind, wanted = _other_end(link, found.st_mode)
        if wanted is None:
            return _UNKNOWN if kind == "socket" else InputHolders(kind=kind, pids=(), complete=True)
        return msgspec.structs.replace(_scan(kind, wanted, pid), ino=found.st_ino)


def _other_end(link: str, mode: int) -> tuple[str, str | None]:
    """Kind of the input, and the link text of a descriptor of its other end."""
    if stat.S_ISFIFO(mode):
        return "pipe", link
    if stat.S_ISSOCK(mode):
        return "socket", _connected(link)
    if link == "/dev/null":
        return "none", None
    if stat.S_ISCHR(mode) and (link.startswith(("/dev/pts/", "/dev/tty", "/dev/console"))):
        return "tty", None
    return "file", None


def _connected(link: str) -> str | None:
    inode = socket_inode(link)
    try:
        other = None if inode is None else peer_inode(inode)
    except OSError:
        return None
    return None if other is None else f"socket:[{other}]"


def _scan(kind: str, wanted: str, relay: int) -> InputHolders:
    complete = True
    found: list[int] = []
    for pid in psutil.pids():
        if pid == relay:
            continue
        holds = _holds(pid, wanted, writing=kind == "pipe")
        if holds is None:
            complete = complete and _is_root(pid)
        elif holds:
            found.append(pid)
    confirmed = tuple(pid for pid in found if _holds(pid, wanted, writing=kind == "pipe"))
    return InputHolders(kind=kind, pids=confirmed, complete=complete)


def _holds(pid: int, wanted: str, *, writing: bool) -> bool | None:
    """Whether ``pid`` has such a descriptor; None: may not be looked at. A process that has exited holds nothing."""
    try:
        directory = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return None
    try:
        return any(_is_wanted(directory, name, wanted, writing=writing) for name in os.listdir(directory))
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return None
    finally:
        os.close(directory)


def _is_wanted(directory: int, name: str, wanted: str, *, writing: bool) -> bool:
    try:
        if os.readlink(name, dir_fd=directory) != wanted:
            return False
        return not writing or bool(os.lstat(name, dir_fd=directory).st_mode & stat.S_IWUSR)
    except (FileNotFoundError, ProcessLookupError):
        return False


def _is_root(pid: int) -> bool:
    """Whether the process is root's alone. One that has exited meanwhile is of no interest and counts as such."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            return parse_status(file.read()).uids == (0, 0, 0, 0)
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return False
