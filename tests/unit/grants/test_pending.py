"""Refused callers that wait for a decision."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from attestd.appraisal.model import AttestationResult
from attestd.errors import Cause, NotPermittedError
from attestd.grants.model import Pending
from attestd.grants.pending import NAME_CAP, PendingLimits, Pendings
from tests.support.results import MINUTE, NOW, make_pending, make_result


class Kept:
    """A store in memory that counts its writes."""

    def __init__(self) -> None:
        self.rows: dict[str, Pending] = {}
        self.writes = 0

    def put_pending(self, pending: Pending) -> None:
        """Keep."""
        self.rows[pending.code] = pending
        self.writes += 1

    def drop_pending(self, code: str) -> None:
        """Forget."""
        self.rows.pop(code, None)


def registry(**limits: Any) -> tuple[Pendings, Kept]:
    """A fresh registry over a fresh store, with reproducible codes."""
    kept = Kept()
    return Pendings(kept, random.Random(7).randbytes, PendingLimits(**limits)), kept


def add(pendings: Pendings, result: AttestationResult | None = None, **changes: Any) -> Pending:
    """One refused tools/call of ``get`` on ``time``."""
    facts: dict[str, Any] = {
        "server": "time",
        "cause": Cause.NO_GRANT,
        "method": "tools/call",
        "name": "get",
        "runs": "image",
        "now_ns": NOW,
    }
    return pendings.add(make_result() if result is None else result, **{**facts, **changes})


def test_repetitions_collapse():
    """The same question asked again keeps its code, counts, and lives on."""
    pendings, kept = registry()
    first = add(pendings)
    again = add(pendings, now_ns=NOW + MINUTE)
    other = add(pendings, name="set", cause=Cause.OUT_OF_SCOPE, now_ns=NOW + MINUTE)
    assert first.code == again.code == other.code
    assert [(want.name, want.count) for want in other.wants] == [("get", 2), ("set", 1)]
    assert other.count == 3
    assert other.first_ns == NOW
    assert other.expires_ns == NOW + 16 * MINUTE
    assert kept.writes == 2
    assert len(pendings.list(None, NOW + MINUTE)) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"result": make_result(uid=1001)},
        {"result": make_result(program="cd" * 32)},
        {"result": make_result(chain="34" * 32)},
        {"result": make_result(inline=True)},
        {"server": "other"},
        {"cause": Cause.LAUNCHER},
    ],
)
def test_other_questions_get_other_codes(changed: dict[str, Any]):
    """Another user, program, chain, way, server or kind of reason is another question."""
    pendings, _ = registry()
    assert add(pendings).code != add(pendings, **changed).code


def test_another_process_of_fixed_code_is_the_same_question():
    """Two processes of one binary share a code; the younger one's identity is kept."""
    pendings, _ = registry()
    first = add(pendings)
    second = add(pendings, make_result(instance="boot/2/1"))
    assert first.code == second.code
    assert msgspec.json.decode(second.identity, type=AttestationResult).instance == "boot/2/1"


@pytest.mark.parametrize("runs", ["inline", "stdin", "unresolved", "none", ""])
def test_another_process_without_fixed_code_is_another_question(runs: str):
    """Nobody slips under the question of another process where the digest does not fix the code."""
    pendings, _ = registry()
    first = add(pendings, runs=runs)
    second = add(pendings, make_result(instance="boot/2/1"), runs=runs)
    assert first.code != second.code


def test_caps_per_uid_drop_the_oldest_own():
    """Beyond its cap a uid loses its own oldest question, never another uid's."""
    pendings, kept = registry(per_uid=3, total=100)
    neighbour = add(pendings, make_result(uid=1))
    codes = [add(pendings, server=f"s{number}").code for number in range(5)]
    left = [entry.code for entry in pendings.list(None, NOW)]
    assert left == [neighbour.code, *codes[2:]]
    assert set(kept.rows) == set(left)


def test_total_cap_takes_from_the_uid_that_has_most():
    """When the total is full, a newcomer displaces the oldest question of the most crowded uid."""
    pendings, _ = registry(per_uid=10, total=3)
    crowd = [add(pendings, server=f"s{number}").code for number in range(2)]
    neighbour = add(pendings, make_result(uid=1))
    newcomer = add(pendings, make_result(uid=2))
    assert [entry.code for entry in pendings.list(None, NOW)] == [crowd[1], neighbour.code, newcomer.code]


def test_wants_are_capped_and_never_shortened():
    """More wants than the cap, and names that are too long, are counted without being kept."""
    pendings, _ = registry(wants=2)
    for name in ("a", "b", "c", "x" * (NAME_CAP + 1)):
        last = add(pendings, name=name)
    assert [want.name for want in last.wants] == ["a", "b"]
    assert last.count == 4


def test_expiry():
    """A question dies its time after the last refusal, and its code with it."""
    pendings, kept = registry(ttl_ns=MINUTE)
    code = add(pendings).code
    assert pendings.list(None, NOW + MINUTE - 1)
    with pytest.raises(NotPermittedError):
        pendings.find(code, approver="p", uid=None, now_ns=NOW + MINUTE)
    assert kept.rows == {}


def test_codes_are_single_use():
    """A code can be looked at often and taken once."""
    pendings, kept = registry()
    code = add(pendings).code
    seen = pendings.find(code.lower().replace("-", ""), approver="p", uid=1000, now_ns=NOW)
    assert pendings.take(code, approver="p", uid=1000, now_ns=NOW) == seen
    assert kept.rows == {}
    with pytest.raises(NotPermittedError):
        pendings.take(code, approver="p", uid=1000, now_ns=NOW)


def test_another_users_code_is_a_wrong_code():
    """An approver limited to one uid learns nothing about another's code."""
    pendings, _ = registry()
    code = add(pendings).code
    with pytest.raises(NotPermittedError) as other:
        pendings.take(code, approver="p", uid=1001, now_ns=NOW)
    with pytest.raises(NotPermittedError) as wrong:
        pendings.take("2222-2222", approver="q", uid=1001, now_ns=NOW)
    assert other.value.message == wrong.value.message
    assert pendings.find(code, approver="r", uid=None, now_ns=NOW).code == code


def test_guessing_locks_out():
    """After ten wrong codes even the right one is refused to that approver for a minute."""
    pendings, _ = registry()
    code = add(pendings).code
    for _ in range(10):
        with pytest.raises(NotPermittedError):
            pendings.find("2222-2222", approver="p", uid=None, now_ns=NOW)
    with pytest.raises(NotPermittedError, match="wrong codes in a row"):
        pendings.take(code, approver="p", uid=None, now_ns=NOW)
    assert pendings.take(code, approver="p", uid=None, now_ns=NOW + MINUTE).code == code


def test_list_is_by_uid():
    """One uid's view does not show another's questions."""
    pendings, _ = registry()
    add(pendings)
    add(pendings, make_result(uid=1))
    assert [entry.uid for entry in pendings.list(1, NOW)] == [1]
    assert len(pendings.list(None, NOW)) == 2


def test_restore_takes_what_makes_sense():
    """After a restart live questions are back under their key; expired and broken ones are dropped."""
    pendings, kept = registry()
    good = make_pending(None, ("tools/call", "get"))
    old = make_pending(code="AAAA-AAAA", expires_ns=NOW, server="x")
    broken = make_pending(code="BBBB-BBBB", identity=b"{}")
    strange = make_pending(code="CCCC-CCCC", cause="whim")
    kept.rows = {entry.code: entry for entry in (good, old, broken, strange)}
    pendings.restore(tuple(kept.rows.values()), NOW)
    assert [entry.code for entry in pendings.list(None, NOW)] == [good.code] == list(kept.rows)
    assert add(pendings).code == good.code


def test_flush_writes_counts():
    """Counts that were kept in memory reach the store by flush, once."""
    pendings, kept = registry()
    code = add(pendings).code
    add(pendings)
    assert kept.rows[code].count == 1
    pendings.flush()
    pendings.flush()
    assert kept.rows[code].count == 2
    assert kept.writes == 2
