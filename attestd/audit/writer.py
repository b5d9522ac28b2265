"""Grows the log: records, checkpoints, epochs, segments. Not thread-safe; ``log`` holds the locks.

1. Sequence numbers are the leaves of the tree: record n is leaf n. Time never decreases within the log: a record at a
   clock that was set back carries the last time and, in ``detail``, ``clock``: what the clock said.
   Less than a second is no clock set back: calls overlap, and each reads the time once.
2. State moves on only after the frame is written. A failed write leaves everything as it was.
3. At most MAX_UNSEALED records wait for a checkpoint. So a long stretch without one is a sign that some were removed.
4. Every record is on the disk before a checkpoint over it is written. So after a crash, a damaged frame before a whole
   checkpoint cannot come from the crash: it is tampering.
5. A key is destroyed only after the checkpoint that names its successor is on the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestd.audit import chain, notes
from attestd.audit.files import unavailable
from attestd.audit.keys import KeyStore
from attestd.audit.merkle import Tree
from attestd.audit.model import Head, SegmentHeader
from attestd.audit.protocol import Entry
from attestd.audit.segment import Segment
from attestd.errors import AuditUnavailableError

FORMAT_VERSION = 1
MAX_UNSEALED = 20_000
"""Records that may stand behind the last checkpoint; nothing is appended before one is signed then."""
_SET_BACK_NS = 1_000_000_000


class Position(msgspec.Struct, kw_only=True):
    """Where the log stands; mutable, owned by one writer."""

    chain: bytes = chain.GENESIS
    tree: Tree = msgspec.field(default_factory=Tree)
    last_ns: int = 0
    epoch: int = 0
    epoch_start_seq: int = 0
    epoch_start_ns: int = 0
    checkpoint_size: int = 0
    """Records under the last checkpoint."""
    callers: set[str] = msgspec.field(default_factory=set)
    """Digests of the caller bodies in this segment."""


class Writer:
    """Writes frames into the current segment."""

    def __init__(
        self,
        *,
        directory: int,
        origin: str,
        segment: Segment,
        position: Position,
        private: Ed25519PrivateKey,
        keys: KeyStore,
    ) -> None:
        self._directory = directory
        self._origin = origin
        self._private = private
        self._keys = keys
        self.segment = segment
        self.position = position

    @property
    def size(self) -> int:
        """Number of records."""
        return self.position.tree.size

    @property
    def unsealed(self) -> int:
        """Records after the last checkpoint."""
        return self.position.tree.size - self.position.checkpoint_size

    def head(self) -> Head:
        """Where the log ends now."""
        return Head(size=self.size, chain=self.position.chain.hex(), root=self.position.tree.root().hex())

    def append(self, entry: Entry, time_ns: int, write: Callable[[bytes], None] | None = None) -> int:
        """Write one record; its sequence number. Raises AuditUnavailableError; what ``write`` raises, if it writes."""
        position = self.position
        if position.tree.size - position.checkpoint_size >= MAX_UNSEALED:
            raise AuditUnavailableError(
                f"cannot append to the audit log: {self.unsealed} records wait for a checkpoint, the limit is reached",
                hint="look at the last audit error in `attestctl status`; calls wait until a checkpoint is signed",
            )
        if time_ns < position.last_ns:
            if position.last_ns - time_ns >= _SET_BACK_NS:
                entry = msgspec.structs.replace(entry, detail={**entry.detail, "clock": time_ns})
            time_ns = position.last_ns
        seq = position.tree.size
        try:
            frame = chain.encode_entry(position.chain, seq, time_ns, entry)
        except ValueError as error:
            raise AuditUnavailableError(
                f"cannot append record {seq}: {error}",
                hint="the caller's evidence is too large to be recorded; look at its command lines",
            ) from None
        (write or self.segment.write)(frame)
        position.chain = sha256(frame).digest()
        position.tree.append_data(frame)
        position.last_ns = time_ns
        return seq

    def add_caller(self, body: bytes, time_ns: int) -> str:
        """Write a caller's body unless this segment holds it; its SHA-256, hex. Raises AuditUnavailableError."""
        digest = sha256(body).hexdigest()
        if digest not in self.position.callers:
            self.append(Entry(kind="caller", id=digest, body=body), time_ns)
            self.position.callers.add(digest)
        return digest

    def seal(self, time_ns: int, *, turn: bool) -> str:
        """Write a signed checkpoint over all records; the note. Raises AuditUnavailableError.

        With ``turn`` it ends the epoch: it names a new key, which signs from then on. Call ``forget`` when it is on the
        disk.
        """
        position = self.position
        self.segment.sync()
        successor = self._new_key() if turn else None
        time_ns = max(time_ns, position.last_ns)
        checkpoint = notes.Checkpoint(
            origin=self._origin,
            size=self.size,
            root=position.tree.root(),
            chain=position.chain,
            epoch=position.epoch,
            time_ns=time_ns,
            next_key=None if successor is None else successor[1],
        )
        note = notes.sign(notes.format_checkpoint(checkpoint), self._origin, self._private)
        frame = chain.encode(chain.CHECKPOINT, position.chain, note.encode())
        self.segment.write(frame)
        position.chain = chain.link(frame)
        position.checkpoint_size = self.size
        if successor is not None:
            self._private = successor[0]
            position.epoch += 1
            position.epoch_start_seq, position.epoch_start_ns = self.size, time_ns
        return note

    def forget(self) -> None:
        """Destroy every private key but the current one. Raises AuditUnavailableError."""
        try:
            self._keys.destroy_others(notes.public_key(self._origin, self._private))
        except OSError as error:
            raise unavailable("destroy an old key of", error) from error

    def rotate(self) -> None:
        """Go on in a new segment. Everything in the old one must be synced. Raises AuditUnavailableError."""
        number = self.segment.number + 1
        frame = header_frame(self.position, number=number, key=notes.public_key(self._origin, self._private))
        try:
            segment = Segment.create(self._directory, number, frame)
        except OSError as error:
            raise unavailable("begin a new segment of", error) from error
        self.segment.close()
        self.segment = segment
        self.position.chain = chain.link(frame)
        self.position.callers.clear()

    def _new_key(self) -> tuple[Ed25519PrivateKey, notes.VerifierKey]:
        try:
            return self._keys.create()
        except OSError as error:
            raise unavailable("store the next key of", error) from error


def header_frame(position: Position, *, number: int, key: notes.VerifierKey) -> bytes:
    """The header frame of segment ``number`` that begins at ``position``."""
    header = SegmentHeader(
        version=FORMAT_VERSION,
        origin=key.name,
        number=number,
        first_seq=position.tree.size,
        time_ns=position.last_ns,
        epoch=position.epoch,
        key=str(key),
        root=position.tree.root(),
        frontier=position.tree.frontier,
    )
    return chain.encode_header(position.chain, header)
