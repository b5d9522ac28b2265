"""Refusals on record: the first of a minute singly, the others as a number."""

from __future__ import annotations

import pytest

from attestd.audit.protocol import Entry
from attestd.audit.refusals import KINDS, MINUTE_NS, Refusals
from attestd.errors import AuditUnavailableError
from tests.fakes.mediation import MemoryAudit

T = 1_763_000_000_000_000_000


def refusal(number: int, name: str = "delete", cause: str = "no_grant", **more: str) -> Entry:
    """One refused call."""
    return Entry(
        kind="decision", id=f"s.{number}", server="time", method="tools/call", name=name, verdict="deny", cause=cause,
        latency_ns=9, detail={"why": "because"}, **more,
    )  # fmt: skip


def total(log: MemoryAudit) -> int:
    """How many refusals the records speak of."""
    return sum(int(entry.detail.get("times", 1)) for entry in log.entries)


def test_the_first_are_records_and_the_others_a_number():
    """Three singly, then one record with the exact count, its first and last time, and the id of what stands for it."""
    log = MemoryAudit()
    refusals = Refusals(log, 3)
    ids = [refusals.note(refusal(n), T + n) for n in range(100)]
    assert ids == ["s.0", "s.1", "s.2"] + ["s.2"] * 97
    assert [entry.id for entry in log.entries] == ["s.0", "s.1", "s.2"]
    refusals.settle(T + MINUTE_NS - 1)
    assert len(log.entries) == 3
    refusals.settle(T + MINUTE_NS)
    summary = log.entries[3]
    assert summary.detail == {"times": 97, "first_ns": T + 3, "last_ns": T + 99, "like": "s.2"}
    assert (summary.id, summary.method, summary.name, summary.cause) == ("s.99", "tools/call", "delete", "no_grant")
    assert (summary.verdict, summary.latency_ns) == ("deny", 0)
    assert refusals.idle


def test_a_new_minute_begins_with_records():
    """Whoever goes on is seen again, minute by minute; the first refusal of the next one settles the last."""
    log = MemoryAudit()
    refusals = Refusals(log, 2)
    for minute in range(3):
        for n in range(5):
            refusals.note(refusal(10 * minute + n), T + minute * MINUTE_NS + n)
    refusals.settle(T, end=True)
    assert [int(entry.detail.get("times", 1)) for entry in log.entries] == [1, 1, 3] * 3
    assert total(log) == 15


def test_the_end_settles_at_once():
    """A session that ends leaves nothing uncounted, and nothing is written twice."""
    log = MemoryAudit()
    refusals = Refusals(log, 1)
    for n in range(4):
        refusals.note(refusal(n), T)
    refusals.settle(T, end=True)
    refusals.settle(T, end=True)
    assert [entry.detail.get("times") for entry in log.entries] == [None, 3]


@pytest.mark.parametrize("field", ["cause", "name", "method", "server"])
def test_what_differs_is_counted_apart(field: str):
    """Cause, method, name and server each tell refusals apart."""
    log = MemoryAudit()
    refusals = Refusals(log, 1)
    entries = [Entry(kind="decision", id=str(n), verdict="deny", **{field: f"v{n % 2}"}) for n in range(6)]
    for entry in entries:
        refusals.note(entry, T)
    refusals.settle(T, end=True)
    assert [(getattr(e, field), e.detail.get("times", 1)) for e in log.entries] == [
        ("v0", 1), ("v1", 1), ("v0", 2), ("v1", 2),
    ]  # fmt: skip


def test_ever_new_names_fill_nothing_either():
    """After so many different ones, the others are one number for each cause, of which the first is a record."""
    log = MemoryAudit()
    refusals = Refusals(log, 10)
    for n in range(10_000):
        stands = refusals.note(refusal(n, name=f"name {n}", cause="no_grant" if n % 2 else "out_of_scope"), T)
        assert stands in {entry.id for entry in log.entries}
    refusals.settle(T, end=True)
    assert len(log.entries) == KINDS + 2 + 2
    assert [(e.method, e.name) for e in log.entries[-2:]] == [("", "")] * 2
    assert total(log) == 10_000


def test_a_full_disk_loses_no_count():
    """A record that was due is refused; what is counted stays counted until it can be written."""
    log = MemoryAudit()
    refusals = Refusals(log, 1)
    log.full = True
    with pytest.raises(AuditUnavailableError):
        refusals.note(refusal(0), T)
    log.full = False
    refusals.note(refusal(1), T)
    refusals.note(refusal(2), T)
    log.full = True
    with pytest.raises(AuditUnavailableError):
        refusals.settle(T, end=True)
    refusals.note(refusal(3), T + MINUTE_NS)
    assert refusals.unwritten() == 2
    log.full = False
    refusals.settle(T, end=True)
    assert (total(log), refusals.unwritten()) == (3, 0)


def test_a_clock_that_was_set_back_settles():
    """A minute that lies in the future is over."""
    log = MemoryAudit()
    refusals = Refusals(log, 1)
    refusals.note(refusal(0), T)
    refusals.note(refusal(1), T)
    refusals.note(refusal(2), T - MINUTE_NS)
    assert [entry.detail.get("times") for entry in log.entries] == [None, 1, None]
