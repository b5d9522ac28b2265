"""Results that are said again: only for evidence of the very same links and otherwise equal."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import attestd.appraisal
from attestd.appraisal.appraise import appraise
from attestd.appraisal.memo import CAPACITY, Memo
from attestd.evidence.model import Evidence, InputHolders
from attestd.evidence.tcp import TcpPeer
from tests.support.evidence import NAMING, REFERENCES, evidence_of, init, python_client, shell, shipped_table

EVIDENCE = evidence_of(python_client(), shell(), init())
RESULT = appraise(EVIDENCE, shipped_table(), REFERENCES, NAMING)
OTHERWISE = {
    "peer": msgspec.structs.replace(EVIDENCE.peer, source="pid-only"),
    "end": "broken",
    "boot_id": "another",
    "recorder": "lost",
    "recorder_reason": "another",
    "exe_forgeable": not EVIDENCE.exe_forgeable,
    "input": InputHolders(kind="pipe", pids=(7,), complete=True),
    "proven_upto": 5,
    "proven_reason": "another",
    "tcp": TcpPeer(
        cookie=1,
        inode=2,
        uid=3,
        source="scan",
        key=None,
        candidates=(),
        holders=(),
        examined=False,
        shared=None,
        exec_changed=None,
        reasons=(),
    ),
}


@pytest.fixture(name="memo")
def _memo() -> Memo:
    memo = Memo()
    memo.keep(EVIDENCE, RESULT)
    return memo


def test_the_time_of_collection_makes_no_difference(memo: Memo):
    """The same links, collected later, have the same result."""
    assert memo.find(msgspec.structs.replace(EVIDENCE, collected_ns=EVIDENCE.collected_ns + 1)) is RESULT


def test_no_appraisal_reads_the_time_of_collection():
    """Nothing in the room but the memo, which leaves it out, names that field."""
    room = Path(next(iter(attestd.appraisal.__path__)))
    assert [path.name for path in room.glob("*.py") if "collected_ns" in path.read_text("utf-8")] == ["memo.py"]


def test_equal_links_are_not_the_same_links(memo: Memo):
    """A link that was read anew is appraised anew, even if nothing in it differs."""
    again = msgspec.structs.replace(EVIDENCE.chain[0])
    assert again == EVIDENCE.chain[0]
    assert memo.find(msgspec.structs.replace(EVIDENCE, chain=(again, *EVIDENCE.chain[1:]))) is None
    assert memo.find(msgspec.structs.replace(EVIDENCE, chain=EVIDENCE.chain[:-1])) is None


@pytest.mark.parametrize("field", sorted({*Evidence.__struct_fields__} - {"chain", "collected_ns"}))
def test_any_other_difference_is_one(memo: Memo, field: str):
    """Every field of the evidence counts, and a new one fails here until it is thought of."""
    other = msgspec.structs.replace(EVIDENCE, **{field: OTHERWISE[field]})
    assert getattr(other, field) != getattr(EVIDENCE, field)
    assert memo.find(other) is None


def test_it_is_bounded():
    """The oldest goes, the newest stays."""
    memo = Memo()
    many = [evidence_of(python_client(), shell(), init()) for _ in range(CAPACITY + 3)]
    for evidence in many:
        memo.keep(evidence, RESULT)
    assert len(memo) == CAPACITY
    assert memo.find(many[0]) is None
    assert memo.find(many[-1]) is RESULT
