"""Process events as a daemon may use them: lineage, and nothing that could be taken for a proof."""

from __future__ import annotations

import pytest

from attestd.errors import AttestdError
from attestd.evidence.recorder import ProcessKey
from attestd.kernel.linux.connector import fallback
from attestd.kernel.linux.connector.fallback import LineageOnly, open_fallback
from tests.fakes.recorder import FakeRecorder


def test_only_lineage_comes_through():
    """Even of a source that knows everything: counters are not exact, images a claim, words and connects unknown."""
    source = FakeRecorder()
    weak = LineageOnly(source)
    parent = source.fork(source.boot())
    child = source.fork(parent)
    source.execute(child, "/bin/true")
    record = weak.process(child)
    assert record is not None
    assert (record.counter_exact, record.parent_exact, record.image_claimed) == (False, False, True)
    assert [each.key.pid for each in weak.lineage(child)] == [child.pid, parent.pid, 1]
    assert not any(each.counter_exact for each in weak.lineage(child))
    assert weak.exec_counter(child) is None
    assert weak.exec_event(child, record.exec_counter) is None
    assert weak.connection(source.connect(child)) is None
    assert weak.process(ProcessKey(4711, 1)) is None
    weak.close()
    assert weak.state()[0] == "absent"


def test_losses_are_told():
    """How many events, in how many gaps."""
    source = FakeRecorder(fallback=True)
    weak = LineageOnly(source)
    parent = source.fork(source.boot())
    assert "lost" not in weak.state()[1]
    with source.losing():
        source.fork(parent)
    assert weak.state()[1].endswith("1 events lost in 1 gaps")
    assert weak.losses() == source.losses()


@pytest.mark.parametrize("error", [AttestdError("no events", hint="be root"), OSError(1, "Operation not permitted")])
def test_a_refusal_is_absent_with_its_reason(monkeypatch: pytest.MonkeyPatch, error: Exception):
    """Nothing is raised: the daemon starts without."""

    def refuse() -> None:
        raise error

    monkeypatch.setattr(fallback, "ConnectorRecorder", refuse)
    state, reason = open_fallback().state()
    assert state == "absent"
    assert reason in {"no events; be root", "cannot follow process events: operation not permitted"}


def test_the_real_one():
    """On this machine: it is a fallback, or says why not."""
    opened = open_fallback()
    state, reason = opened.state()
    opened.close()
    assert state in {"fallback", "absent"}
    assert reason
