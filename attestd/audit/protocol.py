"""The door to the audit log for rooms that may not do I/O."""

from __future__ import annotations

from typing import Protocol

import msgspec


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A record without sequence number and time, which the log gives. Its fields are the record's, in their order.

    The records of every call are made by position: seventeen keywords cost more than the rest of the record.
    """

    kind: str
    id: str = ""
    session: str = ""
    server: str = ""
    method: str = ""
    name: str = ""
    caller: str = ""
    verdict: str = ""
    cause: str = ""
    policies: tuple[str, ...] = ()
    generation: int = 0
    mode: str = ""
    args_sha256: str = ""
    latency_ns: int = 0
    uid: int = -1
    pid: int = 0
    detail: dict[str, str | int | bool] = {}
    body: bytes = b""


class AuditLog(Protocol):
    """Appends records."""

    def append(self, entry: Entry, time_ns: int) -> int:
        """Write one record to the kernel and return its sequence number; a sync to disk follows within 100 ms.

        Raises AuditUnavailableError, and then nothing was appended (a torn frame is removed).
        """

    def caller(self, body: bytes, time_ns: int) -> str:
        """Write a ``caller`` record for this body unless the current segment holds it; its SHA-256, hex.

        The body is a JSON object with ``result`` (AttestationResult) and ``evidence``. Raises AuditUnavailableError.
        """

    def sync_now(self) -> None:
        """Return when every record appended before is on the disk. Raises AuditUnavailableError."""

    def digest_arguments(self, canonical: bytes) -> str:
        """Salted SHA-256, hex."""
