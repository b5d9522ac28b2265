from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from attestd.kernel.linux import features

EXPECTED = [
    "so_peerpidfd",
    "pidfd_get_info",
    "pidfs_inode",
    "procmap_query",
    "executable_frozen",
    "exe_not_forgeable",
    "ptrace_restricted",
    "cap_sys_ptrace",
    "cap_dac_read_search",
]


def test_every_feature_is_probed_once():
    """The names are stable, and what is absent says how to get it."""
    found = features.probe()
    assert [feature.name for feature in found] == EXPECTED
    assert all(feature.detail for feature in found)
    assert all(feature.cost for feature in found if not feature.present)
    assert all(feature.remedy for feature in found if not feature.present)


def test_a_missing_feature_is_told_from_the_kernels_answer(monkeypatch: pytest.MonkeyPatch):
    """An error of the probe means absent, with its reason."""

    def absent(_pidfd: int) -> object:
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    monkeypatch.setattr(features, "pidfd_info", absent)
    info = {feature.name: feature for feature in features.probe()}["pidfd_get_info"]
    assert not info.present
    assert "parents are read from /proc" in info.cost


def test_capabilities_are_those_of_this_process():
    """As root they are held, as an ordinary user they are not and the remedy names them."""
    found = {feature.name: feature for feature in features.probe()}
    if os.geteuid() == 0:
        assert found["cap_sys_ptrace"].present
    else:
        assert not found["cap_sys_ptrace"].present
        assert "CAP_SYS_PTRACE" in found["cap_sys_ptrace"].remedy


@pytest.mark.parametrize(
    ("settings", "blocked"),
    [
        ({}, False),
        ({"/proc/sys/user/max_user_namespaces": "0"}, True),
        ({"/proc/sys/user/max_user_namespaces": "9"}, False),
        ({"/proc/sys/kernel/unprivileged_userns_clone": "0"}, True),
        ({"/proc/sys/kernel/unprivileged_userns_clone": "1"}, False),
    ],
)
def test_user_namespaces_are_blocked_by_settings(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], blocked: bool
):
    """Only a setting that surely blocks them counts as blocking."""
    monkeypatch.setattr(features, "setting", settings.get)
    assert bool(features.unprivileged_userns_blocked()) is blocked


def test_the_frozen_probe_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The copy that was run is ended and removed."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    features.probe()
    assert list(tmp_path.iterdir()) == []
