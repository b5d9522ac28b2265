"""attestd installed by pip for one user: a fresh environment, the wheels of the lock, and nothing of the checkout."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import ROOT

QUIET = ("--quiet", "--disable-pip-version-check", "--no-deps")


@pytest.fixture(name="programs")
def _programs(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the programs of the new environment lie."""
    monkeypatch.syspath_prepend(str(ROOT / "packaging" / "deb"))
    import environment

    subprocess.run([sys.executable, "-m", "venv", str(short_tmp / "venv")], check=True)
    programs = short_tmp / "venv" / "bin"
    listed = short_tmp / "requirements.txt"
    listed.write_text(environment.locked(ROOT / "requirements.lock", environment.runtime()))
    pip = [str(programs / "python"), "-m", "pip", "install", *QUIET]
    subprocess.run([*pip, "--require-hashes", "--requirement", str(listed)], check=True)
    subprocess.run([*pip, str(ROOT)], check=True)
    return programs


def test_a_user_installs_and_runs_it(short_tmp: Path, programs: Path):
    """The daemon tells the service manager that it is ready, attestctl asks it, and SIGTERM ends it in order."""
    home = {"HOME": str(short_tmp), "PATH": f"{programs}:/usr/bin:/bin", "LANG": "C.UTF-8"}
    runtime = short_tmp / "run"
    runtime.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(short_tmp / "notify"))
        manager.settimeout(60)
        environ = {**home, "XDG_RUNTIME_DIR": str(runtime), "NOTIFY_SOCKET": str(short_tmp / "notify")}
        command = [
            str(programs / "attestd"),
            "run",
            "--user",
            "--recorder",
            "/sys/fs/bpf/nothing",
            "--no-process-events",
        ]
        daemon = subprocess.Popen(command, env=environ, cwd="/")
        try:
            assert manager.recv(4096).startswith(b"READY=1")
            ask = [str(programs / "attestctl"), "status", "--json"]
            status = json.loads(subprocess.run(ask, env=environ, check=True, capture_output=True, text=True).stdout)
            assert (status["mode"], status["pid"]) == ("user", daemon.pid)
            os.kill(daemon.pid, signal.SIGTERM)
            assert manager.recv(4096).startswith(b"STOPPING=1")
            assert daemon.wait(60) == 0
        finally:
            daemon.kill()
            daemon.wait()
