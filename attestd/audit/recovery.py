"""Reads the last segment when the log is opened: where to go on, and whether what is missing may be a crash.

1. A place that is not a frame, with no checkpoint behind it, is a torn tail: a crash. It is cut, and a ``log`` record
   ``recovered`` says what was dropped.
2. The same with a checkpoint behind it is tampering, because every record is on the disk before a checkpoint over it
   is written. So is a whole frame that does not continue the chain, a checkpoint that does not state what the log
   holds, and a log that ends before its high-water mark. Tampering is an IntegrityError; nothing is written to it.
3. A checkpoint behind the damage counts whoever signed it, if it is of this log and over more records than the last one
   before: refusing too much is safe here, dropping too much is not.
4. Only the last segment is read, so that opening takes no longer as the log grows. ``verify`` reads everything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256

import msgspec

from attestd.audit import chain, notes
from attestd.audit.chain import Frame
from attestd.audit.merkle import Tree, leaf_hash
from attestd.audit.model import Head, Record
from attestd.audit.reader import Damage, walk
from attestd.audit.writer import FORMAT_VERSION, Position
from attestd.errors import ConfigurationError, IntegrityError

HINT = (
    "keep the evidence: move the audit directory and the high-water mark aside, then start again with a new log; "
    "`attestctl audit verify` on the old one says more"
)


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """What the last segment holds."""

    position: Position
    key: notes.VerifierKey
    """Public key of the current epoch."""
    good_end: int
    """Offset behind the last good frame."""
    dropped_bytes: int
    dropped_sha256: str
    file_end: int


def scan(fd: int, *, number: int, origin: str, high_water: Head | None) -> Scan:
    """Read segment ``number`` from ``fd``. Raises IntegrityError, ConfigurationError, OSError."""
    frames = walk(fd)
    scanner = _Scanner(number, origin, high_water, next(frames, None))
    torn: Damage | None = None
    for item in frames:
        if torn is None and isinstance(item, Damage):
            torn = item
        elif torn is None and isinstance(item, Frame):
            scanner.take(item)
        elif isinstance(item, Frame) and torn is not None:
            scanner.refuse_checkpoint(item, torn)
    scanner.refuse_cut()
    return scanner.result(fd, torn)


class _Scanner:
    def __init__(self, number: int, origin: str, high_water: Head | None, first: Frame | Damage | None) -> None:
        self._number = number
        self._high_water = high_water
        if not isinstance(first, Frame) or first.kind != chain.HEADER:
            raise _tampered(0, number, 0, "the segment has no whole header, and headers are never written in part")
        try:
            header = chain.decode_header(first)
            tree = Tree(header.first_seq, header.frontier)
        except (chain.FrameError, ValueError) as error:
            raise _tampered(0, number, 0, str(error)) from None
        if header.origin != origin:
            raise ConfigurationError(
                f"cannot open the audit log: it is of {header.origin}, expected {origin}",
                hint="name the audit directory of this daemon",
            )
        if header.version != FORMAT_VERSION or header.number != number:
            raise _tampered(header.first_seq, number, 0, f"the header is of segment {header.number}")
        if tree.root() != header.root:
            raise _tampered(header.first_seq, number, 0, "the header's tree does not have the header's root")
        self._keys = notes.KeyChain(notes.parse_key(header.key), epoch=header.epoch)
        self._end = first.end
        self.position = Position(
            chain=chain.link(first.raw),
            tree=tree,
            last_ns=header.time_ns,
            epoch=header.epoch,
            epoch_start_seq=header.first_seq,
            epoch_start_ns=header.time_ns,
            checkpoint_size=header.first_seq,
        )
        self._compare_high_water()

    def take(self, frame: Frame) -> None:
        """Account for one frame in its place."""
        position = self.position
        seq = position.tree.size
        if frame.prev != position.chain:
            raise _tampered(max(0, seq - 1), self._number, frame.offset, "the next frame does not carry its hash")
        if frame.kind == chain.RECORD:
            self._take_record(frame, seq)
        elif frame.kind == chain.CHECKPOINT:
            self._take_checkpoint(frame, seq)
        else:
            raise _tampered(seq, self._number, frame.offset, "a header stands within the segment")
        position.chain = chain.link(frame.raw)
        self._end = frame.end

    def refuse_checkpoint(self, frame: Frame, torn: Damage) -> None:
        """Raise IntegrityError if this frame, behind a damaged place, is a checkpoint of this log."""
        if frame.kind != chain.CHECKPOINT:
            return
        try:
            checkpoint = notes.read_checkpoint(frame.payload.decode())
        except (IntegrityError, UnicodeDecodeError):
            return
        if checkpoint.origin == self._keys.key.name and checkpoint.size > self.position.checkpoint_size:
            what = f"{torn.what}, and a checkpoint over {checkpoint.size} records stands behind it"
            raise _tampered(self.position.tree.size, self._number, torn.offset, what)

    def refuse_cut(self) -> None:
        """Raise IntegrityError if the log ends before its high-water mark."""
        mark, size = self._high_water, self.position.tree.size
        if mark is not None and size < mark.size:
            what = f"the log ends here, and the high-water mark says {mark.size} records: cut, or an old copy put back"
            raise _tampered(size, self._number, self._end, what)

    def result(self, fd: int, torn: Damage | None) -> Scan:
        """Everything that was learnt."""
        dropped, digest = 0, sha256()
        if torn is not None:
            for part in _bytes_from(fd, self._end):
                dropped += len(part)
                digest.update(part)
        return Scan(
            position=self.position,
            key=self._keys.key,
            good_end=self._end,
            dropped_bytes=dropped,
            dropped_sha256=digest.hexdigest() if dropped else "",
            file_end=self._end + dropped,
        )

    def _take_record(self, frame: Frame, seq: int) -> None:
        try:
            record = chain.decode_record(frame, seq)
        except chain.FrameError as error:
            raise _tampered(seq, self._number, frame.offset, error.what) from None
        if record.time_ns < self.position.last_ns:
            raise _tampered(seq, self._number, frame.offset, "it is older than the record before it")
        if record.kind == "caller":
            self.position.callers.add(record.id)
        if record.kind == "log" and record.id == "key_lost":
            self._restart(record)
        self.position.last_ns = record.time_ns
        self.position.tree.append(leaf_hash(frame.raw))
        self._compare_high_water()

    def _take_checkpoint(self, frame: Frame, seq: int) -> None:
        position = self.position
        try:
            checkpoint = self._keys.accept(frame.payload.decode())
        except (IntegrityError, UnicodeDecodeError) as error:
            raise _tampered(seq, self._number, frame.offset, f"the checkpoint before it: {error}") from None
        if (checkpoint.size, checkpoint.root, checkpoint.chain) != (seq, position.tree.root(), position.chain):
            raise _tampered(seq, self._number, frame.offset, "the checkpoint before it states other records")
        position.checkpoint_size = seq
        if self._keys.epoch != position.epoch:
            position.epoch, position.epoch_start_seq = self._keys.epoch, seq
            position.epoch_start_ns = checkpoint.time_ns

    def _restart(self, record: Record) -> None:
        key = notes.parse_key(str(record.detail.get("key", "")))
        self._keys = notes.KeyChain(key, epoch=self._keys.epoch + 1)
        self.position.epoch = self._keys.epoch
        self.position.epoch_start_seq, self.position.epoch_start_ns = record.seq, record.time_ns

    def _compare_high_water(self) -> None:
        mark, tree = self._high_water, self.position.tree
        if mark is not None and mark.size == tree.size and mark.root != tree.root().hex():
            what = f"the root over {mark.size} records is not that of the high-water mark: another log stands here"
            raise _tampered(max(0, mark.size - 1), self._number, self._end, what)


def _bytes_from(fd: int, offset: int) -> Iterator[bytes]:
    while part := os.pread(fd, 1024 * 1024, offset):
        yield part
        offset += len(part)


def _tampered(seq: int, segment: int, offset: int, what: str) -> IntegrityError:
    return IntegrityError(
        f"cannot trust the audit log at record {seq} (segment {segment}, offset {offset}): {what}", hint=HINT
    )
