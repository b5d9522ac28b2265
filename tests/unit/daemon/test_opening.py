"""A session, wired and recorded."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attestd.appraisal.appraise import appraise
from attestd.daemon.opening import caller_body, challenge, open_session
from attestd.enforcement.proof import ManyProof
from attestd.mediation import Attested
from tests.support.daemons import Inside


@pytest.fixture(name="inside")
async def _inside(short_tmp: Path) -> AsyncIterator[Inside]:
    inside = Inside(short_tmp)
    yield inside
    await inside.close()


async def test_it_is_recorded_before_it_exists(inside: Inside):
    """The record names the caller, whose body holds evidence and result."""
    daemon = inside.daemon
    collected = inside.kernel.collect_pid(1)
    appraiser = daemon.appraiser
    result = appraise(collected.evidence, appraiser.table, appraiser.references, appraiser.naming)
    attested = Attested(evidence=collected.evidence, result=result, watch=collected.watch)
    opened = open_session(
        daemon, daemon.fronts["time"], collected.evidence.peer, attested, proof=ManyProof("x"), watch=collected.watch
    )
    assert opened.caller.session == opened.id
    assert opened.caller.calls() == 0
    assert opened.caller.revision() is None
    assert json.loads(caller_body(attested)).keys() == {"result", "evidence"}
    collected.watch.close()


def test_challenges_differ():
    """128 bits."""
    assert challenge() != challenge()
    assert len(challenge()) == len("attestd-") + 32
