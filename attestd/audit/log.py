"""The audit log as the daemon holds it: appends in the caller's thread, everything slow in one other thread.

1. ``append`` is one write of one frame under a lock. It never waits for a disk, except while a checkpoint is written:
   then for the sync that must come before it. Who writes faster than the committer signs, waits for the disk too.
2. The committer thread syncs within 100 ms of a write, one sync for many records. It also writes the checkpoints, ends
   epochs, begins segments and moves the high-water mark. What fails there is kept in ``last_error`` and tried again.
3. When records cannot be synced, appends are refused until they can.
4. One lock order: the log's lock, then the segment's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Self

import msgspec

from attestd.audit.files import unavailable
from attestd.audit.highwater import write_high_water
from attestd.audit.model import Head
from attestd.audit.opening import open_log
from attestd.audit.protocol import Entry
from attestd.audit.writer import MAX_UNSEALED
from attestd.errors import AuditUnavailableError


class LogLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When things happen."""

    sync_seconds: float = 0.05
    """How long a written record waits for others before the sync; at most 0.1."""
    checkpoint_records: int = 1000
    checkpoint_seconds: float = 60.0
    epoch_records: int = 10_000
    epoch_seconds: float = 3600.0
    segment_bytes: int = 64 * 1024 * 1024
    retry_seconds: float = 0.5
    """After a failure of the committer."""


class AuditLogFile:
    """The log in a directory; implements ``attestd.audit.protocol.AuditLog``. End it with ``close``."""

    def __init__(
        self,
        directory: Path,
        origin: str,
        *,
        high_water: Path | None = None,
        limits: LogLimits | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._limits = limits or LogLimits()
        self._clock = clock
        self._high_water = high_water
        opened = open_log(Path(directory), origin=origin, high_water=high_water, now_ns=clock())
        self._opened = opened
        self._writer = opened.writer
        self._salt = opened.salt
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._idle = True
        self._closing = False
        self._alive = True
        self._sealed_at = time.monotonic()
        self._unpublished: str | None = None
        self.last_error: AuditUnavailableError | None = None
        """What the committer could not do the last time it ran, or None."""
        self._thread = threading.Thread(target=self._run, name="audit-commit", daemon=True)
        self._thread.start()

    def append(self, entry: Entry, time_ns: int) -> int:
        """Write one record to the kernel and return its sequence number; a sync to disk follows within 100 ms.

        Raises AuditUnavailableError, and then nothing was appended.
        """
        with self._lock:
            if self._closing or not self._alive:
                self._require_alive()
            writer = self._writer
            position = writer.position
            unsealed = position.tree.size - position.checkpoint_size
            if unsealed >= MAX_UNSEALED:
                self._catch_up()
            seq = writer.append(entry, time_ns)
            limits = self._limits
            if self._idle or unsealed >= limits.checkpoint_records - 1 or writer.segment.size >= limits.segment_bytes:
                self._notify()
            return seq

    def caller(self, body: bytes, time_ns: int) -> str:
        """Write the body of a caller unless this segment holds it; its SHA-256, hex. Raises AuditUnavailableError."""
        with self._lock:
            self._require_alive()
            self._catch_up()
            digest = self._writer.add_caller(body, time_ns)
            self._notify()
            return digest

    def digest_arguments(self, canonical: bytes) -> str:
        """Salted SHA-256, hex. The salt never leaves the log's directory."""
        return sha256(self._salt + canonical).hexdigest()

    def sync_now(self) -> None:
        """Return when every record appended before is on the disk. Raises AuditUnavailableError."""
        with self._lock:
            self._require_alive()
            segment = self._writer.segment
        segment.sync()

    def require_open(self) -> None:
        """Raises AuditUnavailableError if no append can succeed until attestd is restarted."""
        with self._lock:
            self._require_alive()

    def head(self) -> Head:
        """Where the log ends."""
        with self._lock:
            return self._writer.head()

    def checkpoint_now(self) -> str:
        """Sign a checkpoint over every record so far; the note, durably written. Raises AuditUnavailableError."""
        with self._lock:
            self._require_alive()
            return self._seal_here()

    def close(self) -> None:
        """Sync, sign the last checkpoint, release the files. Idempotent.

        Raises AuditUnavailableError; the files are released all the same.
        """
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._work.notify()
        self._thread.join()
        try:
            if self._writer.unsealed:
                self._unpublished = self._writer.seal(self._clock(), turn=False)
            self._writer.segment.sync()
            self._publish()
        finally:
            self._opened.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_alive(self) -> None:
        if self._closing or not self._alive:
            raise AuditUnavailableError("cannot append to the audit log: it is closed", hint="restart attestd")

    def _catch_up(self) -> None:
        """A writer that outruns the committer signs the checkpoint itself, and so waits for the disk."""
        if self._writer.unsealed >= MAX_UNSEALED:
            self._seal_here()

    def _seal_here(self) -> str:
        note = self._writer.seal(self._clock(), turn=False)
        self._writer.segment.sync()
        self._unpublished = note
        self._work.notify()
        return note

    def _notify(self) -> None:
        if self._idle or self._urgent():
            self._idle = False
            self._work.notify()

    def _urgent(self) -> bool:
        writer, limits = self._writer, self._limits
        return writer.unsealed >= limits.checkpoint_records or writer.segment.size >= limits.segment_bytes

    def _due(self) -> bool:
        late = time.monotonic() - self._sealed_at >= self._limits.checkpoint_seconds
        return self._urgent() or (late and self._writer.unsealed > 0)

    def _run(self) -> None:
        try:
            while self._wait():
                self._commit()
        finally:
            self._alive = False

    def _wait(self) -> bool:
        """Until there is something to do; False when closing."""
        with self._work:
            if self.last_error is not None:
                self._work.wait_for(lambda: self._closing, self._limits.retry_seconds)
                return not self._closing
            patience = None
            if self._writer.unsealed:
                patience = max(0.0, self._sealed_at + self._limits.checkpoint_seconds - time.monotonic())
            if self._work.wait_for(self._has_work, patience):
                self._work.wait_for(lambda: self._closing or self._urgent(), min(self._limits.sync_seconds, 0.1))
            self._idle = True
            return not self._closing

    def _has_work(self) -> bool:
        return self._closing or not self._idle or self._unpublished is not None

    def _commit(self) -> None:
        try:
            with self._lock:
                segment = self._writer.segment
            segment.sync()
            if self._due():
                self._seal()
            self._publish()
        except AuditUnavailableError as error:
            self.last_error = error
        else:
            self.last_error = None

    def _seal(self) -> None:
        with self._lock:
            writer = self._writer
            if writer.unsealed:
                self._unpublished = writer.seal(self._clock(), turn=self._epoch_ends())
                self._sealed_at = time.monotonic()
            if writer.segment.size >= self._limits.segment_bytes:
                writer.segment.sync()
                writer.rotate()
            segment = writer.segment
        segment.sync()

    def _epoch_ends(self) -> bool:
        position, limits = self._writer.position, self._limits
        records = self._writer.size - position.epoch_start_seq
        seconds = (self._clock() - position.epoch_start_ns) / 1e9
        return records >= limits.epoch_records or seconds >= limits.epoch_seconds

    def _publish(self) -> None:
        with self._lock:
            note, self._unpublished = self._unpublished, None
        if note is None:
            return
        try:
            self._writer.forget()
            if self._high_water is not None:
                write_high_water(self._high_water, note)
        except OSError as error:
            self._publish_later(note)
            raise unavailable("move the high-water mark of", error) from error
        except AuditUnavailableError:
            self._publish_later(note)
            raise

    def _publish_later(self, note: str) -> None:
        with self._lock:
            if self._unpublished is None:
                self._unpublished = note
