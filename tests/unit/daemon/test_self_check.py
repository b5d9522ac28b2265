"""The self-check of the decision path, on a real daemon, sound and broken."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attestd.audit.log import AuditLogFile
from attestd.daemon.notify import Notifier
from attestd.daemon.self_check import SelfCheck, SelfCheckError
from attestd.daemon.service import Serving
from attestd.decision.model import Permit
from attestd.errors import AuditUnavailableError, Cause, EvidenceError
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
