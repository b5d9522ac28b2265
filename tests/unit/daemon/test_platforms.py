"""The choice of the kernel room."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from attestd.daemon import platforms
from attestd.errors import ConfigurationError
from attestd.evidence.protocol import AbsentRecorder
from attestd.kernel.darwin import kernel as darwin
from attestd.kernel.darwin.kernel import DarwinKernel
from tests.support.macs import scene


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_linux_has_its_room(tmp_path: Path):
    """This machine's kernel, with a recorder that says what it is."""
    from attestd.kernel.linux.kernel import LinuxKernel

    made = platforms.open_platform(tmp_path, "/nonexistent")
    assert isinstance(made.kernel, LinuxKernel)
    assert made.recorder.state()[0] != "on"
    assert made.acceptors is not None
    made.close()
    assert platforms.own_image() == os.path.realpath("/proc/self/exe")


def test_macos_has_its_room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """There the room is macOS's, and no recorder."""
    with scene() as made:
        monkeypatch.setattr(sys, "platform", "darwin")
        monkeypatch.setattr(darwin, "load", lambda: made.mac)
        found = platforms.open_platform(tmp_path)
        assert isinstance(found.kernel, DarwinKernel)
        assert isinstance(found.recorder, AbsentRecorder)
        assert found.acceptors is None
        assert platforms.own_image() == made.mac.processes[os.getpid()].code.path
        assert len(platforms.host_id() or "") == 32


def test_another_system_is_refused_loudly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Nothing is attested by guessing."""
    monkeypatch.setattr(sys, "platform", "freebsd14")
    with pytest.raises(ConfigurationError, match="cannot attest on freebsd14"):
        platforms.open_platform(tmp_path)
