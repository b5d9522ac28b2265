"""The launcher's units say what the launcher, its tests and its decision rely on."""

from __future__ import annotations

import shlex

from attestd.daemon.paths import system_paths
from attestd.launch.system import Setting
from tests.support.repository import ROOT
from tests.support.system_launcher import CAPABILITIES

UNITS = ROOT / "packaging" / "systemd"
WHAT_SERVERS_CANNOT_LIVE_WITH = {
    "MemoryDenyWriteExecute",
    "ProtectHome",
    "PrivateTmp",
    "PrivateNetwork",
    "PrivateUsers",
    "ProtectProc",
    "ProtectControlGroups",
    "DynamicUser",
}


def unit(name: str) -> dict[str, list[str]]:
    """Every setting with its values."""
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text(encoding="utf-8").splitlines():
        key, given, value = line.partition("=")
        if given and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_it_holds_four_capabilities():
    """Those that the tests give it, ambient and at most, under an account that is neither root nor the daemon's."""
    service = unit("attestd-launcher.service")
    wanted = {f"CAP_{name.upper()}" for name in CAPABILITIES}
    for key in ("AmbientCapabilities", "CapabilityBoundingSet"):
        assert [set(value.split()) for value in service[key]] == [wanted]
    assert service["User"] == service["Group"] == ["attestd-launcher"]
    assert service["NoNewPrivileges"] == ["yes"]


def test_its_socket_is_where_the_daemon_looks():
    """Of the kind that it accepts, for the daemon alone, with credentials from the first message on."""
    socket = unit("attestd-launcher.socket")
    assert socket["ListenSequentialPacket"] == [str(system_paths().launcher)]
    assert (socket["SocketUser"], socket["SocketMode"], socket["PassCredentials"]) == (["attestd"], ["0600"], ["yes"])


def test_servers_can_live_with_what_it_sets():
    """What is inherited by every server stops none that is usual, and leaves what ``network`` and ``read_only`` need."""
    service = unit("attestd-launcher.service")
    assert WHAT_SERVERS_CANNOT_LIVE_WITH.isdisjoint(service)
    assert service["ProtectSystem"] == ["full"]
    assert service["RestrictNamespaces"] == ["user net"]
    calls = service["SystemCallFilter"][0].split()
    assert {"@system-service", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"} == set(calls)
    assert {"pids", "memory"} == set(service["Delegate"][0].split())


def test_its_program_understands_its_words():
    """An isolated interpreter without site-packages, our file, and only options that it has; its state is systemd's."""
    service = unit("attestd-launcher.service")
    interpreter, *words = shlex.split(service["ExecStart"][0])
    assert interpreter.startswith("/usr/lib/attestd/")
    assert words[:2] == ["-I", "-S"]
    assert words[2].endswith("/attestd/launch/system.py")
    setting = Setting([*words[3:], "--daemon", "0"])
    assert setting.registry == str(system_paths().servers)
    assert service["StateDirectory"] == ["attestd-launcher"]
