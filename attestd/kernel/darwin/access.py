"""Whether a user could change the content behind a canonical path on macOS.

Rules: as on Linux the owner counts as a writer whatever the mode, every directory up to ``/`` counts, and a sticky
directory of someone else does not. Different here: any write bit of a group counts, for membership is nested and kept
by a directory service, so the groups of a process do not tell; and an access control list that allows anybody anything
counts as granting it (lists that only deny, as on most folders of a Mac, do not). uid 0 counts by ownership, mode and
list alone. A path that does not lead to the file at hand counts as writable.

An ``Access`` remembers directories and belongs to one collection; it is never kept, for modes change.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

_GROUP_OR_OTHER_WRITE = 0o022


class Access:
    """Memo of directory answers for one collection. ``allows``: whether the ACL of a path allows anybody anything."""

    __slots__ = ("_allows", "_directories")

    def __init__(self, allows: Callable[[str], bool]) -> None:
        self._allows = allows
        self._directories: dict[tuple[str, int], bool] = {}

    def writable(self, path: str, found: os.stat_result, uids: frozenset[int]) -> bool:
        """Whether any of ``uids`` may write or replace the file; ``found``: fstat of an open descriptor of it."""
        try:
            there = os.lstat(path)
        except OSError:
            return True
        if (there.st_dev, there.st_ino) != (found.st_dev, found.st_ino) or not path.startswith("/"):
            return True
        return any(self._entry(path, there, uid) or self._directory(os.path.dirname(path), uid) for uid in uids)

    def _directory(self, path: str, uid: int) -> bool:
        known = self._directories.get((path, uid))
        if known is None:
            known = self._own(path, uid) or (path != "/" and self._directory(os.path.dirname(path), uid))
            self._directories[path, uid] = known
        return known

    def _own(self, path: str, uid: int) -> bool:
        try:
            found = os.lstat(path)
        except OSError:
            return True
        if not stat.S_ISDIR(found.st_mode):
            return True
        if found.st_mode & stat.S_ISVTX and found.st_uid == 0 and uid != found.st_uid:
            return self._allows(path)
        if found.st_mode & stat.S_ISVTX and uid == 0 == found.st_uid:
            return self._allows(path)
        return self._entry(path, found, uid)

    def _entry(self, path: str, found: os.stat_result, uid: int) -> bool:
        if found.st_uid == uid != 0 or (uid == 0 and found.st_uid != 0):
            return True
        return bool(found.st_mode & _GROUP_OR_OTHER_WRITE) or self._allows(path)
