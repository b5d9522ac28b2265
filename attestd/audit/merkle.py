"""The RFC 6962 Merkle tree over the records. Pure.

The leaf of a record is its whole frame, as written. The tree is kept as its *frontier*: the roots of the perfect
subtrees of the current size, largest first, one per set bit of the size. Small leaves that were appended by their
data wait, bounded, and are hashed in blocks when somebody asks for the root: nobody does between two checkpoints.
Proofs are lists of 32-byte hashes, lowest level first. Verifiers return nothing and raise IntegrityError; there is no
boolean to forget.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

from attestd.errors import IntegrityError

EMPTY_ROOT = sha256(b"").digest()
WAITING_LEAVES = 1024
WAITING_BYTES = 4096
"""A longer leaf is hashed at once, so what waits takes at most 4 MiB."""


def leaf_hash(data: bytes) -> bytes:
    """Hash of one leaf; 32 bytes."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node; 32 bytes."""
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """A tree that grows by appending; O(log n) memory, amortised O(1) hashes per leaf."""

    def __init__(self, size: int = 0, frontier: Iterable[bytes] = ()) -> None:
        self.size = size
        self._frontier = list(frontier)
        self._waiting: list[bytes] = []
        if len(self._frontier) != size.bit_count():
            raise ValueError(f"frontier of {len(self._frontier)} hashes, expected {size.bit_count()} for size {size}")

    @property
    def frontier(self) -> tuple[bytes, ...]:
        """Roots of the perfect subtrees, largest first."""
        self._settle()
        return tuple(self._frontier)

    def append_data(self, data: bytes) -> None:
        """Add one leaf by its data; hashed now or later, and in any case as if it were now."""
        self.size += 1
        self._waiting.append(data)
        if len(data) > WAITING_BYTES or len(self._waiting) >= WAITING_LEAVES:
            self._settle()

    def append(self, leaf: bytes) -> None:
        """Add the hash of one leaf."""
        self._settle()
        size = self.size
        frontier = self._frontier
        while size & 1:
            leaf = sha256(b"\x01" + frontier.pop() + leaf).digest()
            size >>= 1
        frontier.append(leaf)
        self.size += 1

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Add many leaf hashes; like ``append`` for each, but whole aligned blocks at a time."""
        self._settle()
        start = 0
        while start < len(leaves):
            level = min((self.size & -self.size).bit_length() - 1 if self.size else 62, _log2(len(leaves) - start))
            nodes = leaves[start : start + (1 << level)]
            while len(nodes) > 1:
                pairs = iter(nodes)
                nodes = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
            self._push(nodes[0], level)
            start += 1 << level

    def root(self) -> bytes:
        """Root of the tree of the current size; 32 bytes."""
        self._settle()
        if not self._frontier:
            return EMPTY_ROOT
        root = self._frontier[-1]
        for node in reversed(self._frontier[:-1]):
            root = node_hash(node, root)
        return root

    def _settle(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self.size -= len(waiting)
            self.extend([leaf_hash(data) for data in waiting])

    def _push(self, node: bytes, level: int) -> None:
        size = self.size >> level
        while size & 1:
            node = node_hash(self._frontier.pop(), node)
            size >>= 1
        self._frontier.append(node)
        self.size += 1 << level


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Root of the tree over these leaf hashes."""
    tree = Tree()
    tree.extend(leaves)
    return tree.root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Proof that leaf ``index`` is in the tree over ``leaves``, all leaf hashes. Raises ValueError."""
    if not 0 <= index < len(leaves):
        raise ValueError(f"leaf {index} is not in a tree of {len(leaves)}")
    proof: list[bytes] = []
    low, high = 0, len(leaves)
    while high - low > 1:
        split = low + _split(high - low)
        if index < split:
            proof.append(root_of(leaves[split:high]))
            high = split
        else:
            proof.append(root_of(leaves[low:split]))
            low = split
    return proof[::-1]


def consistency_proof(leaves: Sequence[bytes], old: int) -> list[bytes]:
    """Proof that the tree over ``leaves[:old]`` is a prefix of the tree over ``leaves``. Raises ValueError."""
    if not 0 <= old <= len(leaves):
        raise ValueError(f"size {old} is not a size of a tree of {len(leaves)}")
    if old in (0, len(leaves)):
        return []
    proof: list[bytes] = []
    low, high, whole = 0, len(leaves), True
    while old != high:
        split = low + _split(high - low)
        if old <= split:
            proof.append(root_of(leaves[split:high]))
            high = split
        else:
            proof.append(root_of(leaves[low:split]))
            low, whole = split, False
    if not whole:
        proof.append(root_of(leaves[low:high]))
    return proof[::-1]


def verify_inclusion(*, index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> None:
    """Verify that ``leaf`` (a leaf hash) is number ``index`` of the tree of ``size`` with ``root``.

    Raises IntegrityError (RFC 9162, 2.1.3.2).
    """
    if not 0 <= index < size or any(len(item) != 32 for item in (leaf, root, *proof)):
        raise _refused("inclusion", f"leaf {index} of {size} with {len(proof)} hashes is not well formed")
    position, last, node = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise _refused("inclusion", "the proof is too long")
        if position & 1 or position == last:
            node = node_hash(sibling, node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        position, last = position >> 1, last >> 1
    if last != 0 or node != root:
        raise _refused("inclusion", f"got root {node.hex()}, expected {root.hex()}")


def verify_consistency(*, old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Verify that the tree of size ``old`` is a prefix of the tree of size ``new``.

    Raises IntegrityError (RFC 9162, 2.1.4.2).
    """
    if not 0 <= old <= new or any(len(item) != 32 for item in (old_root, new_root, *proof)):
        raise _refused("consistency", f"sizes {old} and {new} with {len(proof)} hashes are not well formed")
    if old in (0, new):
        expected = EMPTY_ROOT if old == 0 else new_root
        if proof or old_root != expected:
            raise _refused("consistency", f"got root {old_root.hex()}, expected {expected.hex()} and no proof")
    else:
        _fold_consistency(old, new, old_root, new_root, proof)


def _fold_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    nodes = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not nodes:
        raise _refused("consistency", "the proof is empty")
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    first = second = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            raise _refused("consistency", "the proof is too long")
        if position & 1 or position == last:
            first, second = node_hash(node, first), node_hash(node, second)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            second = node_hash(second, node)
        position, last = position >> 1, last >> 1
    if last != 0 or first != old_root or second != new_root:
        got, expected = f"{first.hex()} and {second.hex()}", f"{old_root.hex()} and {new_root.hex()}"
        raise _refused("consistency", f"got roots {got}, expected {expected}")


def _log2(value: int) -> int:
    return value.bit_length() - 1


def _split(size: int) -> int:
    """The largest power of two smaller than ``size``."""
    return 1 << ((size - 1).bit_length() - 1)


def _refused(kind: str, what: str) -> IntegrityError:
    hint = "get the proof again from a trusted copy of the log"
    return IntegrityError(f"cannot verify the {kind} proof: {what}", hint=hint)
