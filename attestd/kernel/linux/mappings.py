"""Executable file mappings of a process: which files' code is in it, and which of them are out of place.

Rules: a mapping is *foreign* if its file has no name any more (memfd, deleted), if its path does not lead to the
mapped inode as seen from here, or if the user of the process can write it and it lies outside the installation that
the executable or its script belongs to. What lies inside that installation is as trustworthy as the program itself
and is not worth a word. The kernel is asked mapping by mapping (PROCMAP_QUERY, Linux 6.11), else ``maps`` is read as
text.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator

from attestd.kernel.linux.access import Access
from attestd.kernel.linux.process import Process

MAX_FILES = 512
_MAX_MAPPINGS = 8192
_PROCMAP_QUERY = 0xC0686611  # _IOWR('f', 17, 104 bytes)
_NEXT_EXECUTABLE_FILE = 0x04 | 0x10 | 0x20  # executable, covering or next, file-backed
_NAME_BYTES = 4352  # PATH_MAX and the suffix " (deleted)"
_QUERY = struct.Struct("=9Q4I2Q")
_INSTALLATION_DEPTH = 3


def executable_files(process: Process) -> dict[str, int]:
    """Path as the kernel prints it -> inode, for each file with an executable mapping; at most 512.

    Raises:
        OSError: the mappings may not be read.
    """
    fd = process.open_file("maps")
    try:
        return _first(queried(fd))
    except OSError:
        return _first(parsed(fd))
    finally:
        os.close(fd)


def _first(found: Iterator[tuple[str, int]]) -> dict[str, int]:
    files: dict[str, int] = {}
    for path, inode in found:
        files[path] = inode
        if len(files) >= MAX_FILES:
            break
    return files


def queried(fd: int) -> Iterator[tuple[str, int]]:
    """Path and inode of each executable file mapping, by PROCMAP_QUERY on an open ``maps``. Raises OSError."""
    name = ctypes.create_string_buffer(_NAME_BYTES)
    where = ctypes.addressof(name)
    address = 0
    for _ in range(_MAX_MAPPINGS):
        request = _QUERY.pack(
            _QUERY.size, _NEXT_EXECUTABLE_FILE, address, 0, 0, 0, 0, 0, 0, 0, 0, _NAME_BYTES, 0, where, 0
        )
        try:
            answer: bytes = fcntl.ioctl(fd, _PROCMAP_QUERY, request)
        except FileNotFoundError:
            return
        fields = _QUERY.unpack(answer)
        address = fields[4]
        yield os.fsdecode(name.value), fields[8]


def parsed(fd: int) -> Iterator[tuple[str, int]]:
    """The same from the text of an open ``maps``. Raises OSError."""
    with open(fd, "rb", closefd=False) as lines:
        for line in lines:
            fields = line.rstrip(b"\n").split(None, 5)
            if len(fields) == 6 and b"x" in fields[1] and fields[5].startswith(b"/"):
                yield os.fsdecode(fields[5].replace(b"\\012", b"\n")), int(fields[4])


class Judge:
    """Tells which mapped files are foreign to one program.

    Args:
        access: memo of the collection.
        uid: the user of the process.
        gids: every group of that user.
        own: files of the program (executable, script); what is installed with them is not foreign.
    """

    def __init__(self, access: Access, uid: int, gids: tuple[int, ...], own: list[str]) -> None:
        self._access = access
        self._uid = uid
        self._gids = gids
        self._roots = tuple(map(installation, own))

    def judged(self, files: dict[str, int]) -> tuple[tuple[str, bool], ...]:
        """Each mapped file with True if it is foreign, sorted by path."""
        return tuple((path, self._foreign(path, inode)) for path, inode in sorted(files.items()))

    def _foreign(self, path: str, inode: int) -> bool:
        try:
            found = os.stat(path, follow_symlinks=False)
        except OSError:
            return True
        if found.st_ino != inode:
            return True
        return not path.startswith(self._roots) and self._access.writable(path, found, self._uid, self._gids)


def installation(path: str) -> str:
    """Root of the installation that a file belongs to, with a final slash.

    That is two levels up from ``…/bin/x``, else its directory. A directory less than three levels deep (``/usr``,
    ``/home/user``) is nobody's installation: then the file itself is.
    """
    directory = os.path.dirname(path)
    if os.path.basename(directory) in {"bin", "sbin", "libexec", ".bin", "Scripts"}:
        directory = os.path.dirname(directory)
    return directory + "/" if directory.count("/") >= _INSTALLATION_DEPTH else path
