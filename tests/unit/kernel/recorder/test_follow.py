"""The recorder that a daemon follows: absent with a reason, found later, replaced, closed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from attestd.errors import NotPermittedError
from attestd.evidence.protocol import AbsentRecorder
from attestd.evidence.recorder import Losses, Recorder
from attestd.kernel.linux.recorder import follow
from attestd.kernel.linux.recorder.failures import AbsentError, LayoutError
from tests.fakes.recorder import FakeRecorder
from tests.support.recorder import eventually


@pytest.fixture(name="impatient", autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LOOK_AGAIN_NS", 0)


class Machine:
    """A machine on which the kernel recorder is loaded and unloaded, and process events are given or not."""

    def __init__(self) -> None:
        self.loaded: FakeRecorder | None = None
        self.events: list[FakeRecorder] = []
        self.refused = ""

    def open(self) -> Recorder:
        """What is pinned now."""
        return self.loaded or AbsentRecorder("it is not loaded")

    def follow_events(self) -> Recorder:
        """A new subscription, or the refusal."""
        if self.refused:
            return AbsentRecorder(self.refused)
        self.events.append(FakeRecorder(fallback=True))
        return self.events[-1]

    def load(self) -> FakeRecorder:
        """Like attestd-recorder load."""
        self.loaded = FakeRecorder()
        return self.loaded

    def unload(self) -> None:
        """Like attestd-recorder unload."""
        if self.loaded is not None:
            self.loaded.close()
        self.loaded = None


@pytest.fixture(name="machine")
def _machine() -> Machine:
    return Machine()


@pytest.fixture(name="followed")
def _followed(machine: Machine) -> Iterator[follow.FollowedRecorder]:
    with contextlib.closing(follow.FollowedRecorder(machine.open, machine.follow_events)) as made:
        yield made


@pytest.mark.parametrize(
    "error",
    [AbsentError("it is not loaded"), LayoutError("another layout"), NotPermittedError("may not", hint="ask root")],
)
def test_the_reason_is_exact(monkeypatch: pytest.MonkeyPatch, error: Exception):
    """Absent, another layout, not permitted: the daemon says which."""

    def refuse(_root: str) -> Recorder:
        raise error

    monkeypatch.setattr(follow, "namespace_objection", lambda: "")
    monkeypatch.setattr(follow.BpfRecorder, "open", refuse)
    state, reason = follow.open_recorder("/nowhere").state()
    assert state == "absent"
    assert reason.startswith(str(error.args[0]) if error.args else "")


def test_a_namespace_of_our_own(monkeypatch: pytest.MonkeyPatch):
    """Pids that mean something else here are not compared with recorded ones."""
    monkeypatch.setattr(follow, "namespace_objection", lambda: "this daemon is in a pid namespace of its own")
    assert "pid namespace" in follow.open_recorder("/nowhere").state()[1]


def test_it_is_found_later_and_after_a_replacement():
    """Loaded after the daemon started, then replaced by a newer one: each is used from the next look on."""
    first, second = FakeRecorder(), FakeRecorder()
    offered: list[Recorder] = [AbsentRecorder("not loaded"), first, second]
    followed = follow.FollowedRecorder(lambda: offered.pop(0))
    assert followed.state()[0] == "on"
    key = first.fork(first.boot())
    assert followed.process(key) is not None
    assert followed.exec_counter(key) == 0
    first.close()
    assert followed.state()[0] == "on"
    assert followed.process(key) is None
    followed.close()
    assert followed.state()[0] == "absent"


def test_losses_count_from_the_opening():
    """What was lost before is the baseline; what is lost since stands in the reason."""

    class Losing(FakeRecorder):
        lost = 7

        def losses(self) -> Losses:
            return Losses(exec_events=0, fork_events=self.lost, dirty_epochs=1)

    losing = Losing()
    followed = follow.FollowedRecorder(lambda: losing)
    assert "lost" not in followed.state()[1]
    losing.lost = 9
    assert followed.state()[1].endswith("2 fork and exit events lost")


def test_absent_knows_nothing():
    """Every question to an absent recorder is answered with not known."""
    absent: Recorder = AbsentRecorder("because")
    key = FakeRecorder().boot()
    assert absent.state() == ("absent", "because")
    assert (absent.process(key), absent.exec_counter(key), absent.exec_event(key, 1), absent.connection(1)) == (
        None,
    ) * 4
    assert (absent.lineage(key), absent.losses().fork_events) == ((), 0)
    absent.close()


def test_without_a_recorder_there_are_process_events_at_once(followed: follow.FollowedRecorder):
    """The ladder's second rung is there when the daemon starts, and says why it is not the first."""
    state, reason = followed.state()
    assert state == "fallback"
    assert "it is not loaded" in reason


def test_loading_and_unloading_switch_both_ways(followed: follow.FollowedRecorder, machine: Machine):
    """From process events to the recorder and back: what was left is closed and is not asked any more."""
    first = machine.events[0]
    loaded = machine.load()
    assert followed.state()[0] == "on"
    eventually(lambda: first.state()[0] == "absent")
    key = loaded.fork(loaded.boot())
    assert followed.exec_counter(key) == 0
    machine.unload()
    assert followed.exec_counter(key) is None
    assert eventually(lambda: followed.state()[0] == "fallback")
    assert followed.process(key) is None
    assert len(machine.events) == 2
    machine.load()
    assert followed.state()[0] == "on"


def test_a_counter_is_not_known_once_its_recorder_is_gone(followed: follow.FollowedRecorder, machine: Machine):
    """A session notices by itself that the recorder it was decided with was unloaded, though nobody asks for state."""
    loaded = machine.load()
    followed.state()
    key = loaded.fork(loaded.boot())
    assert followed.exec_counter(key) == 0
    machine.loaded = None
    loaded.state = lambda: ("absent", "unloaded")  # its maps can still be read
    assert followed.exec_counter(key) is None


def test_refused_process_events_are_absent_with_both_reasons(machine: Machine, monkeypatch: pytest.MonkeyPatch):
    """Neither rung: both reasons are told, and the kernel is not asked again with every look."""
    machine.refused = "not in this namespace"
    with contextlib.closing(follow.FollowedRecorder(machine.open, machine.follow_events)) as followed:
        assert followed.state() == ("absent", "it is not loaded; not in this namespace")
        machine.refused = ""
        assert followed.state()[0] == "absent"
        monkeypatch.setattr(follow, "ASK_AGAIN_NS", 0)
        assert eventually(lambda: followed.state()[0] == "fallback")


def test_process_events_that_fail_are_left(followed: follow.FollowedRecorder, machine: Machine):
    """A subscription that ended answers nothing; a new one is made."""
    machine.events[0].close()
    assert eventually(lambda: followed.state()[0] == "fallback")
    assert len(machine.events) == 2


def test_process_events_can_be_done_without(machine: Machine):
    """Where they were not asked for there is nothing."""
    with contextlib.closing(follow.FollowedRecorder(machine.open)) as followed:
        assert followed.state() == ("absent", "it is not loaded")
