"""The segment file that is written to: whole frames or nothing, and what is not yet on the disk.

1. A frame is one ``write``. If fewer bytes arrive, the file is cut back, so nothing torn stays; if even that fails,
   the next write cuts first.
2. The file is never opened for appending: a position that we keep cannot be moved by anyone else.
3. ``write`` and ``sync`` share the list of frames without a lock: each touches it in single steps (an append; a slice
   from the front, its removal), which no other thread can see half done.
4. A failed sync may have dropped dirty pages that look clean afterwards. So the frames since the last good sync are
   kept in memory, and the next sync writes them again before it syncs.
"""

from __future__ import annotations

import errno
import os
import threading

from attestd.audit.files import segment_name, sync_data, unavailable, write_whole


class Segment:
    """One segment file, open for writing at ``size`` bytes. ``sync`` may run beside ``write`` in another thread."""

    def __init__(self, directory: int, number: int, size: int) -> None:
        self.number = number
        self.size = size
        self.synced = size
        self._torn = False
        self._failed: OSError | None = None
        self._pending: list[bytes] = []
        self._syncing = threading.Lock()
        self._closed = False
        self._fd = os.open(segment_name(number), os.O_RDWR | os.O_NOFOLLOW, dir_fd=directory)
        os.lseek(self._fd, size, os.SEEK_SET)

    @classmethod
    def create(cls, directory: int, number: int, header: bytes) -> Segment:
        """A new segment that holds its header frame, durably. Raises OSError."""
        write_whole(directory, segment_name(number), header)
        return cls(directory, number, len(header))

    @property
    def dirty(self) -> bool:
        """Whether frames wait for a sync."""
        return bool(self._pending)

    def write(self, frame: bytes) -> None:
        """Give one frame to the kernel. Raises AuditUnavailableError, and then the file is as it was."""
        if self._failed is not None:
            raise unavailable("sync", self._failed)
        if self._torn:
            self._cut()
        try:
            written = os.write(self._fd, frame)
        except OSError as error:
            self._cut()
            raise unavailable("write", error) from error
        if written != len(frame):
            self._cut()
            raise unavailable(
                "write", OSError(errno.ENOSPC, f"{written} of {len(frame)} bytes written, the disk is full")
            )
        self._pending.append(frame)
        self.size += written

    def sync(self) -> None:
        """Bring every frame written so far to the disk.

        Raises AuditUnavailableError; then nothing can be written until a later sync succeeds.
        """
        with self._syncing:
            if self._closed:
                return
            pending = self._pending[:]
            try:
                if self._failed is not None:
                    self._write_again(b"".join(pending))
                sync_data(self._fd)
            except OSError as error:
                self._failed = error
                raise unavailable("sync", error) from error
            del self._pending[: len(pending)]
            self.synced += sum(map(len, pending))
            self._failed = None

    def close(self) -> None:
        """Release the file; a sync that comes later does nothing. Sync before."""
        with self._syncing:
            if not self._closed:
                self._closed = True
                os.close(self._fd)

    def replace_tail(self, frame: bytes, end: int) -> None:
        """Write ``frame`` over a torn tail that ends at ``end``, then cut behind it. Raises OSError.

        So the loss is on record before its bytes are gone.
        """
        self._write_at(frame + bytes(max(0, end - self.size - len(frame))), self.size)
        sync_data(self._fd)
        self.size += len(frame)
        os.ftruncate(self._fd, self.size)
        os.lseek(self._fd, self.size, os.SEEK_SET)
        sync_data(self._fd)
        self.synced = self.size

    def _write_again(self, data: bytes) -> None:
        self._write_at(data, self.synced)
        os.lseek(self._fd, self.size, os.SEEK_SET)

    def _write_at(self, data: bytes, offset: int) -> None:
        if os.pwrite(self._fd, data, offset) != len(data):
            raise OSError(errno.ENOSPC, "the disk is full")

    def _cut(self) -> None:
        self._torn = True
        try:
            os.ftruncate(self._fd, self.size)
            os.lseek(self._fd, self.size, os.SEEK_SET)
        except OSError as error:
            raise unavailable("cut a torn record from", error) from error
        self._torn = False
