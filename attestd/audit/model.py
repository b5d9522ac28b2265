"""Audit records. Append-only wire format: fields are added at the end, never changed."""

from __future__ import annotations

import msgspec


class Record(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One decision, one hop, one result or one act of an administrator; written before its effect."""

    seq: int
    time_ns: int
    kind: str
    """caller (content-addressed body of an attestation) | session | decision | result | hop | admin | log"""
    id: str
    """Decision id for decision and result; grant id, code or digest otherwise."""
    session: str
    server: str
    method: str
    name: str
    caller: str
    """Digest (hex) of the ``caller`` record's body, or empty."""
    verdict: str
    """permit | deny | end | error | ok | empty"""
    cause: str
    policies: tuple[str, ...]
    generation: int
    mode: str
    args_sha256: str
    """Salted digest of the params, hex, or empty."""
    latency_ns: int
    uid: int
    pid: int
    detail: dict[str, str | int | bool]
    body: bytes = b""
    """caller: JSON of evidence and attestation result. Empty otherwise."""


class SegmentHeader(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The first frame of each segment: enough to go on from here without reading the segments before it."""

    version: int
    origin: str
    number: int
    """Of the segment, from 0."""
    first_seq: int
    """Sequence number of the first record in the segment: how many records the segments before it hold."""
    time_ns: int
    epoch: int
    key: str
    """The public key of the epoch, as vkey."""
    root: bytes
    """RFC 6962 root over all records before this segment."""
    frontier: tuple[bytes, ...]
    """Roots of the perfect subtrees of that tree, largest first."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Where the log ends. Keep one outside the log: with it a cut or replaced log is found."""

    size: int
    """Number of records."""
    chain: str
    """Hash of the last frame, hex; empty if not known."""
    root: str
    """RFC 6962 root over all records, hex."""
