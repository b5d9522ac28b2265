"""What a connection remembers of heads."""

from __future__ import annotations

from attestd.wire.known import HEAD_BYTES, HEADS, KnownHeads


def test_few_and_small_ones():
    """The newest is always there; a large one never is, and pushes nothing out."""
    known: KnownHeads[int, str] = KnownHeads()
    for number in range(3 * HEADS):
        known.keep(number, str(number), HEAD_BYTES)
        known.keep(-number - 1, "large", HEAD_BYTES + 1)
        assert known[number] == str(number)
        assert len(known) <= HEADS
    assert all(number >= 0 for number in known)
