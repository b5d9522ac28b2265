"""The choice of the kernel room."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import pytest

from attestd.daemon import platforms
from attestd.daemon.activation import Passed
from attestd.errors import ConfigurationError
from attestd.evidence.protocol import AbsentRecorder
from attestd.kernel.darwin import kernel as darwin
from attestd.kernel.darwin import launchd
from attestd.kernel.darwin.kernel import DarwinKernel
from tests.support.daemons import paths_below
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


async def test_what_starts_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Each platform and mode has its launcher; where macOS has none, every start is refused with the reason."""
    from attestd.launch.client import ProcessLauncher
    from attestd.launch.protocol import Command, LaunchError
    from attestd.launch.session_launcher import NoLauncher, SessionLauncher
    from attestd.launch.system_client import SystemLauncher

    user, system = paths_below(tmp_path), paths_below(tmp_path, system=True)
    assert isinstance(platforms.open_launcher(user), ProcessLauncher)
    assert isinstance(platforms.open_launcher(system), SystemLauncher)
    assert platforms.open_authority() is not None
    monkeypatch.setattr(sys, "platform", "darwin")
    assert isinstance(platforms.open_launcher(user), SessionLauncher)
    launcher = platforms.open_launcher(system)
    assert isinstance(launcher, NoLauncher)
    with pytest.raises(LaunchError, match="the system service starts no servers on macOS"):
        await launcher.start(Command(argv=("x",), env=(), cwd="/", name="x"), print)
    assert platforms.open_authority() is None


def test_limits_of_the_platform(monkeypatch: pytest.MonkeyPatch):
    """Open files go up to the hard limit, on macOS to what its kernel takes; there no loopback port is served."""
    assert (platforms.most_descriptors(50), platforms.loopback_refusal()) == (50, "")
    monkeypatch.setattr(sys, "platform", "darwin")
    found = [platforms.most_descriptors(hard) for hard in (50, 1 << 20, resource.RLIM_INFINITY)]
    assert found == [50, 10240, 10240]
    assert "does not tell whose a TCP connection is" in platforms.loopback_refusal()


def test_passed_sockets_are_asked_of_the_right_manager(monkeypatch: pytest.MonkeyPatch):
    """Systemd's variables mean nothing on macOS, where launchd is asked."""
    with scene() as made:
        monkeypatch.setattr(sys, "platform", "darwin")
        monkeypatch.setattr(launchd, "load", lambda: made.mac)
        asked: list[bytes] = []
        made.mac.launch_activate_socket = lambda name, *_: asked.append(name) or 3  # type: ignore[attr-defined]
        environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "control"}
        assert platforms.passed_sockets(environ, 1) == Passed()
        assert asked == [b"control", b"http"]
