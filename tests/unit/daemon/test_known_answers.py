"""Who asks the questions whose answers are known, and with which grants."""

from __future__ import annotations

from attestd.appraisal.caps import reason
from attestd.appraisal.model import CallerKind
from attestd.daemon.known_answers import KNOWN, grants_of, ordinary
from attestd.errors import Cause
from attestd.grants.match import match
from tests.support.results import NOW, make_evidence, make_link, make_result


def test_whatever_this_process_looks_like():
    """Known questions are asked by an ordinary caller: a traced, injected orphan of level 0 is none."""
    result = make_result(level=0, kind=CallerKind.ORPHAN, program="", reasons=(reason("traced"), reason("preload")))
    evidence = make_evidence(make_link(tracer_pid=7), make_link())
    evidence, caller = ordinary(evidence, result)
    assert [link.tracer_pid for link in evidence.chain] == [0]
    assert (caller.level, caller.kind, caller.reasons, caller.accountable) == (1, CallerKind.PROGRAM, (), 0)
    held = grants_of(KNOWN[1], caller, "s", NOW)
    assert match(caller, "s", held, NOW).linked == held


def test_each_question_stands_for_one_cause():
    """All that hold a grant differ in what it says, and the caller owns each."""
    _, caller = ordinary(make_evidence(make_link()), make_result())
    found = {}
    for question in KNOWN:
        matched = match(caller, "s", grants_of(question, caller, "s", NOW), NOW)
        found[question.cause] = (len(matched.linked), [rejected.cause for rejected in matched.rejected])
    assert found == {
        Cause.NO_GRANT: (0, []),
        None: (1, []),
        Cause.OUT_OF_SCOPE: (1, []),
        Cause.LEVEL_TOO_LOW: (0, [Cause.LEVEL_TOO_LOW]),
        Cause.EXPIRED: (0, [Cause.EXPIRED]),
    }
