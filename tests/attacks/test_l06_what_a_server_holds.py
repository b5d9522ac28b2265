"""L6: a started server looks for what its launcher, or the daemon, had."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.launching import parent
from tests.support.system_launcher import ALICE, LAUNCHER_UID, TELL, Daemon, House, client

pytestmark = [pytest.mark.attack("L6"), pytest.mark.root, pytest.mark.linux("the launcher of system mode")]

TRIES = """
import json, os, signal, subprocess, sys
found = {}
def tried(name, work):
    try:
        work(); found[name] = "done"
    except OSError as error:
        found[name] = error.strerror
supervisor = os.getppid()
tried("kill the supervisor", lambda: os.kill(supervisor, signal.SIGKILL))
tried("read its memory", lambda: open(f"/proc/{supervisor}/mem", "rb").read(1))
tried("read its descriptors", lambda: os.listdir(f"/proc/{supervisor}/fd"))
tried("read its environment", lambda: open(f"/proc/{supervisor}/environ").read())
tried("become root", lambda: os.setresuid(0, 0, 0))
tried("become another", lambda: os.setresuid(60103, 60103, 60103))
tried("take another's groups", lambda: os.setgroups([0]))
tried("connect to the launcher", lambda: __import__("socket").socket(1, 5).connect(sys.argv[1]))
tried("read the registry's secret", lambda: open(sys.argv[2]).read())
found["setuid program"] = subprocess.run([sys.argv[3]], capture_output=True, text=True).stdout.strip()
print(json.dumps(found), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("run_as", ["caller", "isolated", "user:root"])
def test_it_holds_nothing(house: House, daemon: Daemon, run_as: str):
    """No capability in any of the five sets, three descriptors, no_new_privs, a session of its own, nothing of our environment."""
    name = run_as.replace(":", "-")
    house.register(name, TELL, run_as=run_as, cwd="/usr")
    with client(ALICE, groups=[ALICE, 60200]) as alice:
        order = daemon.order(name, alice)
        assert order.word()[0] == "started"
        found = order.told()
    assert found["capabilities"] == ["0" * 16]
    assert (found["new"], found["session"], found["cwd"]) == ("1", True, "/usr")
    assert found["fds"] == [0, 1, 2, 3]  # 3 lists the directory
    assert set(found["env"]) == {"PATH", "HOME", "USER", "LOGNAME", "LANG"}
    assert set(found["uids"]) == set(found["gids"]) or run_as == "caller"
    assert LAUNCHER_UID not in (*found["uids"], *found["gids"], *found["groups"])
    assert 60200 not in found["groups"] or run_as == "caller"


@pytest.mark.parametrize("run_as", ["caller", "isolated"])
def test_it_reaches_nothing(house: House, daemon: Daemon, run_as: str):
    """It can neither harm nor read its supervisor, nor become anybody, by a setuid program either, nor order at the launcher."""
    secret = house.root / "secret"
    secret.write_text("of root")
    secret.chmod(0o600)
    setuid = house.root / "id"
    setuid.write_bytes(Path("/usr/bin/id").read_bytes())
    setuid.chmod(0o4755)
    house.register("tries", TRIES, str(house.path), str(secret), str(setuid), run_as=run_as)
    with client(ALICE) as alice:
        order = daemon.order("tries", alice)
        assert order.word()[0] == "started"
        found = order.told()
    assert "euid=0" not in found.pop("setuid program")
    assert set(found.values()) <= {"Operation not permitted", "Permission denied"}
    assert parent(order.pid) > 1


def test_the_setuid_program_would_work(house: House):
    """Without no_new_privs the same program gives an ordinary user root's uid: the control is what stops it."""
    setuid = house.root / "id2"
    setuid.write_bytes(Path("/usr/bin/id").read_bytes())
    setuid.chmod(0o4755)
    words = ["setpriv", f"--reuid={ALICE}", f"--regid={ALICE}", "--clear-groups", str(setuid)]
    assert "euid=0" in subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_root_without_capabilities_cannot_end_its_supervisor(house: House, daemon: Daemon):
    """A server of user:root is root by name only: the launcher's processes are not root's, so it cannot signal them."""
    source = (
        "import json, os, signal, sys\n"
        "try: os.kill(os.getppid(), signal.SIGKILL); found = 'done'\n"
        "except OSError as error: found = error.strerror\n"
        "print(json.dumps({'kill': found}), flush=True)\nsys.stdin.read()"
    )
    house.register("roots", source, run_as="user:root")
    with client(ALICE) as alice:
        order = daemon.order("roots", alice)
        assert order.word()[0] == "started"
        assert order.told() == {"kill": "Operation not permitted"}
        os.kill(order.pid, signal.SIGKILL)
        assert order.word() == ["exit", "was killed by SIGKILL"]
