"""Where the recorder lives between programs: one directory in the BPF file system.

``<root>/current/`` holds maps, programs and links under their names; what is pinned there keeps recording when every
program that opened it has gone. A new set is pinned under another name first and exchanged with ``current`` in one
step. Only root, and a group that ``load --group`` names, can look inside: recorded environments may hold secrets.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator

from attestd.kernel.linux.abi import fs_magic
from attestd.kernel.linux.recorder.failures import RecorderError, refused

BPF_FS = "/sys/fs/bpf"
ROOT = f"{BPF_FS}/attestd"
CURRENT = "current"
_BPF_MAGIC = 0xCAFE4A11
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_O_PATH = 0o10000000

_libc = ctypes.CDLL(None, use_errno=True)


def current(root: str) -> str:
    """The directory of the loaded set."""
    return f"{root}/{CURRENT}"


def ensure_root(root: str) -> None:
    """Mount the BPF file system if it is not, and make the directory. Raises NotPermittedError, RecorderError."""
    parent = os.path.dirname(root)
    if not is_bpf(parent):
        if parent != BPF_FS:
            raise RecorderError(f"cannot use {parent}: it is not in a BPF file system")
        if _libc.mount(b"bpf", os.fsencode(parent), b"bpf", 0, b"mode=0711") != 0:
            number = ctypes.get_errno()
            raise refused(f"mount the BPF file system on {parent}", OSError(number, os.strerror(number)))
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
    except OSError as error:
        raise refused(f"make {root}", error) from None
    verify_owner(root)


def verify_owner(*directories: str) -> None:
    """Refuse directories that somebody else could have filled: the BPF file system may be writable for everyone.

    Raises:
        RecorderError: not a directory, not owned by root or by us, or others may write it.
        OSError: it is not there.
    """
    for directory in directories:
        found = os.lstat(directory)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {0, os.geteuid()} or found.st_mode & 0o022:
            raise RecorderError(
                f"cannot use {directory}: mode {stat.filemode(found.st_mode)} and owner {found.st_uid}, expected a "
                f"directory of uid 0 or {os.geteuid()} that nobody else can write",
                hint="find out who made it, remove it, and load the recorder again",
            )


def is_bpf(path: str) -> bool:
    """Whether a directory lies in a BPF file system, be it one that we may not list, such as ``ensure_root`` mounts."""
    try:
        fd = os.open(path, _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return fs_magic(fd) == _BPF_MAGIC
    finally:
        os.close(fd)


@contextlib.contextmanager
def locked(root: str) -> Iterator[None]:
    """One loader at a time. Raises RecorderError if the directory cannot be opened."""
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise refused(f"open {root}", error) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def swap(root: str, name: str) -> None:
    """Make ``<root>/<name>`` the current set; what was current is then called ``name``, or nothing is."""
    try:
        os.lstat(current(root))
    except FileNotFoundError:
        os.rename(f"{root}/{name}", current(root))
        return
    new, old = os.fsencode(f"{root}/{name}"), os.fsencode(current(root))
    if _libc.renameat2(_AT_FDCWD, new, _AT_FDCWD, old, _RENAME_EXCHANGE) == 0:
        return
    number = ctypes.get_errno()
    if number not in {errno.EINVAL, errno.ENOSYS}:
        raise OSError(number, os.strerror(number))
    os.rename(current(root), f"{root}/{name}.old")  # before Linux 5.18: two steps, between which nothing is current
    os.rename(f"{root}/{name}", current(root))
    os.rename(f"{root}/{name}.old", f"{root}/{name}")


def share(directory: str, group: int, writable: frozenset[str]) -> None:
    """Let a group read what is pinned in ``directory``, and write what ``writable`` names.

    To open a program, which is how its counters are read, the kernel asks for both.
    """
    os.chown(directory, -1, group)
    os.chmod(directory, 0o750)  # noqa: S103 - for the group that was named
    for name in os.listdir(directory):
        os.chown(f"{directory}/{name}", -1, group)
        os.chmod(f"{directory}/{name}", 0o660 if name in writable or name.startswith("program_") else 0o640)


def remove(directory: str) -> None:
    """Remove a set; its links end with their pins. A missing directory is fine."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)


def remove_empty(root: str) -> None:
    """Remove the directory if nothing is loaded in it."""
    with contextlib.suppress(OSError):
        os.rmdir(root)


def leftovers(root: str) -> list[str]:
    """Directories that a loader left when it was killed."""
    return [f"{root}/{name}" for name in os.listdir(root) if name != CURRENT]


def cgroup_root() -> str | None:
    """The root of the cgroup2 hierarchy, where a program sees every process; None if none is visible."""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            _, path, kind, *_ = line.split(" ")
            if kind == "cgroup2":
                found = path.encode("utf-8", "surrogateescape").decode("unicode_escape")
                with contextlib.suppress(OSError):
                    if os.stat(found).st_ino == 1:
                        return found
    return None
