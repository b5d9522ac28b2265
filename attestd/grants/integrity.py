"""Whether the rows of the grant store are what was approved.

In user mode the processes that grants constrain could edit the store. The audit log is written first and is chained, so
the log decides: a row counts only if the log holds, under the grant's id, the digest of exactly this body. A row
without a record, with another body, or un-revoked (the log's mapping no longer names it) never becomes a grant. A
record without a row is reported: something was taken away.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping

import msgspec

from attestd.grants.model import Grant


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One grant as the store keeps it."""

    id: str
    body: bytes
    digest: bytes
    audit_seq: int
    hits: int
    last_used_ns: int | None
    revoked_ns: int | None


class RefusedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that is not what was approved."""

    grant_id: str
    detail: str


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What survives the comparison with the log."""

    grants: tuple[Grant, ...]
    """Live and as approved."""
    refused: tuple[RefusedRow, ...]
    missing: tuple[str, ...]
    """Ids that the log says are live and that have no live row."""


def encode(grant: Grant) -> bytes:
    """The body of a row: the grant as approved, without what changes by use."""
    return msgspec.json.encode(msgspec.structs.replace(grant, hits=0, last_used_ns=None, revoked_ns=None))


def body_digest(grant: Grant) -> str:
    """SHA-256 of the body, hex: what the audit record of an approval or a renewal must carry."""
    return hashlib.sha256(encode(grant)).hexdigest()


def decode(row: Row) -> Grant:
    """The grant of a row. Raises msgspec.MsgspecError if the body is not one."""
    grant = msgspec.json.decode(row.body, type=Grant)
    return msgspec.structs.replace(grant, hits=row.hits, last_used_ns=row.last_used_ns, revoked_ns=row.revoked_ns)


def verify(rows: Iterable[Row], audited: Mapping[str, str]) -> Verified:
    """Compare the rows with ``audited``: live grant ids and the body digests (hex) in their latest audit record.

    The mapping must not name grants whose revocation or use (``once``) is recorded.
    """
    grants: list[Grant] = []
    refused: list[RefusedRow] = []
    for row in rows:
        if row.revoked_ns is not None:
            continue
        fault = _fault(row, audited.get(row.id))
        if fault is None:
            grants.append(decode(row))
        else:
            refused.append(RefusedRow(grant_id=row.id, detail=fault))
    missing = set(audited) - {grant.id for grant in grants} - {row.grant_id for row in refused}
    return Verified(grants=tuple(grants), refused=tuple(refused), missing=tuple(sorted(missing)))


def _fault(row: Row, recorded: str | None) -> str | None:
    if recorded is None:
        return "the audit log has no approval that is still in force for this row"
    content = hashlib.sha256(row.body).digest()
    if content != row.digest or not hmac.compare_digest(content.hex(), recorded):
        return f"the row is not what was approved: sha256 {content.hex()[:8]}, the audit log says {recorded[:8]}"
    try:
        grant = decode(row)
    except msgspec.MsgspecError as error:
        return f"the row cannot be read: {error}"
    return None if grant.id == row.id else "the row carries another grant's body"
