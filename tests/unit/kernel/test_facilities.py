"""What recorder, process events, TCP and signatures need: every row is probed, says what it costs, leaves nothing."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path

import pytest

from attestd.errors import AttestdError
from attestd.kernel.linux import facilities
from attestd.kernel.linux.facilities import TABLE, Facility
from attestd.kernel.linux.recorder.probes import NotProbedError

LOADER = ["cap_bpf", "cap_perfmon", "cap_net_admin"]


def test_every_row_says_what_its_absence_costs_and_how_to_get_it():
    """Names are of one kind, groups are known, nothing is left empty."""
    assert len({row.name for row in TABLE}) == len(TABLE)
    assert all(row.cost and row.remedy and row.name.isidentifier() for row in TABLE)
    assert {row.group for row in TABLE} == {"recorder", "tcp", "signature"}


def test_every_row_is_probed_and_nothing_is_left():
    """No descriptor stays open; what is not there says why and what to do."""
    facilities.probe()
    before = len(os.listdir("/proc/self/fd"))
    found = facilities.probe()
    assert len(os.listdir("/proc/self/fd")) == before
    assert [feature.name for feature in found] == LOADER + [row.name for row in TABLE]
    assert all(feature.detail and feature.cost for feature in found)
    assert all(bool(feature.remedy) is not feature.present for feature in found)


@pytest.mark.root
def test_what_was_loaded_here_is_found_to_be_possible():
    """Where the recorder's own tests run, its needs are there, but for a mount, which loading it makes."""
    found = {feature.name: feature for feature in facilities.probe()}
    for name in (*LOADER, "btf", "tp_btf", "connect_inet", "inet_diag"):
        assert found[name].present, found[name]


@pytest.mark.ordinary
def test_what_may_not_be_tried_is_not_known():
    """An ordinary user cannot load programs: that says nothing about the kernel."""
    found = {feature.name: feature for feature in facilities.probe()}
    assert (found["tp_btf"].known, found["tp_btf"].present) == (False, False)
    assert "CAP_BPF" in found["tp_btf"].detail


@pytest.mark.parametrize(
    ("error", "known", "detail"),
    [
        (NotProbedError("no right"), False, "not probed: no right"),
        (OSError(errno.ENODEV, "No such device"), True, "no such device"),
        (AttestdError("cannot subscribe"), True, "cannot subscribe"),
    ],
)
def test_a_refusal_is_told_from_not_asking(error: Exception, known: bool, detail: str):
    """Missing is not the same as not known."""

    def use() -> str:
        raise error

    row = Facility(name="x", group="tcp", cost="c", remedy="r", use=use)
    feature = facilities._probed(row)
    assert (feature.present, feature.known, feature.detail) == (False, known, detail)
    assert (feature.cost, feature.remedy) == ("c", "r")
    assert facilities._probed(dataclasses.replace(row, use=lambda: "works")).remedy == ""


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(None, True), ("none [integrity] confidentiality", True), ("none integrity [confidentiality]", False)],
)
def test_lockdown(monkeypatch: pytest.MonkeyPatch, mode: str | None, expected: bool):
    """Only confidentiality keeps programs from reading."""
    monkeypatch.setattr(facilities, "setting", lambda _path: mode)
    (row,) = (each for each in TABLE if each.name == "lockdown")
    assert facilities._probed(row).present is expected


@pytest.mark.parametrize(("mode", "expected"), [("2", True), ("1", False), ("0", False), (None, False)])
def test_io_uring(monkeypatch: pytest.MonkeyPatch, mode: str | None, expected: bool):
    """Only the value that forbids it to everyone counts."""
    monkeypatch.setattr(facilities, "setting", lambda _path: mode)
    (row,) = (each for each in TABLE if each.name == "no_hidden_holders")
    assert facilities._probed(row).present is expected


def test_signatures_need_securityfs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Without it nothing is known; with it, what is not there is not part of this kernel."""
    monkeypatch.setattr(facilities, "_SECURITY", str(tmp_path))
    rows = [each for each in TABLE if each.name in {"ima_appraisal", "ipe"}]
    assert [facilities._probed(row).known for row in rows] == [False, False]
    (tmp_path / "lsm").write_text("x")
    assert [(facilities._probed(row).known, facilities._probed(row).present) for row in rows] == [(True, False)] * 2
    (tmp_path / "ima").mkdir()
    (tmp_path / "ipe").mkdir()
    (tmp_path / "ipe" / "enforce").write_text("1\n")
    assert [facilities._probed(row).present for row in rows] == [True, True]
