"""The appraiser of one generation."""

from __future__ import annotations

from typing import Any

import pytest

from attestd.appraisal import appraiser
from attestd.appraisal.appraise import appraise
from attestd.appraisal.appraiser import Appraiser
from attestd.appraisal.model import AttestationResult
from attestd.evidence.model import Evidence
from tests.support.evidence import NAMING, REFERENCES, evidence_of, python_client, shell, shipped_table, terminal


def made() -> Appraiser:
    """Of one generation."""
    return Appraiser(table=shipped_table(), references=REFERENCES, naming=NAMING)


def test_unchanged_evidence_is_appraised_once(monkeypatch: pytest.MonkeyPatch):
    """The second connection of an unchanged chain gets the first one's result; another generation appraises anew."""
    appraised: list[Evidence] = []

    def counted(evidence: Evidence, *rest: Any) -> AttestationResult:
        appraised.append(evidence)
        return appraise(evidence, *rest)

    monkeypatch.setattr(appraiser, "appraise", counted)
    evidence = evidence_of(python_client(), shell(), terminal())
    one = made()
    results = [each.appraise(evidence) for each in (one, one, made())]
    assert results[0] is results[1] == results[2]
    assert len(appraised) == 2
