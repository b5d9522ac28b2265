"""The recorder that a daemon follows: absent with a reason, found later, replaced, closed."""

from __future__ import annotations

import pytest

from attestd.errors import NotPermittedError
from attestd.evidence.protocol import AbsentRecorder
from attestd.evidence.recorder import Losses, Recorder
from attestd.kernel.linux.recorder import follow
from attestd.kernel.linux.recorder.failures import AbsentError, LayoutError
from tests.fakes.recorder import FakeRecorder


@pytest.fixture(name="impatient", autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LOOK_AGAIN_NS", 0)


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
