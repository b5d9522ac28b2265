"""The macOS packaging: plists by their meaning, scripts by what they lay out and take away. No Mac is needed or proven."""

from __future__ import annotations

import plistlib
import shutil
import stat
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.repository import ROOT

HERE = ROOT / "packaging" / "launchd"
JOBS = ("daemon", "agent")
PROGRAM = "/Library/Application Support/attestd/runtime/bin/attestd"
SUPPORT = "Library/Application Support/attestd"
LAID_OUT = {
    "Library/LaunchDaemons/dev.attestd.daemon.plist": 0o644,
    "etc/newsyslog.d/attestd.conf": 0o644,
    f"{SUPPORT}/uninstall.sh": 0o755,
    f"{SUPPORT}/policy.d": 0o755,
    f"{SUPPORT}/servers.d": 0o755,
    "var/db/attestd": 0o700,
    "var/log/attestd": 0o750,
    "var/run/attestd": 0o755,
}


def job(name: str) -> dict[str, Any]:
    """One plist."""
    found: dict[str, Any] = plistlib.loads((HERE / f"dev.attestd.{name}.plist").read_bytes())
    return found


def run(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A script, by the POSIX shell of this machine."""
    command = ["sh", str(HERE / script), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def below(root: Path) -> set[str]:
    """Every file."""
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_named_by_its_file(name: str):
    """Launchd and the MDM profile know it by its label."""
    assert job(name)["Label"] == f"dev.attestd.{name}"


@pytest.mark.parametrize("name", JOBS)
def test_a_job_starts_the_installed_program(name: str):
    """By an absolute path that only root writes, in the foreground, and again after a failure only."""
    found = job(name)
    assert found["ProgramArguments"] == [PROGRAM, "run", *(["--user"] if name == "agent" else [])]
    assert found["RunAtLoad"] is True
    assert found["KeepAlive"] == {"SuccessfulExit": False}
    assert found["Umask"] == 0o077
    assert found["SoftResourceLimits"]["Core"] == 0
    assert set(found["EnvironmentVariables"]["PATH"].split(":")) == {"/usr/bin", "/bin", "/usr/sbin", "/sbin"}


def test_the_service_is_not_root():
    """It has an account of its own, and launchd makes its control socket, which every user may connect to."""
    found = job("daemon")
    assert (found["UserName"], found["GroupName"]) == ("_attestd", "_attestd")
    control = found["Sockets"]["control"]
    assert (control["SockPathName"], control["SockPathMode"]) == ("/var/run/attestd/control.sock", 0o666)
    assert len(control["SockPathName"].encode()) < 104


def test_an_agent_has_no_account_and_no_socket_of_the_system():
    """It runs as the user who logged in."""
    assert not {"UserName", "GroupName", "Sockets"} & set(job("agent"))


def test_logs_rotate_but_the_audit_does_not():
    """Newsyslog knows the file that the job writes, its owner and a mode that others cannot read."""
    text = (HERE / "attestd.newsyslog.conf").read_text(encoding="ascii")
    (line,) = [line.split() for line in text.splitlines() if not line.startswith("#")]
    assert line == [job("daemon")["StandardErrorPath"], "_attestd:_attestd", "640", "7", "10240", "*", "J"]


def test_the_profile_approves_exactly_our_jobs():
    """One payload, whose rules are the labels of both jobs; identifiers and UUIDs are well formed and different."""
    profile = plistlib.loads((HERE / "attestd.mobileconfig").read_bytes())
    (payload,) = profile["PayloadContent"]
    assert (profile["PayloadType"], payload["PayloadType"]) == ("Configuration", "com.apple.servicemanagement")
    rules = [(rule["RuleType"], rule["RuleValue"]) for rule in payload["Rules"]]
    assert rules == [("Label", job(name)["Label"]) for name in JOBS]
    names = [each["PayloadUUID"] for each in (profile, payload)]
    assert len({uuid.UUID(name) for name in names}) == 2
    assert payload["PayloadIdentifier"].startswith(profile["PayloadIdentifier"] + ".")


def test_files_are_laid_out(tmp_path: Path):
    """Each file and directory of the service has its place and mode."""
    done = run("install.sh", "--destdir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert {path: stat.S_IMODE((tmp_path / path).stat().st_mode) for path in LAID_OUT} == LAID_OUT
    assert below(tmp_path) == {path for path in LAID_OUT if (tmp_path / path).is_file()}


def test_an_agent_is_laid_out_alone(tmp_path: Path):
    """Without the directories of the system service."""
    assert run("install.sh", "--destdir", str(tmp_path), "--agent").returncode == 0
    assert below(tmp_path) == {"Library/LaunchAgents/dev.attestd.agent.plist", f"{SUPPORT}/uninstall.sh"}


def test_installing_twice_is_installing_once(tmp_path: Path):
    """An upgrade keeps what admins wrote."""
    run("install.sh", "--destdir", str(tmp_path))
    rule = tmp_path / SUPPORT / "policy.d" / "mine.cedar"
    rule.write_text("// mine\n")
    assert run("install.sh", "--destdir", str(tmp_path)).returncode == 0
    assert rule.read_text() == "// mine\n"


def test_removing_keeps_state_and_purging_does_not(tmp_path: Path):
    """Grants, audit and configuration survive a removal; after a purge there is no file left."""
    run("install.sh", "--destdir", str(tmp_path))
    kept = [f"{SUPPORT}/policy.d/mine.cedar", "var/db/attestd/grants.db"]
    for path in kept:
        (tmp_path / path).write_text("x")
    assert run("uninstall.sh", "--destdir", str(tmp_path)).returncode == 0
    assert below(tmp_path) == set(kept)
    assert run("uninstall.sh", "--destdir", str(tmp_path), "--purge").returncode == 0
    assert below(tmp_path) == set()
    assert not (tmp_path / "var/db/attestd").exists()


@pytest.mark.parametrize("script", ["install.sh", "uninstall.sh"])
@pytest.mark.parametrize(("words", "code"), [((), 1), (("--what",), 2), (("--destdir",), 2)])
def test_scripts_refuse(script: str, words: tuple[str, ...], code: int):
    """On another system, and for words that they do not know, before anything is touched."""
    done = run(script, *words)
    assert done.returncode == code
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize("script", ["install.sh", "uninstall.sh"])
def test_scripts_are_clean(script: str):
    """Shellcheck has nothing to say about them as POSIX sh."""
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("needs shellcheck")
    command = [checker, "--shell=sh", "--severity=style", str(HERE / script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == ""
    assert done.returncode == 0
