"""The file system as one process sees it: its root and its working directory, through its ``/proc`` directory.

Rules: a path is followed inside the process's root (openat2, RESOLVE_IN_ROOT), so that neither an absolute symbolic
link nor ``..`` leads to another file than the process would get; magic links (``/proc/self/fd/3``, ``/dev/fd/63``)
would be *ours* and are refused. Without openat2 (before Linux 5.6, or filtered) nothing can be opened: there is no
weaker way. A file is opened with O_PATH first and read only if it is a regular file that is not in procfs or sysfs.

The working directory is the one of *now*, and a process may have left the one it started in, so a relative name is a
claim; with the words of its exec (``Start``) it is the recorded one, and if that cannot be found again relative names
lead nowhere.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import Self

from attestd.kernel.linux.abi import fs_name
from attestd.kernel.linux.recorded import Start

_SYS_OPENAT2 = 437
_O_PATH = 0o10000000
_RESOLVE_IN_ROOT = 0x10
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NOT_FILES = frozenset({"proc", "sysfs"})
_MAX_NAMES = 65536

_TRIES = 1024
"""A path with ``..`` fails with EAGAIN when anything on the machine was renamed meanwhile; the kernel says: again."""

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class View:
    """Holds a descriptor of the root; a context manager. ``dirfd`` is an O_PATH descriptor of ``/proc/PID``.

    Raises:
        OSError: root or working directory may not be read. ProcessLookupError: the process has exited.
    """

    def __init__(self, dirfd: int, start: Start | None = None) -> None:
        self.dirfd = dirfd
        self.environ = start.environ if start is not None else None
        """The recorded environment; None: it was not recorded whole."""
        self.dead = start is not None and start.dead
        self._root_text = os.readlink("root", dir_fd=dirfd).rstrip("/")
        self.cwd = self.inside(os.readlink("cwd", dir_fd=dirfd))
        self._root = os.open("root", _O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dirfd)
        if start is not None:
            self.cwd = self._began_in(start)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)

    def inside(self, label: str) -> str:
        """A path as the kernel printed it for us, as the process would write it."""
        inner = label.removeprefix(self._root_text) if label.startswith(self._root_text + "/") else label
        return inner or "/"

    def here(self) -> str:
        """The working directory. Raises FileNotFoundError if the recorded one cannot be found again."""
        if not self.cwd:
            raise FileNotFoundError(errno.ENOENT, "cannot find the recorded working directory again")
        return self.cwd

    def absolute(self, name: str) -> str:
        """``name`` from the working directory; ``..`` is left to the kernel. Raises FileNotFoundError: unknown."""
        return name if name.startswith("/") else os.path.join(self.here(), name)

    def _began_in(self, start: Start) -> str:
        """The recorded working directory, if a path still leads to it; else an empty text."""
        for path in dict.fromkeys((start.cwd, self.cwd)):
            if path is None:
                continue
            try:
                handle = self.handle(path)
            except OSError:
                continue
            try:
                if start.is_in(os.fstat(handle), fs_name(handle)):
                    return path
            finally:
                os.close(handle)
        return ""

    def handle(self, path: str) -> int:
        """An O_PATH descriptor of what an absolute path leads to. Raises OSError."""
        how = _OpenHow(_O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT)
        where = os.fsencode(path)
        if b"\0" in where:
            raise OSError(errno.EINVAL, "cannot open: the name contains a zero byte")
        for _ in range(_TRIES):
            fd = int(_libc.syscall(_SYS_OPENAT2, self._root, where, ctypes.byref(how), ctypes.sizeof(how)))
            if fd >= 0:
                return fd
            number = ctypes.get_errno()
            if number != errno.EAGAIN:
                break
        raise OSError(number, os.strerror(number))

    def stat(self, path: str) -> os.stat_result | None:
        """What the path leads to; None if it leads nowhere."""
        try:
            fd = self.handle(path)
        except OSError:
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def is_file(self, path: str) -> bool:
        """Whether the path leads to a regular file."""
        found = self.stat(path)
        return found is not None and stat.S_ISREG(found.st_mode)

    def is_directory(self, path: str) -> bool:
        """Whether the path leads to a directory."""
        found = self.stat(path)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def open(self, path: str) -> int:
        """Open a regular file for reading; the caller closes it. Raises OSError."""
        return regular(self.handle(path))

    def descriptor(self, number: int) -> int:
        """Open for reading the regular file behind a descriptor of the process. Raises OSError."""
        if self.dead:
            raise OSError(errno.EBADF, "cannot open a descriptor of a process that has exited")
        return regular(os.open(f"fd/{number}", _O_PATH | os.O_CLOEXEC, dir_fd=self.dirfd))

    def read(self, path: str, limit: int) -> bytes:
        """At most ``limit`` bytes of a regular file. Raises OSError."""
        with open(self.open(path), "rb") as file:
            return file.read(limit)

    def names(self, path: str) -> list[str]:
        """Sorted entries of a directory; empty if it is none. Raises OSError if there are more than 65536."""
        try:
            handle = self.handle(path)
        except OSError:
            return []
        try:
            with os.scandir(f"/proc/self/fd/{handle}") as found:
                names = sorted(entry.name for _, entry in zip(range(_MAX_NAMES + 1), found, strict=False))
        except OSError:
            return []
        finally:
            os.close(handle)
        if len(names) > _MAX_NAMES:
            raise OSError(errno.E2BIG, "cannot search: the directory has too many entries")
        return names


def regular(handle: int) -> int:
    """Turn an O_PATH descriptor, which is closed, into a readable one of a regular file. Raises OSError."""
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode) or fs_name(handle) in _NOT_FILES:
            raise OSError(errno.EINVAL, "cannot read: not a regular file")
        return os.open(f"/proc/self/fd/{handle}", _READ)
    finally:
        os.close(handle)


def label(fd: int) -> str:
    """The path of an open file as the kernel prints it. Raises OSError."""
    return os.readlink(f"/proc/self/fd/{fd}")
