"""Properties of tree, chain and log. Each test states its invariant first."""

from __future__ import annotations

import contextlib
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestd.audit import chain, merkle
from attestd.audit.query import Filters, query
from attestd.audit.verify import verify
from attestd.errors import IntegrityError
from tests.support.audit import START_NS, entry, make_log, open_log

leaf_lists = st.lists(st.binary(max_size=8).map(merkle.leaf_hash), max_size=70)


def slow_root(leaves: list[bytes]):
    """The definition of RFC 6962, 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return merkle.node_hash(slow_root(leaves[:split]), slow_root(leaves[split:]))


@given(leaves=leaf_lists, cut=st.integers(0, 70))
def test_the_tree_is_the_one_of_the_definition(leaves: list[bytes], cut: int):
    """Invariant: one by one, in blocks or after a restart, the root is that of the definition."""
    one = merkle.Tree()
    for leaf in leaves:
        one.append(leaf)
    block = merkle.Tree()
    block.extend(leaves[:cut])
    block = merkle.Tree(block.size, block.frontier)
    block.extend(leaves[cut:])
    assert one.root() == block.root() == slow_root(leaves)
    assert one.frontier == block.frontier


@given(leaves=leaf_lists.filter(bool), data=st.data())
def test_a_proof_proves_its_leaf_and_no_other(leaves: list[bytes], data: Any):
    """Invariant: an inclusion proof verifies for its leaf, and for no other hash in its place."""
    index = data.draw(st.integers(0, len(leaves) - 1))
    proof, root, size = merkle.inclusion_proof(leaves, index), merkle.root_of(leaves), len(leaves)
    merkle.verify_inclusion(index=index, size=size, leaf=leaves[index], proof=proof, root=root)
    with pytest.raises(IntegrityError):
        merkle.verify_inclusion(index=index, size=size, leaf=merkle.leaf_hash(b"other" * 9), proof=proof, root=root)


@given(leaves=leaf_lists, data=st.data())
def test_only_a_prefix_is_consistent(leaves: list[bytes], data: Any):
    """Invariant: a consistency proof verifies for the true prefix, and for no other old root."""
    old = data.draw(st.integers(0, len(leaves)))
    proof = merkle.consistency_proof(leaves, old)
    roots = {"old_root": merkle.root_of(leaves[:old]), "new_root": merkle.root_of(leaves)}
    merkle.verify_consistency(old=old, new=len(leaves), proof=proof, **roots)
    with pytest.raises(IntegrityError):
        merkle.verify_consistency(old=old, new=len(leaves), proof=proof, **(roots | {"old_root": b"?" * 32}))


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_a_frame_error(data: Any):
    """Invariant: decoding gives a frame or a FrameError, nothing else, and a frame is exactly its bytes."""
    with contextlib.suppress(chain.FrameError):
        assert data.startswith(chain.decode(data).raw)


@given(payload=st.binary(max_size=200), prev=st.binary(min_size=32, max_size=32), bit=st.integers(min_value=0))
def test_a_frame_comes_back_and_no_single_flip_does(payload: bytes, prev: bytes, bit: int):
    """Invariant: what was encoded decodes to the same; with any one bit flipped it does not decode."""
    raw = chain.encode(chain.RECORD, prev, payload)
    frame = chain.decode(raw)
    assert (frame.prev, frame.payload, frame.end) == (prev, payload, len(raw))
    changed = bytearray(raw)
    changed[bit // 8 % len(raw)] ^= 1 << bit % 8
    with pytest.raises(chain.FrameError):
        chain.decode(bytes(changed))


@given(text=st.text())
def test_no_text_looks_like_a_frame(text: str):
    """Invariant: the magic byte does not occur in UTF-8, so no name in a record is taken for a frame."""
    assert chain.MAGIC not in text.encode(errors="ignore")


@settings(deadline=None, max_examples=60)
@given(groups=st.lists(st.integers(0, 6), min_size=1, max_size=4), data=st.data())
def test_any_change_under_a_checkpoint_is_found(groups: list[int], data: Any):
    """Invariant: after any change of bytes of a closed log, cut or insertion, it does not verify as what it was."""
    with tempfile.TemporaryDirectory() as place:
        segment = make_log(Path(place) / "log", tuple(groups))
        whole = verify(segment.parent)
        assert whole.ok
        before = segment.read_bytes()
        at = data.draw(st.integers(0, len(before) - 1))
        gone = data.draw(st.integers(0, 40))
        put = data.draw(st.binary(max_size=40))
        after = before[:at] + put + before[at + gone :]
        segment.write_bytes(after)
        report = verify(segment.parent, external_head=whole.head)
        tail_only = len(after) < len(before) and before.startswith(after)
        if after == before or (tail_only and report.records == whole.records):
            return
        assert not report.ok


@settings(deadline=None, max_examples=40)
@given(count=st.integers(0, 12), cut=st.integers(0, 4000), junk=st.binary(max_size=60))
def test_recovery_keeps_a_prefix_and_gives_a_whole_log(count: int, cut: int, junk: bytes):
    """Invariant: whatever a crash leaves, opening keeps a prefix of the records and the log is whole."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place) / "log"
        segment = make_log(directory, (3,))
        start = segment.stat().st_size
        with open_log(directory) as log:
            for number in range(3, 3 + count):
                log.append(entry(number), START_NS + number)
            log.sync_now()
            data = segment.read_bytes()
        segment.write_bytes(data[: max(start, len(data) - cut)] + junk)
        with open_log(directory):
            pass
        ids = [row.record.id for row in query(directory, Filters(kinds=("decision",)))]
        assert ids == [f"d{number:08d}" for number in range(len(ids))]
        assert len(ids) >= 3
        assert verify(directory).ok
