"""Verifies a log offline, from its files alone, in one pass, and names the records that are not what was written.

1. The checksum names the frame that was damaged. The chain names the record that was changed with its checksum put
   right, dropped, inserted or moved.
2. A signed checkpoint proves every record before it, by tree and chain, up to the holder of that epoch's key. Old keys
   are destroyed, so nobody can sign the past again. The first key comes from ``expected_key``; without it the key
   beside the log is believed, and then a log that was replaced whole, key and all, passes.
3. What is not yet under a checkpoint is proven by its place in the chain only. A cut tail or an old copy put back is
   found only against a head that was kept elsewhere: ``external_head``.
4. An epoch that began because a key was lost is not connected by a signature. It is a problem unless its key, too, is
   among the expected keys.

Verifying writes nothing and needs no private key; it may run beside a daemon that writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from collections.abc import Sequence as Items
from hashlib import sha256
from pathlib import Path

import msgspec

from attestd.audit import chain, files, notes
from attestd.audit.chain import Frame
from attestd.audit.findings import Findings, Report, records
from attestd.audit.merkle import Tree
from attestd.audit.model import Head, SegmentHeader
from attestd.audit.reader import Damage, walk
from attestd.audit.sequence import Sequence
from attestd.audit.writer import FORMAT_VERSION, MAX_UNSEALED
from attestd.errors import IntegrityError

_PROGRESS_RECORDS = 65_536
_BATCH = 4096


class _Prefix(msgspec.Struct, array_like=True, gc=False):
    """The first fields of a record; the decoder checks the rest for form only."""

    seq: int
    time_ns: int
    kind: str


_DECODE_PREFIX = msgspec.msgpack.Decoder(_Prefix).decode


def verify(
    directory: Path,
    *,
    expected_key: str | Items[str] | None = None,
    external_head: Head | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Verify the log in ``directory``.

    ``expected_key``: the first public key as vkey, and the keys of epochs that began after a lost key, if any.
    ``external_head``: a head that was kept elsewhere (``highwater.read_high_water``); read it before this call.
    ``progress`` is called with the number of records so far. What is wrong with the log is in the report. Raises
    ConfigurationError when there is no such directory, IntegrityError when ``expected_key`` is no key, OSError.
    """
    expected = [expected_key] if isinstance(expected_key, str) else list(expected_key or ())
    fd = files.open_directory(directory, create=False)
    try:
        return _Verification(fd, [notes.parse_key(key) for key in expected], external_head, progress).run()
    finally:
        os.close(fd)


class _Verification:
    def __init__(
        self,
        directory: int,
        expected: list[notes.VerifierKey],
        external_head: Head | None,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._directory = directory
        self._expected = expected
        self._external = external_head
        self._progress = progress
        self._findings = Findings()
        self._sequence = Sequence(self._findings)
        self._tree = Tree()
        self._leaves: list[bytes] = []
        self._keys: notes.KeyChain | None = None
        self._first_key = ""
        self._signed = (0, b"")
        self._checkpoints = 0
        self._last_ns = 0
        self._incomplete = 0
        self._exact = True
        """The tree holds exactly the records that were written."""

    def run(self) -> Report:
        numbers = files.segment_numbers(self._directory)
        if not numbers:
            self._findings.add(0, 0, 0, "segment 0: missing, there is no log here")
        for index, number in enumerate(numbers):
            before = numbers[index - 1] + 1 if index else 0
            if number != before:
                self._findings.add(self._sequence.seq, before, 0, f"segments {before} to {number - 1}: missing")
                self._exact = False
            self._segment(number, last=number == numbers[-1])
        self._sequence.end()
        self._compare_end()
        self._require_sealed(0)
        problems = self._findings.sorted()
        self._flush()
        return Report(
            ok=not problems,
            records=self._sequence.seq,
            segments=len(numbers),
            head=Head(size=self._sequence.seq, chain=self._sequence.chain.hex(), root=self._tree.root().hex()),
            problems=problems,
            checkpoints=self._checkpoints,
            unsealed=self._sequence.seq - self._signed[0],
            incomplete_tail=self._incomplete,
            first_key=self._first_key,
        )

    def _segment(self, number: int, *, last: bool) -> None:
        self._sequence.segment = number
        fd = os.open(files.segment_name(number), os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._directory)
        try:
            begun = False
            for item in walk(fd):
                if isinstance(item, Damage):
                    self._damage(item, last=last)
                elif (item.kind == chain.HEADER) is begun or (item.kind == chain.HEADER and item.offset):
                    self._misplaced(item)
                elif item.kind == chain.RECORD:
                    self._record(item)
                elif item.kind == chain.CHECKPOINT:
                    self._checkpoint(item)
                else:
                    self._header(item, number)
                begun = True
            if not begun:
                self._problem(0, f"segment {number}: empty")
        finally:
            os.close(fd)

    def _misplaced(self, frame: Frame) -> None:
        self._sequence.other(frame, self._sequence.seq)
        self._exact = False
        self._problem(frame.offset, "a segment must begin with its header and hold no other")

    def _record(self, frame: Frame) -> None:
        raw = frame.raw
        try:
            prefix = _DECODE_PREFIX(raw[38:-4])
        except msgspec.DecodeError as error:
            self._problem(frame.offset, f"record {self._sequence.seq}: does not decode: {error}")
            prefix = _Prefix(self._sequence.seq, self._last_ns, "")
        sequence = self._sequence
        seq = prefix.seq
        sequence.record(frame, seq)
        if prefix.time_ns < self._last_ns and sequence.intact:
            self._problem(frame.offset, f"record {seq}: older than the record before it", seq)
        self._last_ns = prefix.time_ns
        self._leaves.append(sha256(b"\x00" + raw).digest())
        if len(self._leaves) >= _BATCH:
            self._flush()
        if prefix.kind == "log":
            self._log_record(frame, seq)
        if self._external is not None and self._external.size == seq + 1:
            self._compare_external(frame)
        if self._progress is not None and not (seq + 1) % _PROGRESS_RECORDS:
            self._progress(seq + 1)

    def _log_record(self, frame: Frame, seq: int) -> None:
        try:
            record = chain.decode_record(frame, seq)
        except chain.FrameError as error:
            self._problem(frame.offset, error.what, seq)
            return
        if record.id != "key_lost" or self._keys is None:
            return
        try:
            key = notes.parse_key(str(record.detail.get("key", "")))
        except IntegrityError as error:
            self._problem(frame.offset, f"record {seq}: {error}", seq)
            return
        self._keys = notes.KeyChain(key, epoch=self._keys.epoch + 1)
        if key not in self._expected:
            what = f"record {seq}: the key was lost and {key} began, which no signature connects with the key before"
            self._problem(frame.offset, what, seq)

    def _checkpoint(self, frame: Frame) -> None:
        name = f"the checkpoint before record {self._sequence.seq}"
        try:
            note = frame.payload.decode()
            stated = notes.read_checkpoint(note)
        except (IntegrityError, UnicodeDecodeError) as error:
            self._sequence.other(frame, self._sequence.seq)
            self._problem(frame.offset, f"{name}: {error}")
            return
        self._require_sealed(frame.offset)
        before = self._sequence.chain
        self._sequence.other(frame, stated.size)
        if self._keys is None:
            return
        try:
            self._keys.accept(note)
        except IntegrityError as error:
            self._problem(frame.offset, f"{name}: {error}; later checkpoints are not verified")
            self._keys = None
            return
        if not self._is_exact():
            self._signed = (stated.size, stated.root)
            return
        self._flush()
        if (stated.size, stated.root, stated.chain) != (self._tree.size, self._tree.root(), before):
            first = self._signed[0]
            what = f"{records(first, stated.size - 1)}: not what was signed, the chain was rebuilt over a change"
            self._problem(frame.offset, what, first)
            self._exact = False
            return
        self._signed = (stated.size, stated.root)
        self._checkpoints += 1

    def _header(self, frame: Frame, number: int) -> None:
        try:
            header = chain.decode_header(frame)
            tree = Tree(header.first_seq, header.frontier)
            key = notes.parse_key(header.key)
        except (chain.FrameError, IntegrityError, ValueError) as error:
            self._sequence.other(frame, self._sequence.seq)
            self._problem(frame.offset, f"the header of segment {number}: {error}")
            return
        self._sequence.other(frame, header.first_seq)
        if header.version != FORMAT_VERSION:
            what = f"the header of segment {number}: got format version {header.version}, expected {FORMAT_VERSION}"
            self._problem(frame.offset, what)
        if number == 0:
            self._begin(key)
        elif self._keys is not None and key != self._keys.key:
            self._problem(frame.offset, f"the header of segment {number}: got key {key}, expected {self._keys.key}")
        self._anchor(frame, header, tree, number)

    def _begin(self, key: notes.VerifierKey) -> None:
        self._first_key = str(key)
        self._keys = notes.KeyChain(key)
        expected = self._expected
        if not expected:
            stored = files.read_whole(self._directory, files.FIRST_KEY_NAME)
            try:
                expected = [notes.parse_key((stored or b"").decode().strip())]
            except (IntegrityError, UnicodeDecodeError):
                self._problem(
                    0, f"the first public key beside the log ({files.FIRST_KEY_NAME}) is missing or is no key"
                )
                return
        if key not in expected:
            self._problem(0, f"wrong key: the log begins with {key}, expected {expected[0]}")

    def _anchor(self, frame: Frame, header: SegmentHeader, tree: Tree, number: int) -> None:
        """Compare the header's tree with ours; behind damage, go on from it if a signature vouches for it."""
        self._flush()
        stated = (header.number, header.first_seq, header.root, header.frontier)
        if self._is_exact():
            if stated != (number, self._tree.size, self._tree.root(), self._tree.frontier):
                self._problem(frame.offset, f"the header of segment {number} states other records than there are")
                self._exact = False
            elif number and header.first_seq != self._signed[0]:
                self._problem(frame.offset, f"segment {number} begins without a checkpoint before it", self._signed[0])
        elif (header.first_seq, header.root) == self._signed and tree.root() == header.root:
            self._tree = tree
            self._exact = self._sequence.intact = True

    def _damage(self, damage: Damage, *, last: bool) -> None:
        if last and damage.incomplete and files.is_locked(self._directory):
            self._incomplete = damage.size
            return
        self._sequence.damaged(damage)

    def _is_exact(self) -> bool:
        self._exact = self._exact and self._sequence.intact
        return self._exact

    def _flush(self) -> None:
        self._tree.extend(self._leaves)
        self._leaves.clear()

    def _compare_external(self, frame: Frame) -> None:
        head = self._external
        self._flush()
        if head is not None and self._is_exact() and self._tree.root().hex() != head.root:
            got = self._tree.root().hex()
            what = f"another log stands here: root {got} over {head.size} records, kept elsewhere {head.root}"
            self._problem(frame.offset, what, head.size - 1)

    def _compare_end(self) -> None:
        head, size = self._external, self._sequence.seq
        if head is not None and size < head.size:
            cut = f"{head.size - size} records are cut off, or an old copy was put back"
            what = f"the log ends before record {size}, the head kept elsewhere has {head.size} records: {cut}"
            self._findings.add(size, self._sequence.segment, 0, what)

    def _require_sealed(self, offset: int) -> None:
        unsealed = self._sequence.seq - self._signed[0]
        if unsealed > MAX_UNSEALED:
            what = f"{unsealed} records without a checkpoint, at most {MAX_UNSEALED} are written: some were removed"
            self._problem(offset, what, self._signed[0])

    def _problem(self, offset: int, what: str, seq: int | None = None) -> None:
        self._findings.add(self._sequence.seq if seq is None else seq, self._sequence.segment, offset, what)
