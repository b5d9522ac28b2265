"""The self-check of the decision path, on a real daemon, sound and broken."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attestd.audit.log import AuditLogFile
from attestd.daemon.notify import Notifier
from attestd.daemon.self_check import SelfCheck, SelfCheckError, WrongDecisionError
from attestd.daemon.service import Serving
from attestd.decision import engine
from attestd.decision.model import Deny, Permit, Verdict
from attestd.errors import AuditUnavailableError, Cause, EvidenceError
from attestd.grants import match
from tests.support.daemons import paths_below
from tests.support.waiting import until


@pytest.fixture(name="serving")
async def _serving(short_tmp: Path) -> AsyncIterator[Serving]:
    paths_below(short_tmp).servers.mkdir(parents=True)
    serving = Serving(paths_below(short_tmp))
    yield serving
    await serving.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_sound_daemon(serving: Serving):
    """It passes again and again, and leaves no record, pending entry, session or descriptor behind."""
    check, daemon = SelfCheck(serving.daemon), serving.daemon
    check.run()
    before = (daemon.audit.head().size, descriptors())
    states = {check.run() for _ in range(100)}
    assert states == {"0 servers, 0 sessions"}
    assert (daemon.audit.head().size, descriptors()) == before
    assert daemon.sessions == {}


async def test_an_engine_that_permits_everything_is_seen(serving: Serving, monkeypatch: pytest.MonkeyPatch):
    """A caller of level 0 must be refused, whatever the policy says."""
    monkeypatch.setattr(type(serving.daemon.engine), "decide", lambda *_: Permit(policies=("broken",)))
    with pytest.raises(SelfCheckError, match="a caller of level 0 came to Forward"):
        SelfCheck(serving.daemon).run()


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (Permit(policies=("broken",)), r"a caller without a grant came to Forward, not to Refuse \(no_grant\)"),
        (Deny(cause=Cause.NO_GRANT), r"a call that a grant names came to Refuse \(no_grant\), not to Forward"),
        (Deny(cause=Cause.EXPIRED), r"a caller without a grant came to Refuse \(expired\), not to Refuse \(no_grant\)"),
    ],
)
async def test_wrong_answers_are_seen(serving: Serving, monkeypatch: pytest.MonkeyPatch, answer: Verdict, seen: str):
    """Whoever is known to hold a grant or none must be answered accordingly, with the cause."""
    monkeypatch.setattr(engine, "judged", lambda *_: answer)
    with pytest.raises(WrongDecisionError, match=seen):
        SelfCheck(serving.daemon).run()


async def test_a_grant_that_counts_where_it_must_not(serving: Serving, monkeypatch: pytest.MonkeyPatch):
    """Without the clause of its level the cause is another one, even though Cedar still refuses."""
    left = tuple(clause for clause in match.CLAUSES if clause.__name__ != "_level")
    monkeypatch.setattr(match, "CLAUSES", left)
    with pytest.raises(
        WrongDecisionError, match=r"a caller below the level of its grant came to Refuse \(out_of_scope\)"
    ):
        SelfCheck(serving.daemon).run()


@pytest.mark.parametrize("rule", ["permit", "forbid"])
async def test_a_policy_of_this_host_is_not_judged(short_tmp: Path, rule: str):
    """One that permits everybody, or nobody, is the administrator's; the check passes."""
    paths = paths_below(short_tmp)
    paths.servers.mkdir(parents=True)
    paths.policies.mkdir()
    (paths.policies / "all.cedar").write_text(f'@id("all")\n{rule} (principal, action, resource);\n')
    serving = Serving(paths)
    try:
        SelfCheck(serving.daemon).run()
    finally:
        await serving.close()


async def test_an_engine_that_fails_is_seen(serving: Serving, monkeypatch: pytest.MonkeyPatch):
    """The calls are refused, as they must be; but nothing can be served any more."""

    def broken(*_: object) -> None:
        raise RuntimeError("no engine")

    monkeypatch.setattr(type(serving.daemon.engine), "decide", broken)
    with pytest.raises(SelfCheckError, match="cannot decide"):
        SelfCheck(serving.daemon).run()


async def test_a_log_that_has_ended_is_seen(serving: Serving):
    """No append can succeed until the daemon is restarted."""
    serving.daemon.audit.close()
    with pytest.raises(SelfCheckError, match="cannot decide"):
        SelfCheck(serving.daemon).run()


async def test_a_full_disk_is_not_ours(serving: Serving, monkeypatch: pytest.MonkeyPatch):
    """A restart cures no disk: the check passes and says that every call is refused."""
    full = AuditUnavailableError("cannot write: no space left")
    monkeypatch.setattr(AuditLogFile, "last_error", property(lambda _: full, lambda *_: None), raising=False)
    assert SelfCheck(serving.daemon).run().endswith("every call is refused: cannot write: no space left")


async def test_a_kernel_room_that_answers_nothing(serving: Serving, monkeypatch: pytest.MonkeyPatch):
    """A daemon that cannot attest even itself serves nobody."""

    def nothing(*_: object) -> None:
        raise EvidenceError(Cause.UNATTESTABLE, "cannot read the peer")

    monkeypatch.setattr(type(serving.daemon.kernel), "peer", nothing)
    with pytest.raises(SelfCheckError, match="cannot attest this process itself"):
        SelfCheck(serving.daemon).run()


async def test_who_decides_wrongly_asks_to_be_ended(short_tmp: Path, monkeypatch: pytest.MonkeyPatch):
    """The manager is told at once, with the reason, and hears no sign of life; it does not wait for a missing one."""
    paths = paths_below(short_tmp)
    paths.servers.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(short_tmp / "notify"))
        manager.settimeout(5)
        serving = Serving(paths, notifier=Notifier(str(short_tmp / "notify"), watchdog_us=3_600_000_000))
        try:
            monkeypatch.setattr(engine, "judged", lambda *_: Permit(policies=()))
            serving.ready()
            assert manager.recv(4096).startswith(b"READY=1")
            said = manager.recv(4096).decode()
            assert said.startswith("WATCHDOG=trigger\nSTATUS=self-check failed: cannot trust decisions")
        finally:
            await serving.close()


async def test_pings_stop_when_the_check_fails(short_tmp: Path):
    """The manager hears signs of life while the path decides, none afterwards, and status says why."""
    paths = paths_below(short_tmp)
    paths.servers.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(short_tmp / "notify"))
        manager.setblocking(False)
        serving = Serving(paths, notifier=Notifier(str(short_tmp / "notify"), watchdog_us=30_000))
        heard: list[bytes] = []

        def hear() -> int:
            try:
                while True:
                    heard.append(manager.recv(4096))
            except BlockingIOError:
                return sum(b"WATCHDOG=1" in one for one in heard)

        try:
            serving.ready()
            await until(lambda: hear() >= 3)
            serving.daemon.audit.close()
            await until(lambda: any("self-check failed" in text for _, text in serving.daemon.troubles.seen(None)))
            count = hear()
            await until(lambda: len([1 for _, text in serving.daemon.troubles.seen(None) if "self-check" in text]) >= 3)
            assert hear() == count
        finally:
            await serving.close()
