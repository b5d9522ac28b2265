"""Facts about one file through an open descriptor, with a digest cache that is kept only where it is sound.

Rules: nothing is opened by a path that someone else may have changed; the path is a label. Only regular files are
read. The content is never mapped, for a file cut short by its owner while we hash would kill the daemon. A digest is
remembered under (dev, inode, generation, size, mtime, ctime) only if the caller says that a live process holds the
file as its main executable - the kernel then refuses every write to it (ETXTBSY) - and only on file systems where
each change moves ctime and executables are frozen; not on tmpfs, memfd, overlay, FUSE or the network. It is not
remembered while ctime is younger than 2 s: on coarse clocks a second change could leave the same key. Two threads
that meet one new file hash it once. The content of a memfd sealed against writing, growing and shrinking cannot change,
so its facts hold while the process lives.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

import msgspec

from attestd.evidence.model import FileFacts
from attestd.kernel.linux.abi import fs_name, generation
from attestd.kernel.linux.access import Access

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

SOUND_FILE_SYSTEMS = frozenset({"ext4", "xfs", "btrfs", "erofs", "squashfs"})
YOUNG_NS = 2_000_000_000
MAX_FILE_BYTES = 4 << 30
_BLOCK_BYTES = 1 << 20
_ATTEMPTS = 3
_DELETED = " (deleted)"

_Key = tuple[int, int, int, int, int, int]


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Facts, and whether the same stat result may stand for the same content later."""

    facts: FileFacts
    stable: bool


class FileReader:
    """Reads facts. One per daemon; safe for several threads.

    Args:
        entries: digests remembered at most.
        frozen_executables: this kernel refuses writes to running executables (probed); else nothing is remembered.
        clock: nanoseconds since the epoch.
    """

    def __init__(
        self, *, entries: int = 4096, frozen_executables: bool = True, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._entries = entries
        self._frozen = frozen_executables
        self._clock = clock
        self._lock = threading.Lock()
        self._digests: OrderedDict[_Key, Future[str | None]] = OrderedDict()

    def open_regular(self, path: str, *, dir_fd: int | None = None) -> int:
        """Open a regular file for reading, without ever opening a device or a FIFO.

        Raises:
            OSError: cannot be opened, or EINVAL: not a regular file.
        """
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            _require_regular(os.fstat(handle))
            return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        finally:
            os.close(handle)

    def age_ns(self, facts: FileFacts) -> int:
        """Nanoseconds since the file last changed in any way."""
        return self._clock() - facts.ctime_ns

    def facts(
        self, fd: int, path: str, uid: int, gids: tuple[int, ...], *, held: bool = False, access: Access | None = None
    ) -> FileFacts:
        """Facts about the open regular file ``fd``.

        Args:
            fd: open for reading.
            path: label, as the kernel printed it; a final `` (deleted)`` is taken off where the file is indeed deleted.
            uid: the user whose power to write decides ``writable``.
            gids: every group of that user.
            held: a live process runs this file, so its digest may be remembered.
            access: memo of the collection.

        Raises:
            OSError: EINVAL: not a regular file; or it cannot be examined.
        """
        return self.measure(fd, path, uid, gids, held=held, access=access).facts

    def measure(
        self, fd: int, path: str, uid: int, gids: tuple[int, ...], *, held: bool = False, access: Access | None = None
    ) -> Measured:
        """As ``facts``, and whether the facts may be kept as long as stat stays the same."""
        found = os.fstat(fd)
        _require_regular(found)
        deleted, label = _deleted(path, found)
        memfd = deleted and label.startswith("/memfd:")
        fs = "memfd" if memfd else fs_name(fd)
        stable = self._frozen and fs in SOUND_FILE_SYSTEMS and self._clock() - found.st_ctime_ns >= YOUNG_NS
        digest, found = self._remembered(fd, found) if held and stable else hash_file(fd)
        stable = stable or (memfd and _sealed(fd))
        facts = FileFacts(
            path=label,
            sha256=digest,
            dev=found.st_dev,
            ino=found.st_ino,
            size=found.st_size,
            mode=found.st_mode,
            owner_uid=found.st_uid,
            owner_gid=found.st_gid,
            ctime_ns=found.st_ctime_ns,
            fs=fs,
            deleted=deleted,
            memfd=memfd,
            writable=deleted or (access or Access()).writable(label, found, uid, gids),
        )
        return Measured(facts=facts, stable=stable and digest is not None)

    def _remembered(self, fd: int, found: os.stat_result) -> tuple[str | None, os.stat_result]:
        key = (found.st_dev, found.st_ino, generation(fd), found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        with self._lock:
            future = self._digests.get(key)
            if future is not None:
                self._digests.move_to_end(key)
            else:
                ours = self._digests[key] = Future()
                while len(self._digests) > self._entries:
                    self._digests.popitem(last=False)
        if future is not None:
            known = future.result()
            return (known, found) if known is not None else hash_file(fd)
        digest: str | None = None
        try:
            digest, after = hash_file(fd)
            return digest, after
        finally:
            if digest is None or _version(after) != _version(found):
                with self._lock:
                    self._digests.pop(key, None)
                digest = None
            ours.set_result(digest)


def hash_file(fd: int) -> tuple[str | None, os.stat_result]:
    """SHA-256 of a whole file, lower-case hex, and the stat result that held before and after it was read.

    None for the digest if the file kept changing, is larger than 4 GiB or gives read errors.
    """
    buffer = bytearray(_BLOCK_BYTES)
    view = memoryview(buffer)
    after = os.fstat(fd)
    for _ in range(_ATTEMPTS):
        before = after
        if before.st_size > MAX_FILE_BYTES:
            break
        digest = hashlib.sha256()
        offset = 0
        try:
            while offset <= MAX_FILE_BYTES and (count := os.preadv(fd, [buffer], offset)):
                digest.update(view[:count])
                offset += count
        except OSError:
            break
        after = os.fstat(fd)
        if _version(before) == _version(after) and offset == after.st_size:
            return digest.hexdigest(), after
    return None, after


def _sealed(fd: int) -> bool:
    """Whether nobody can change the content of this memfd any more."""
    wanted = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
    return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & wanted == wanted


def _version(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _require_regular(found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise OSError(
            errno.EINVAL, f"cannot read facts: got file type {stat.S_IFMT(found.st_mode):#o}, expected a regular file"
        )


def _deleted(path: str, found: os.stat_result) -> tuple[bool, str]:
    """Whether the file has lost its name, and its label; a live file may well be called ``prog (deleted)``."""
    if found.st_nlink == 0:
        return True, path.removesuffix(_DELETED)
    if not path.endswith(_DELETED):
        return False, path
    try:
        there = os.stat(path, follow_symlinks=False)
    except OSError:
        return True, path.removesuffix(_DELETED)
    same = (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino)
    return (False, path) if same else (True, path.removesuffix(_DELETED))
