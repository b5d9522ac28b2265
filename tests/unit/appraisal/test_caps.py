"""The table of reasons."""

from __future__ import annotations

import pytest

from attestd.appraisal.caps import CAPS, reason
from attestd.appraisal.model import Reason

PINNED = {
    0: "orphan no-terminal chain-limit chain-unreadable unreadable traced dead foreign-user-namespace"
    " foreign-pid-namespace memfd preload relay-refused script-unknown script-younger input-shared input-unheld"
    " pid-only uid-ambiguous image-forged tcp-shared tcp-exec",
    1: "image-claimed exe-writable exe-deleted exe-fuse exe-network script-writable inline-program bare-interpreter"
    " relay-writable search-path foreign-mount-namespace launcher launcher-unknown input-unknown input-file uid-mixed"
    " uid-crossed environ-cut tcp-writer tcp-exec-unknown",
    2: "origin-unverified",
    3: "no-kernel-signature",
    4: "inspected",
}


def test_table_is_pinned():
    """Codes and caps are stable: this is the whole table."""
    assert {cap: {code for code, rule in CAPS.items() if rule.cap == cap} for cap in PINNED} == {
        cap: set(codes.split()) for cap, codes in PINNED.items()
    }


def test_rows_are_documented():
    """Every row has a text for people; a remark needs no remedy."""
    for rule in CAPS.values():
        assert rule.doc.endswith(".")
        assert rule.cap < 4 or not rule.remedy


def test_reason():
    """A reason takes its cap from the table; a code that is not there is a bug."""
    assert reason("traced", "x") == Reason(cap=0, code="traced", detail="x")
    with pytest.raises(KeyError):
        reason("nothing")
