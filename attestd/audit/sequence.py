"""Follows chain and order of the frames of a log and names the one frame that is to blame. Pure.

A link is broken when a frame's ``prev`` is not the hash of the frame before. That alone does not say which of the two
was changed; the next link does: if the frame after is linked well, the earlier one was changed, else the later one. A
break that a missing, moved or damaged record explains is not told again.
"""

from __future__ import annotations

from hashlib import sha256

from attestd.audit import chain
from attestd.audit.chain import Frame
from attestd.audit.findings import Findings, records
from attestd.audit.reader import Damage

_MAX_TRACKED = 1000


_Place = tuple[Frame | None, int, int]  # a frame, the record that it is or that follows it, its segment


class Sequence:
    """State of the walk through the frames. ``seq`` is the number that the next record must have."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self.chain = chain.GENESIS
        self.seq = 0
        self.segment = 0
        self.intact = True
        """Every record so far was there, in order and unchanged, as far as the chain says."""
        self._excused = 0
        self._last: _Place = (None, 0, 0)
        self._suspect: tuple[_Place, _Place] | None = None
        self._damage: Damage | None = None
        self._missing: dict[int, tuple[int, int]] = {}

    def damaged(self, damage: Damage) -> None:
        """Bytes that are not a frame; which record that was, the next frame tells."""
        self._name_damage(self.seq + 1)
        self._damage = damage
        self._excused = 1

    def record(self, frame: Frame, seq: int) -> None:
        """A record frame that says it is ``seq``."""
        raw = frame.raw
        if seq == self.seq and raw[6:38] == self.chain and self._suspect is None and self._damage is None:
            self._excused = 0
            self._last = (frame, seq, self.segment)
            self.chain = sha256(raw).digest()
            self.seq = seq + 1
            return
        if self._damage is not None:
            self._name_damage(seq)
        if seq != self.seq:
            self._out_of_order(frame, seq)
        self._linked(frame, seq)
        self.seq = max(self.seq, seq + 1)

    def other(self, frame: Frame, size: int) -> None:
        """A checkpoint or header frame that says ``size`` records stand before it."""
        if self._damage is not None:
            self._name_damage(size)
        if size > self.seq:
            self._lost(size, frame.offset)
        self._linked(frame, self.seq)

    def end(self) -> None:
        """No frame follows: name what is still open."""
        self._name_damage(self.seq + 1)
        if self._suspect is not None:
            self._blame(self._suspect[0])
        first: int | None = None
        for seq, (segment, offset) in sorted(self._missing.items()):
            first = seq if first is None else first
            if seq + 1 not in self._missing:
                self._findings.add(first, segment, offset, f"{records(first, seq)}: missing")
                first = None

    def _linked(self, frame: Frame, seq: int) -> None:
        here: _Place = (frame, seq, self.segment)
        if frame.prev == self.chain:
            if self._suspect is not None:
                self._blame(self._suspect[0])
        elif self._suspect is not None:
            self._blame(self._suspect[1])
        elif not self._excused:
            self._suspect = (self._last, here)
            self.intact = False
        self._excused = max(0, self._excused - 1)
        self._last = here
        self.chain = chain.link(frame.raw)

    def _blame(self, place: _Place) -> None:
        frame, seq, segment = place
        how = "changed after it was written, or a checkpoint behind it removed: the chain breaks here"
        self._findings.add(seq, segment, 0 if frame is None else frame.offset, f"{_name(frame, seq)}: {how}")
        self._suspect = None

    def _out_of_order(self, frame: Frame, seq: int) -> None:
        self.intact = False
        if seq > self.seq:
            self._lost(seq, frame.offset)
            return
        if self._missing.pop(seq, None) is not None:
            what = f"record {seq}: moved, it stands behind record {self.seq - 1}"
            self._findings.add(seq, self.segment, frame.offset, what)
        else:
            self._findings.add(seq, self.segment, frame.offset, f"record {seq}: stands here a second time")
        self._excused = 2  # its own link, and that of the frame behind it
        self._settle()

    def _lost(self, seq: int, offset: int) -> None:
        self.intact = False
        if seq - self.seq <= _MAX_TRACKED:
            self._missing.update(dict.fromkeys(range(self.seq, seq), (self.segment, offset)))
        else:
            self._findings.add(self.seq, self.segment, offset, f"{records(self.seq, seq - 1)}: missing")
        self.seq = seq
        self._excused = 1
        self._settle()

    def _settle(self) -> None:
        if self._suspect is not None:
            self._blame(self._suspect[0])

    def _name_damage(self, seq: int) -> None:
        damage = self._damage
        if damage is None:
            return
        self._damage = None
        self._settle()
        if seq > self.seq:
            self.intact = False
            what = f"{records(self.seq, seq - 1)}: damaged, {damage.what}"
            self._findings.add(self.seq, self.segment, damage.offset, what)
            self.seq = seq
        else:
            what = f"the checkpoint or header before record {self.seq}: damaged, {damage.what}"
            self._findings.add(self.seq, self.segment, damage.offset, what)
        self._excused = 1


def _name(frame: Frame | None, seq: int) -> str:
    if frame is None:
        return "the beginning"
    if frame.kind == chain.RECORD:
        return f"record {seq}"
    return f"the {'checkpoint' if frame.kind == chain.CHECKPOINT else 'header'} before record {seq}"
