"""The checks of doctor: what is weak or broken is found, with the remedy."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from attestd.control.replies import Check
from attestd.daemon.doctor import checks
from attestd.errors import AuditUnavailableError
from attestd.evidence.protocol import Feature
from tests.support import machine
from tests.support.daemons import Inside


@pytest.fixture(name="inside")
async def _inside(short_tmp: Path) -> AsyncIterator[Inside]:
    inside = Inside(short_tmp)
    yield inside
    await inside.close()


def found(inside: Inside, name: str) -> Check:
    """The check of this name."""
    (check,) = [each for each in checks(inside.daemon, inside.kernel.examine()) if each.name == name]
    return check


async def test_a_healthy_daemon_fails_nothing(inside: Inside):
    """Only of what this kernel lacks is warned; what is not ok has a detail, and a remedy of this machine."""
    bad = {check.name: check for check in checks(inside.daemon, inside.kernel.examine()) if check.status != "ok"}
    assert {check.status for check in bad.values()} == {"warn"}
    missing = {f"{each.group} {each.name}" for each in inside.kernel.examine() if not each.present}
    assert set(bad) == {"recorder", *missing}
    assert all(check.detail for check in checks(inside.daemon, inside.kernel.examine()))
    assert ("attestd-recorder" in bad["recorder"].remedy) is (machine.chosen == "linux")


async def test_features_of_the_kernel(inside: Inside, monkeypatch: pytest.MonkeyPatch):
    """A missing feature is a warning with its cost and remedy, an essential one a failure."""
    features = (
        Feature(name="pidfd", present=False, detail="no", remedy="use Linux 6.5", cost="everything"),
        Feature(name="pagemap", present=False, detail="no", remedy="x"),
        Feature(name="diag", present=True, detail="yes", remedy="y", cost="z", group="tcp"),
    )
    monkeypatch.setattr(inside.kernel, "examine", lambda: features)
    pidfd, pagemap, diag = (found(inside, name) for name in ("kernel pidfd", "kernel pagemap", "tcp diag"))
    assert (pidfd.status, pidfd.remedy, pidfd.cost) == ("fail", "use Linux 6.5", "everything")
    assert pagemap.status == "warn"
    assert (diag.status, diag.remedy, diag.cost) == ("ok", "", "")


@pytest.mark.linux("the recorder")
@pytest.mark.parametrize(("state", "status"), [("absent", "warn"), ("fallback", "warn"), ("on", "ok")])
async def test_what_only_a_loader_needs_is_no_matter_once_loaded(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, state: str, status: str
):
    """The recorder is named with its state, reason and what is lost; its needs are weak only while it is not on."""
    monkeypatch.setattr(inside.daemon.recorder, "state", lambda: (state, "because"))
    own, needed = found(inside, "recorder"), found(inside, "recorder tp_btf")
    assert (own.status, own.detail, bool(own.cost), bool(own.remedy)) == (
        status,
        f"{state}: because",
        state != "on",
        state != "on",
    )
    assert (needed.status, needed.cost) == (status, "no record" if status == "warn" else "")


async def test_a_socket_that_was_removed_or_replaced(inside: Inside):
    """Both are failures; who replaced it is to be found out."""
    path = inside.paths.sockets / "time.sock"
    path.unlink()
    assert found(inside, "socket time").status == "fail"
    path.write_text("")
    assert "not our socket any more" in found(inside, "socket time").detail


async def test_a_loopback_port_is_weaker(inside: Inside):
    """Said only where there is one."""
    assert not [check for check in checks(inside.daemon, inside.kernel.examine()) if check.name == "loopback port"]
    listen = msgspec.structs.replace(inside.daemon.settings.listen, port=8123)
    inside.daemon.settings = msgspec.structs.replace(inside.daemon.settings, listen=listen)
    (found,) = [check for check in checks(inside.daemon, inside.kernel.examine()) if check.name == "loopback port"]
    assert found.status == "warn"
    assert "8123" in found.detail


async def test_a_directory_that_others_may_write(inside: Inside):
    """It fails with its mode and what it must be."""
    inside.paths.state.chmod(0o777)
    check = found(inside, f"directory {inside.paths.state}")
    assert (check.status, "0777" in check.detail) == ("fail", True)
    assert check.remedy
    inside.paths.state.chmod(0o700)


async def test_little_room(inside: Inside, monkeypatch: pytest.MonkeyPatch):
    """Below 256 MiB it warns that without a record nothing is forwarded."""
    real = os.statvfs(inside.paths.state)
    fields = list(real)
    fields[0], fields[1], fields[4] = 4096, 4096, 100
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(fields))
    assert found(inside, "disk").status == "warn"


async def test_a_log_that_cannot_be_written(inside: Inside, monkeypatch: pytest.MonkeyPatch):
    """Its last error is a failure with its hint."""
    error = AuditUnavailableError("cannot append", hint="make room")
    with monkeypatch.context() as patch:
        patch.setattr(inside.daemon.audit, "last_error", error)
        check = found(inside, "audit")
    assert (check.status, check.remedy) == ("fail", "make room")


async def test_a_server_in_trouble(inside: Inside):
    """The last failure is told."""
    assert found(inside, "server time").detail == "not started yet"
    inside.daemon.fronts["time"].trouble = "cannot start"
    assert found(inside, "server time").status == "fail"


async def test_secrets_of_servers(inside: Inside, short_tmp: Path):
    """Each file is looked at: usable or not, its name is shown and its content never."""
    good, bad = short_tmp / "good", short_tmp / "bad"
    good.write_text("t0ken\n")
    good.chmod(0o600)
    bad.write_text("t0ken\n")
    bad.chmod(0o644)
    front = inside.daemon.fronts["time"]
    front.settings = msgspec.structs.replace(front.settings, token_file=str(good), header_files={"X-Key": str(bad)})
    first, second = [each for each in checks(inside.daemon, inside.kernel.examine()) if each.name == "secret of time"]
    assert (first.status, first.detail) == ("ok", str(good))
    assert (second.status, second.remedy) == ("fail", f"run: chmod 0600 {bad}")
    assert "t0ken" not in f"{first}{second}"


async def test_a_clock_that_is_wrong(inside: Inside, monkeypatch: pytest.MonkeyPatch):
    """A time before attestd existed cannot be."""
    monkeypatch.setattr("attestd.daemon.doctor.time.time", lambda: 1000.0)
    assert found(inside, "clock").status == "fail"


async def test_approvers_and_errors_are_mentioned(inside: Inside):
    """Configured approvers are a warning, and the last errors are shown."""
    inside.paths.config_file.write_text('[approval]\napprovers = ["aa"]\n')
    inside.daemon.reload()
    assert found(inside, "approvers").status == "warn"
    for number in range(5):
        inside.daemon.trouble(f"trouble {number}")
    shown = [check.detail for check in checks(inside.daemon, inside.kernel.examine()) if check.name == "last errors"]
    assert [each.split(" ", 1)[1] for each in shown] == ["trouble 2", "trouble 3", "trouble 4"]
