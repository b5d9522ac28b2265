"""The Merkle tree against published values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from attestd.audit import merkle
from attestd.errors import IntegrityError

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/audit/merkle.json").read_text())
LEAVES = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in VECTORS["leaves"]]
ROOTS = [bytes.fromhex(root) for root in VECTORS["roots"]]


def hashes(items: list[str]):
    return [bytes.fromhex(item) for item in items]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_the_published_ones(size: int):
    """Every size of the reference tree has the published root, leaf by leaf and all at once."""
    tree = merkle.Tree()
    for leaf in LEAVES[:size]:
        tree.append(leaf)
    assert tree.root() == ROOTS[size] == merkle.root_of(LEAVES[:size])


@pytest.mark.parametrize("vector", VECTORS["inclusion"])
def test_inclusion_proofs_are_the_published_ones(vector: dict[str, Any]):
    """Our proof is the published proof, and the published proof verifies."""
    index, size, proof = vector["index"], vector["size"], hashes(vector["proof"])
    assert merkle.inclusion_proof(LEAVES[:size], index) == proof
    merkle.verify_inclusion(index=index, size=size, leaf=LEAVES[index], proof=proof, root=ROOTS[size])


@pytest.mark.parametrize("vector", VECTORS["consistency"])
def test_consistency_proofs_are_the_published_ones(vector: dict[str, Any]):
    """Our proof is the published proof, and the published proof verifies."""
    old, new, proof = vector["old"], vector["new"], hashes(vector["proof"])
    assert merkle.consistency_proof(LEAVES[:new], old) == proof
    merkle.verify_consistency(old=old, new=new, old_root=ROOTS[old], new_root=ROOTS[new], proof=proof)


def test_all_proofs_of_all_sizes_verify():
    """Every inclusion and consistency proof that we make of the reference tree verifies against the published roots."""
    for size in range(1, 9):
        for index in range(size):
            proof = merkle.inclusion_proof(LEAVES[:size], index)
            merkle.verify_inclusion(index=index, size=size, leaf=LEAVES[index], proof=proof, root=ROOTS[size])
            old = index
            proof = merkle.consistency_proof(LEAVES[:size], old)
            merkle.verify_consistency(old=old, new=size, old_root=ROOTS[old], new_root=ROOTS[size], proof=proof)


@pytest.mark.parametrize("vector", VECTORS["inclusion"])
def test_a_changed_inclusion_proof_is_refused(vector: dict[str, Any]):
    """Another index, size, leaf, root, a longer, shorter or changed proof: none verifies."""
    index, size, proof = vector["index"], vector["size"], hashes(vector["proof"])
    good = {"index": index, "size": size, "leaf": LEAVES[index], "proof": proof, "root": ROOTS[size]}
    other = b"\x5a" * 32
    bad = [
        {"index": index + 1},
        {"index": index - 1},
        {"size": size * 2},
        {"size": size // 2},
        {"leaf": other},
        {"root": other},
        {"root": b"short"},
        {"proof": [*proof, other]},
        {"proof": [other, *proof]},
        *({"proof": [*proof[:at], other, *proof[at + 1 :]]} for at in range(len(proof))),
        *([{"proof": proof[:-1]}] if proof else []),
    ]
    for change in bad:
        with pytest.raises(IntegrityError, match="cannot verify the inclusion proof"):
            merkle.verify_inclusion(**(good | change))


@pytest.mark.parametrize("vector", [vector for vector in VECTORS["consistency"] if vector["proof"]])
def test_a_changed_consistency_proof_is_refused(vector: dict[str, Any]):
    """Other sizes, swapped or other roots, a longer, shorter, empty or changed proof: none verifies."""
    old, new, proof = vector["old"], vector["new"], hashes(vector["proof"])
    good = {"old": old, "new": new, "old_root": ROOTS[old], "new_root": ROOTS[new], "proof": proof}
    other = b"\x5a" * 32
    bad = [
        {"old": old + 1},
        {"old": old - 1},
        {"new": new * 2},
        {"new": new // 2},
        {"old_root": other},
        {"new_root": other},
        {"old_root": ROOTS[new], "new_root": ROOTS[old]},
        {"proof": []},
        {"proof": [*proof, other]},
        {"proof": [other, *proof]},
        {"proof": proof[:-1]},
        {"proof": [*proof, b""]},
        *({"proof": [*proof[:at], other, *proof[at + 1 :]]} for at in range(len(proof))),
    ]
    for change in bad:
        with pytest.raises(IntegrityError, match="cannot verify the consistency proof"):
            merkle.verify_consistency(**(good | change))


def test_the_empty_tree_is_a_prefix_of_every_tree():
    """Size 0 needs no proof, but its root must be the root of nothing."""
    merkle.verify_consistency(old=0, new=8, old_root=merkle.EMPTY_ROOT, new_root=ROOTS[8], proof=[])
    with pytest.raises(IntegrityError):
        merkle.verify_consistency(old=0, new=8, old_root=ROOTS[1], new_root=ROOTS[8], proof=[])


def test_proofs_of_what_is_not_there_are_not_made():
    """An index or size out of range is our caller's mistake and says so."""
    with pytest.raises(ValueError, match="leaf 8 is not in a tree of 8"):
        merkle.inclusion_proof(LEAVES, 8)
    with pytest.raises(ValueError, match="size 9 is not a size of a tree of 8"):
        merkle.consistency_proof(LEAVES, 9)


def test_a_tree_goes_on_from_its_frontier():
    """Size and frontier are enough to grow the same tree."""
    tree = merkle.Tree()
    tree.extend(LEAVES[:5])
    again = merkle.Tree(tree.size, tree.frontier)
    again.extend(LEAVES[5:])
    assert again.root() == ROOTS[8]


def test_a_frontier_that_does_not_fit_the_size_is_refused():
    """A size with three perfect subtrees needs three hashes."""
    with pytest.raises(ValueError, match="expected 3 for size 7"):
        merkle.Tree(7, [b"x" * 32])


@pytest.mark.parametrize("size", range(9))
def test_leaves_by_their_data_give_the_published_roots(size: int):
    """A leaf that waits for its hash counts at once, and the root is that of leaves hashed one by one."""
    tree = merkle.Tree()
    for leaf in VECTORS["leaves"][:size]:
        tree.append_data(bytes.fromhex(leaf))
    assert tree.size == size
    assert tree.root() == ROOTS[size]


def test_leaves_by_data_and_by_hash_mix():
    """Whatever is appended how, and whenever somebody asks, the order stays; many and large leaves do not wait."""
    data = [bytes([n % 251]) * (5000 if n % 700 == 3 else 30) for n in range(2 * merkle.WAITING_LEAVES + 77)]
    mixed = merkle.Tree()
    for number, leaf in enumerate(data):
        if number % 500 == 9:
            mixed.append(merkle.leaf_hash(leaf))
        else:
            mixed.append_data(leaf)
        if number % 333 == 0:
            assert len(mixed.frontier) == mixed.size.bit_count()
        assert len(mixed._waiting) < merkle.WAITING_LEAVES
        assert all(len(waiting) <= merkle.WAITING_BYTES for waiting in mixed._waiting)
    assert mixed.root() == merkle.root_of([merkle.leaf_hash(leaf) for leaf in data])
