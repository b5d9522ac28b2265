"""The Linux packaging: units, maintainer scripts, man pages and the carried environment, by their meaning.

That they work is shown by ``make system-test``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from tests.support.repository import ROOT

SYSTEMD = ROOT / "packaging" / "systemd"
DEB = ROOT / "packaging" / "deb"
EXPOSURE = 2.0
CAPABILITIES = {
    "attestd.service": {"CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"},
    "attestd-recorder.service": {"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"},
    "attestd-launcher.service": {"CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_SETPCAP"},
}
HIDING = {"PrivateUsers", "ProcSubset", "RestrictSUIDSGID"}
"""Directives with which callers cannot be attested."""


class Unit(RawConfigParser):
    """One unit file; of repeated keys the last."""

    def __init__(self, name: str) -> None:
        super().__init__(strict=False, interpolation=None)
        self.read_string((SYSTEMD / name).read_text(encoding="utf-8"))

    def optionxform(self, optionstr: str) -> str:
        return optionstr


@pytest.fixture(name="deb")
def _deb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules beside the script that builds the package."""
    monkeypatch.syspath_prepend(str(DEB))


@pytest.mark.parametrize("name", CAPABILITIES)
def test_each_service_has_exactly_its_capabilities(name: str):
    """The bounding set, and what an unprivileged user is given, are the same and what the plan says."""
    service = Unit(name)["Service"]
    assert set(service["CapabilityBoundingSet"].split()) == CAPABILITIES[name]
    if "User" in service:
        assert set(service["AmbientCapabilities"].split()) == CAPABILITIES[name]
    assert service["NoNewPrivileges"] == "yes"


def test_the_daemon_can_see_whom_it_attests():
    """Nothing in its unit hides processes of others, or keeps it from opening their files."""
    service = Unit("attestd.service")["Service"]
    assert not HIDING & set(service)
    assert service["ProtectProc"] == "invisible"  # the kernel excepts who may trace: proc(5), hidepid
    assert "CAP_SYS_PTRACE" in service["AmbientCapabilities"]


def test_the_daemon_can_read_what_the_recorder_pins():
    """The recorder gives its pins to its own group, which takes no capability, and the daemon has that group and the call."""
    recorder, daemon = Unit("attestd-recorder.service")["Service"], Unit("attestd.service")["Service"]
    assert recorder["ExecStart"].endswith(f"load --group {recorder['Group']}")
    assert recorder["Group"] == daemon["Group"]
    assert daemon["SystemCallFilter"] == "bpf"  # the last of several, which is the one that counts for this call


def test_the_exposure_of_the_daemon_is_low():
    """By systemd's own count on the file; what a manager adds at run time only lowers it."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze")
    command = [analyze, "security", "--offline=true", "--no-pager", str(SYSTEMD / "attestd.service")]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said.stdout)
    assert found is not None, said.stderr
    assert float(found[1]) <= EXPOSURE


def test_sockets_name_the_writers():
    """Credentials are asked for before anybody can connect, where the kernel has them, and each socket is known by its name."""
    for name, called, named in (("attestd.socket", "control", "yes"), ("attestd-http.socket", "http", None)):
        socket = Unit(name)["Socket"]
        assert (socket.get("PassCredentials"), socket["FileDescriptorName"]) == (named, called)


def test_a_configuration_that_is_refused_is_not_tried_again():
    """Exit status 3 is final, for the service of the machine and for that of a user."""
    for name in ("attestd.service", "user/attestd.service"):
        assert Unit(name)["Service"]["RestartPreventExitStatus"] == "3"


@pytest.mark.parametrize("name", ["postinst", "prerm", "postrm"])
def test_maintainer_scripts_are_sound(name: str):
    """The shell parses them, and shellcheck has nothing to say."""
    subprocess.run(["sh", "-n", str(DEB / name)], check=True)
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("needs shellcheck")
    done = subprocess.run([checker, str(DEB / name)], capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.mark.usefixtures("deb")
def test_the_environment_is_the_locks():
    """Every distribution that attestd needs is in the lock with digests, and none of the developers' tools is carried."""
    import environment

    names = environment.runtime()
    part = environment.locked(ROOT / "requirements.lock", names)
    assert {"cedarpy", "click", "cryptography", "uvloop", "rich"} <= set(names)
    assert not {"pytest", "mypy", "mcp", "attestd"} & set(names)
    entries = [line for line in part.splitlines() if "==" in line]
    assert len(entries) == len(names)
    assert part.count("--hash=sha256:") >= len(names)


@pytest.mark.usefixtures("deb")
def test_a_lock_that_lacks_something_builds_nothing(tmp_path: Path):
    """The package would not start."""
    import environment

    (tmp_path / "lock").write_text("click==8.1 \\\n    --hash=sha256:00\n")
    with pytest.raises(SystemExit, match="h11 missing in lock"):
        environment.locked(tmp_path / "lock", ("click", "h11"))


@pytest.mark.usefixtures("deb")
def test_man_pages_are_the_help():
    """Each program has one, with every command of it, and man reads it without a complaint."""
    import manual

    pages = manual.pages("Sun, 29 Nov 2026 10:00:00 +0000")
    assert set(pages) == {"attestd.8", "attestctl.1", "attestd-recorder.8", "attestd-connect.1"}
    assert "ATTESTCTL GRANTS REVOKE" in pages["attestctl.1"]
    assert '"29 Nov 2026"' in pages["attestd.8"]
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("needs groff")
    for text in pages.values():
        command = [groff, "-man", "-Tutf8", "-ww", "-z"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.stderr == ""


@pytest.mark.usefixtures("deb")
def test_completions_are_for_every_shell():
    """Of every program that people type."""
    import manual

    made = manual.completions()
    assert len(made) == 9
    assert "_ATTESTCTL_COMPLETE=bash_complete" in made["usr/share/bash-completion/completions/attestctl"]


def test_the_launcher_needs_nothing_but_itself():
    """Its package lies apart: in an isolated interpreter, everything that it imports is there."""
    code = "import sys; sys.path.append(sys.argv[1]); import attestd.launch.system; print(sorted(m for m in sys.modules if m.startswith('attestd.') and not m.startswith('attestd.launch')))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(ROOT)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
