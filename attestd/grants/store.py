"""The grants and waiting requests of one daemon, in SQLite (see ``database`` for the file).

Rules. First the audit record, then the row: every writing method takes the sequence number of its record. What is in
memory is what was committed; a failed write changes neither. Only rows that the audit log knows become grants
(``integrity``). Uses are counted in memory and written together by ``flush``; a ``once`` grant is used up in the store
before its effect. Belongs to one thread.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from attestd.errors import NothingToDoError
from attestd.grants.database import open_database, translated
from attestd.grants.index import GrantIndex
from attestd.grants.integrity import Row, Verified, decode, encode, verify
from attestd.grants.model import Grant, Pending
from attestd.grants.pins import Pin


class Store:
    """Opens the file at once; holds no grant until ``load``."""

    def __init__(self, path: Path, *, busy_ms: int = 5000) -> None:
        self._path = path
        self._database = open_database(path, busy_ms=busy_ms)
        self._uses: dict[str, tuple[int, int]] = {}
        self.index = GrantIndex()
        """Every grant in force. Read it; only this class changes it."""

    def load(self, audited: Mapping[str, str]) -> Verified:
        """Fill the index with the rows that the audit log confirms; the rest is returned to be reported.

        ``audited``: see ``integrity.verify``.
        """
        verified = verify(self.rows(), audited)
        self.index = GrantIndex()
        for grant in verified.grants:
            self.index.put(grant)
        return verified

    def rows(self) -> tuple[Row, ...]:
        """Every grant row, revoked ones too, unverified."""
        with self._reading("read"):
            found = self._database.execute(
                "SELECT id, body, digest, audit_seq, hits, last_used_ns, revoked_ns FROM grants ORDER BY id"
            ).fetchall()
        return tuple(
            Row(id=a, body=b, digest=c, audit_seq=d, hits=e, last_used_ns=f, revoked_ns=g)
            for a, b, c, d, e, f, g in found
        )

    def everything(self) -> tuple[Grant, ...]:
        """Grants in force and those that have ended, as the rows say; unreadable rows are left out."""
        found: list[Grant] = list(self.index)
        for row in self.rows():
            if row.revoked_ns is not None:
                try:
                    found.append(decode(row))
                except msgspec.MsgspecError:
                    continue
        return tuple(found)

    def insert(self, grant: Grant, audit_seq: int) -> None:
        """Add a grant whose approval was recorded as ``audit_seq``. Raises AttestdError, and then nothing was added."""
        with self._writing("write to") as database:
            database.execute(
                "INSERT INTO grants"
                " (id, uid, server, program_kind, program, lifetime, until_ns, body, digest, audit_seq)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (grant.id, *_columns(grant), audit_seq),
            )
        self.index.put(grant)

    def renew(self, grant: Grant, audit_seq: int) -> None:
        """Replace a grant by its renewed form (``lifetimes.renewed``). Raises NothingToDoError if it has ended."""
        with self._writing("write to") as database:
            changed = database.execute(
                "UPDATE grants SET uid = ?, server = ?, program_kind = ?, program = ?, lifetime = ?, until_ns = ?,"
                " body = ?, digest = ?, audit_seq = ? WHERE id = ? AND revoked_ns IS NULL",
                (*_columns(grant), audit_seq, grant.id),
            ).rowcount
            if self.index.get(grant.id) is None or not changed:
                raise NothingToDoError(f"cannot renew the grant {grant.id}: it is not in force")
        self.index.put(grant)

    def revoke(self, grant_id: str, now_ns: int, audit_seq: int) -> Grant:
        """End a grant. Raises NothingToDoError if it is not in force."""
        grant = self.index.get(grant_id)
        if grant is None or not self._end(grant_id, now_ns, audit_seq):
            raise NothingToDoError(f"cannot revoke the grant {grant_id}: it is not in force")
        return grant

    def consume(self, grant_id: str, now_ns: int, audit_seq: int) -> bool:
        """Use up a ``once`` grant before its effect; True for exactly one caller of this method.

        Raises AttestdError if that cannot be written; then the effect must not happen.
        """
        grant = self.index.get(grant_id)
        return grant is not None and grant.lifetime.kind == "once" and self._end(grant_id, now_ns, audit_seq)

    def used(self, grant_id: str, now_ns: int) -> None:
        """Count one use; written by ``flush``."""
        if self.index.get(grant_id) is not None:
            uses = self._uses.get(grant_id)
            self._uses[grant_id] = (1 if uses is None else uses[0] + 1, now_ns)

    def flush(self) -> None:
        """Write the counted uses in one transaction and show them in the index."""
        if not self._uses:
            return
        uses = dict(self._uses)
        with self._writing("write to") as database:
            database.executemany(
                "UPDATE grants SET hits = hits + ?, last_used_ns = ? WHERE id = ?",
                [(count, last, grant_id) for grant_id, (count, last) in uses.items()],
            )
        self._uses.clear()
        for grant_id, (count, last) in uses.items():
            grant = self.index.get(grant_id)
            if grant is not None:
                self.index.put(msgspec.structs.replace(grant, hits=grant.hits + count, last_used_ns=last))

    def put_pending(self, pending: Pending) -> None:
        """Insert or replace by code."""
        with self._writing("write to") as database:
            database.execute(
                "INSERT OR REPLACE INTO pending (code, uid, expires_ns, body) VALUES (?, ?, ?, ?)",
                (pending.code, pending.uid, pending.expires_ns, msgspec.json.encode(pending)),
            )

    def drop_pending(self, code: str) -> None:
        """Remove; nothing if absent."""
        with self._writing("write to") as database:
            database.execute("DELETE FROM pending WHERE code = ?", (code,))

    def pendings(self, now_ns: int) -> tuple[Pending, ...]:
        """Waiting requests that have not expired; rows that cannot be read are left out."""
        with self._reading("read"):
            found = self._database.execute(
                "SELECT code, body FROM pending WHERE expires_ns > ? ORDER BY code", (now_ns,)
            ).fetchall()
        entries: list[Pending] = []
        for code, body in found:
            try:
                pending = msgspec.json.decode(body, type=Pending)
            except msgspec.MsgspecError:
                continue
            if pending.code == code:
                entries.append(pending)
        return tuple(entries)

    def purge_pendings(self) -> None:
        """Remove every waiting request (user mode, where a stored one proves nothing)."""
        with self._writing("write to") as database:
            database.execute("DELETE FROM pending")

    def pin(self, server: str, url: str) -> Pin | None:
        """See ``pins.PinStore``; a row that cannot be read is none."""
        with self._reading("read"):
            found = self._database.execute("SELECT v FROM meta WHERE k = ?", (_pin_key(server, url),)).fetchone()
        try:
            return None if found is None else msgspec.json.decode(found[0], type=Pin)
        except msgspec.MsgspecError:
            return None

    def put_pin(self, pin: Pin) -> None:
        """See ``pins.PinStore``."""
        with self._writing("write to") as database:
            database.execute(
                "INSERT OR REPLACE INTO meta (k, v) VALUES (?, ?)",
                (_pin_key(pin.server, pin.url), msgspec.json.encode(pin)),
            )

    def drop_pins(self, server: str) -> int:
        """See ``pins.PinStore``."""
        first = _pin_key(server, "")
        with self._writing("write to") as database:
            return database.execute("DELETE FROM meta WHERE substr(k, 1, ?) = ?", (len(first), first)).rowcount

    def close(self) -> None:
        """Write what is counted and release the file."""
        try:
            self.flush()
        finally:
            self._database.close()

    def _end(self, grant_id: str, now_ns: int, audit_seq: int) -> bool:
        with self._writing("write to") as database:
            changed = database.execute(
                "UPDATE grants SET revoked_ns = ?, revoked_seq = ? WHERE id = ? AND revoked_ns IS NULL",
                (now_ns, audit_seq, grant_id),
            ).rowcount
        self.index.drop(grant_id)
        return changed == 1

    @contextmanager
    def _writing(self, what: str) -> Iterator[sqlite3.Connection]:
        with self._reading(what):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            finally:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise translated(error, self._path, what) from error


def _pin_key(server: str, url: str) -> str:
    return f"pin {server} {url}"


def _columns(grant: Grant) -> tuple[int, str, str, str, str, int | None, bytes, bytes]:
    body = encode(grant)
    subject = grant.subject
    return (
        subject.uid,
        grant.object.server,
        subject.program_kind,
        subject.program,
        grant.lifetime.kind,
        grant.lifetime.until_ns,
        body,
        hashlib.sha256(body).digest(),
    )
