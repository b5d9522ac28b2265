"""Facts about a file on macOS, through an open descriptor.

Rules: macOS gives no descriptor of a running image, only a path, and lets anybody with the right to write change a
file that runs. So the content of an executable counts only if one of its code directories has the cdhash that the
kernel enforces for the process (``macho``); else there is no digest. The pair of SHA-256 and cdhashes is remembered
under the stat of the file: it says something about a content, not about a file, so it stays true whatever becomes of
the file. Scripts are hashed anew each time. Only regular files are read, and without following a last symbolic link
that the kernel did not print; the path is the one that the kernel finds for the descriptor.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections import OrderedDict

import msgspec

from attestd.evidence.model import FileFacts
from attestd.kernel.darwin.access import Access
from attestd.kernel.darwin.libsystem import System
from attestd.kernel.darwin.macho import cdhashes

MAX_FILE_BYTES = 4 << 30
_BLOCK_BYTES = 1 << 20
_ATTEMPTS = 3
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_Version = tuple[int, int, int, int, int]


class _Content(msgspec.Struct, frozen=True):
    sha256: str
    cdhashes: frozenset[str]


class FileReader:
    """Reads facts. One per daemon; safe for several threads. ``entries``: contents remembered at most."""

    def __init__(self, system: System, entries: int = 1024) -> None:
        self._system = system
        self._entries = entries
        self._lock = threading.Lock()
        self._contents: OrderedDict[_Version, _Content] = OrderedDict()

    def executable(self, path: str, cdhash: str, uids: frozenset[int], access: Access) -> FileFacts:
        """Facts about the file of an image. ``sha256`` is None unless the content is tied to ``cdhash``.

        Raises OSError.
        """
        fd = open_regular(path)
        try:
            content, found = self._content(fd)
            tied = content is not None and bool(cdhash) and cdhash in content.cdhashes
            return self._facts(fd, found, content.sha256 if content is not None and tied else None, uids, access)
        finally:
            os.close(fd)

    def script(self, fd: int, uids: frozenset[int], access: Access) -> FileFacts:
        """Facts about an open script. Raises OSError."""
        digest, found = _hashed(fd)
        return self._facts(fd, found, digest, uids, access)

    def path_of(self, fd: int) -> str:
        """The path that the kernel finds for one of our descriptors. Raises OSError."""
        return os.fsdecode(self._system.vnode(os.getpid(), fd).vip_path)

    def _content(self, fd: int) -> tuple[_Content | None, os.stat_result]:
        before = os.fstat(fd)
        with self._lock:
            known = self._contents.get(_version(before))
        if known is not None:
            return known, before
        digest, after = _hashed(fd)
        directories = cdhashes(fd)
        final = os.fstat(fd)
        if digest is None or _version(after) != _version(final):
            return None, final
        content = _Content(digest, directories)
        with self._lock:
            self._contents[_version(final)] = content
            while len(self._contents) > self._entries:
                self._contents.popitem(last=False)
        return content, final

    def _facts(
        self, fd: int, found: os.stat_result, digest: str | None, uids: frozenset[int], access: Access
    ) -> FileFacts:
        path = self.path_of(fd)
        return FileFacts(
            path=path,
            sha256=digest,
            dev=found.st_dev,
            ino=found.st_ino,
            size=found.st_size,
            mode=found.st_mode,
            owner_uid=found.st_uid,
            owner_gid=found.st_gid,
            ctime_ns=found.st_ctime_ns,
            fs=self._system.file_system(fd),
            writable=access.writable(path, found, uids),
        )


def open_regular(path: str) -> int:
    """Open a regular file for reading. Raises OSError, EINVAL where it is none."""
    fd = os.open(path, _READ)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "cannot read: not a regular file")
    return fd


def _hashed(fd: int) -> tuple[str | None, os.stat_result]:
    """SHA-256 of the whole content, and the stat that held before and after; None: it kept changing or is too large."""
    after = os.fstat(fd)
    for _ in range(_ATTEMPTS):
        before = after
        if before.st_size > MAX_FILE_BYTES:
            break
        digest, offset = hashlib.sha256(), 0
        while block := os.pread(fd, _BLOCK_BYTES, offset):
            digest.update(block)
            offset += len(block)
            if offset > before.st_size:
                break
        after = os.fstat(fd)
        if _version(before) == _version(after) and offset == after.st_size:
            return digest.hexdigest(), after
    return None, after


def _version(found: os.stat_result) -> _Version:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
