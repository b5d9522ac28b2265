"""The fallback recorder under load: whatever is not delivered is counted, to the event."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

from attestd.evidence.recorder import ProcessKey
from attestd.kernel.linux.connector import messages
from attestd.kernel.linux.connector.feed import Feed
from attestd.kernel.linux.connector.recorder import ConnectorRecorder
from tests.support.children import needs_userns
from tests.support.puppets import Stage
from tests.unit.kernel.connector.test_feed import Heard

FORKS = 1500


class Logging(Feed):
    """A feed that notes the CPU and number of every event it delivers."""

    def __init__(self, receive_bytes: int) -> None:
        super().__init__(receive_bytes)
        self.numbers: dict[int, set[int]] = {}

    def _give(self, count, sink, *, genuine):
        for event in messages.EVENT.iter_unpack(self._view[: count * messages.SLOT]):
            _size, _group, sequence, _kind, cpu = event[:5]
            self.numbers.setdefault(cpu, set()).add(sequence)
        super()._give(count, sink, genuine=genuine)


def heard_by(feed: Feed) -> Heard:
    heard = Heard()
    while feed.read(heard):
        pass
    return heard


def test_a_full_buffer_loses_exactly_what_is_counted():
    """A feed that is not read loses, to the event, what one with room for everything received meanwhile."""
    forks = FORKS if os.geteuid() == 0 else 100  # what fits into the buffer of an ordinary user
    with contextlib.closing(Logging(64 << 20)) as whole, contextlib.closing(Logging(8192)) as narrow, Stage() as stage:
        puppet = stage.enter()
        whole.speak()
        early = heard_by(narrow)  # what others do on this machine may fill it before the test begins
        assert heard_by(whole).losses == []
        puppet.tell(f"forks {forks}")
        some = heard_by(narrow)
        narrow.speak()
        late = heard_by(narrow)
        everything = heard_by(whole)
    assert everything.losses == []
    assert sum(parent == puppet.pid and tid == pid for parent, tid, pid in everything.forks) == forks
    missed = 0
    for cpu, got in narrow.numbers.items():
        span = range(min(got), max(got) + 1)
        missed += len({number for number in whole.numbers[cpu] if number in span} - got)
    assert missed > 0
    assert sum(count for count, _ in early.losses + some.losses + late.losses) == missed


def test_a_storm_is_read_whole_or_its_loss_is_counted():
    """As fast as a process can fork: each child is recorded, or lost events are reported."""
    with contextlib.closing(ConnectorRecorder()) as recorder, Stage() as stage:
        puppet = stage.enter()
        before = recorder.losses()
        puppet.tell(f"forks {FORKS}")
        losses = recorder.losses()
        mother = recorder._table.find(ProcessKey(puppet.pid, puppet.start_ns))
        children = mother.children
        lost = losses.unknown_events - before.unknown_events
    assert children == FORKS or (lost > 0 and children + lost >= FORKS)


def test_an_inner_namespace_is_told_so():
    """The kernel does not answer a listener in a user namespace of its own; the refusal says what to do."""
    needs_userns()
    code = """
from attestd.kernel.linux.connector.feed import ConnectorUnavailableError, Feed
try:
    Feed()
except ConnectorUnavailableError as error:
    print(error.message, error.hint)
"""
    asked = subprocess.run(
        ["unshare", "-Ur", sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "cannot" in asked.stdout
    assert "namespace" in asked.stdout
