"""The prepared caller."""

from __future__ import annotations

from tests.support.policies import make_engine, make_subject
from tests.support.results import INSTANCE, MINUTE, NOW, make_grant


def test_what_a_subject_knows():
    """Its linked grants, the first end among them, the grants for one use, and its principal."""
    engine = make_engine()
    subject = make_subject(
        engine,
        make_grant(),
        make_grant(id="g2", lifetime="once"),
        make_grant(id="g3", lifetime="until", until_ns=NOW + MINUTE),
        make_grant(id="g4", min_level=4),
    )
    assert subject.grants == ("g1", "g2", "g3")
    assert subject.until_ns == NOW + MINUTE
    assert subject.since_ns == NOW - MINUTE
    assert subject.once == {"g2"}
    assert subject.principal == {"type": "Process", "id": INSTANCE}
    assert subject.generation == engine.generation


def test_keys_are_never_used_twice():
    """Two preparations of one caller have different keys, so neither sees the other's remembered verdicts."""
    engine = make_engine()
    assert make_subject(engine).key != make_subject(engine).key


def test_current_is_itself_while_nothing_ended():
    """A subject is replaced only when a grant has ended, and then by one remembered narrower subject."""
    engine = make_engine()
    subject = make_subject(engine, make_grant(lifetime="until", until_ns=NOW + MINUTE))
    assert engine.current(subject, NOW) is subject
    narrower = engine.current(subject, NOW + MINUTE)
    assert narrower.grants == ()
    assert engine.current(subject, NOW + 2 * MINUTE) is narrower
