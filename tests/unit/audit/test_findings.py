"""The report and its words."""

from __future__ import annotations

from attestd.audit.findings import Findings, records


def test_problems_are_sorted_by_record():
    """The first problem of the log comes first, whenever it was found; no number is below zero."""
    findings = Findings()
    findings.add(7, 0, 70, "b")
    findings.add(-1, 0, 3, "a")
    assert [(problem.seq, problem.what) for problem in findings.sorted()] == [(0, "a"), (7, "b")]


def test_records_are_named_alone_or_as_a_range():
    """One record is no range."""
    assert (records(3, 3), records(3, 4)) == ("record 3", "records 3 to 4")
