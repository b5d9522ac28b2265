"""Whether a user could change the content behind a canonical path, by ownership and mode bits.

Rules: the owner counts as a writer whatever the mode, for it can change the mode. Every directory up to ``/`` counts,
for whoever can write one can put another file in its place; a sticky directory of someone else does not, for there
only the owner of an entry can replace it, and an entry owned by the user already counts by itself. Named entries of a
POSIX ACL are bounded by its mask, which stat shows as the group bits: where these have no write bit no entry grants
it; where they have, any ACL counts as granting it. uid 0 counts by ownership and mode alone: an entry is writable
unless root owns it and neither group nor others may write (capabilities are not considered, or root could
write everything). A path that does not lead to the file at hand, as seen from here, counts as writable: nothing is
known of the real one.

An ``Access`` remembers directories and belongs to one collection; it is never kept, for modes change.
"""

from __future__ import annotations

import os
import stat
import sys

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

_ACL = "system.posix_acl_access"
_GROUP_OR_OTHER_WRITE = 0o022


class Access:
    """Memo of directory answers for one collection."""

    __slots__ = ("_directories", "_files")

    def __init__(self) -> None:
        self._directories: dict[tuple[str, int, tuple[int, ...]], bool] = {}
        self._files: dict[tuple[str, int, int, int, tuple[int, ...]], bool] = {}

    def writable(
        self,
        path: str,
        found: os.stat_result,
        uid: int,
        gids: tuple[int, ...],
        there: os.stat_result | None = None,
    ) -> bool:
        """Whether ``uid`` with ``gids`` may write a file or replace it.

        Args:
            path: absolute and canonical.
            found: fstat of an open descriptor of the file.
            uid: the user.
            gids: every group of that user.
            there: lstat of ``path`` in this collection, where it is at hand.
        """
        key = (path, found.st_dev, found.st_ino, uid, gids)
        known = self._files.get(key)
        if known is None:
            known = self._files[key] = self._file_writable(path, found, uid, gids, there)
        return known

    def _file_writable(
        self, path: str, found: os.stat_result, uid: int, gids: tuple[int, ...], there: os.stat_result | None
    ) -> bool:
        if there is None:
            try:
                there = os.stat(path, follow_symlinks=False)
            except OSError:
                return True
        if (there.st_dev, there.st_ino) != (found.st_dev, found.st_ino) or not path.startswith("/"):
            return True
        return _entry_writable(path, there, uid, gids) or self._directory_writable(_parent(path), uid, gids)

    def _directory_writable(self, path: str, uid: int, gids: tuple[int, ...]) -> bool:
        key = (path, uid, gids)
        known = self._directories.get(key)
        if known is None:
            known = _own_directory_writable(path, uid, gids)
            if not known and path != "/":
                known = self._directory_writable(_parent(path), uid, gids)
            self._directories[key] = known
        return known


def _parent(path: str) -> str:
    """The directory of an absolute path: what ``os.path.dirname`` says, for a fifth of its price."""
    return path.rpartition("/")[0] or "/"


def _own_directory_writable(path: str, uid: int, gids: tuple[int, ...]) -> bool:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return True
    if not stat.S_ISDIR(found.st_mode):
        return True
    if found.st_mode & stat.S_ISVTX and found.st_uid != uid:
        return uid == 0  # sticky, but its owner, who is not root, may still replace entries
    if found.st_mode & stat.S_ISVTX and uid == 0:
        return False
    return _entry_writable(path, found, uid, gids)


def _entry_writable(path: str, found: os.stat_result, uid: int, gids: tuple[int, ...]) -> bool:
    mode = found.st_mode
    if uid == 0:
        return found.st_uid != 0 or bool(mode & _GROUP_OR_OTHER_WRITE)
    if found.st_uid == uid or mode & stat.S_IWOTH:
        return True
    return bool(mode & stat.S_IWGRP) and (found.st_gid in gids or _has_acl(path))


def _has_acl(path: str) -> bool:
    try:
        return bool(os.getxattr(path, _ACL, follow_symlinks=False))
    except OSError:
        return False
