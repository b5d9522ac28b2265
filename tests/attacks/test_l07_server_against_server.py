"""L7: one caller's server turns against another's."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from tests.support.system_launcher import ALICE, BOB, PYTHON, TELL, Daemon, House, client

pytestmark = [pytest.mark.attack("L7"), pytest.mark.root, pytest.mark.linux("the launcher of system mode")]

ATTACK = """
import ctypes, json, os, signal, sys
victim = int(sys.stdin.readline())
found = {}
def tried(name, work):
    try:
        work(); found[name] = "done"
    except OSError as error:
        found[name] = error.strerror
libc = ctypes.CDLL(None, use_errno=True)
def attach():
    if libc.ptrace(16, victim, None, None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.waitpid(victim, 0)
    libc.ptrace(17, victim, None, None)
tried("environment", lambda: open(f"/proc/{victim}/environ").read())
tried("memory", lambda: open(f"/proc/{victim}/mem", "rb+").close())
tried("standard input", lambda: open(f"/proc/{victim}/fd/0", "rb").close())
tried("standard output", lambda: open(f"/proc/{victim}/fd/1", "wb").close())
tried("working directory", lambda: os.listdir(f"/proc/{victim}/cwd"))
tried("ptrace", attach)
tried("signal", lambda: os.kill(victim, signal.SIGURG))
print(json.dumps(found), flush=True)
sys.stdin.read()
"""
DENIED = {"Permission denied", "Operation not permitted"}


def attacked(
    house: House, daemon: Daemon, run_as: str, attacker: int, victim: int, name: str = "victim"
) -> dict[str, Any]:
    """What the attacker's server can do to the victim's."""
    house.register("victim", TELL, run_as=run_as, env={"SECRET": "of the victim"})
    house.register("attacker", ATTACK, run_as=run_as)
    with client(attacker) as his, client(victim) as hers:
        target, order = daemon.order(name, hers), daemon.order("attacker", his)
        assert (target.word()[0], order.word()[0]) == ("started", "started")
        target.told()
        os.write(order.stdin[1], b"%d\n" % target.pid)
        found = order.told()
        os.write(target.stdin[1], b"x")
    return found


def test_servers_of_two_callers(house: House, daemon: Daemon):
    """Servers that run as their callers cannot read, trace, signal or write to those of another caller."""
    assert set(attacked(house, daemon, "caller", BOB, ALICE).values()) <= DENIED


def test_isolated_servers_of_two_callers(house: House, daemon: Daemon):
    """The same server, isolated, for two callers is two strangers."""
    assert set(attacked(house, daemon, "isolated", BOB, ALICE).values()) <= DENIED


def test_isolated_servers_of_one_caller(house: House, daemon: Daemon):
    """Two isolated servers of one caller are strangers, too."""
    assert set(attacked(house, daemon, "isolated", ALICE, ALICE).values()) <= DENIED


def test_one_account_for_all_would_not_do(house: House, daemon: Daemon):
    """Where root gives two callers' servers one account, the attack works: it is the uid that keeps them apart."""
    found = attacked(house, daemon, "user:nobody", BOB, ALICE)
    assert (found["environment"], found["signal"]) == ("done", "done")


def test_a_caller_cannot_touch_the_isolated_server_that_it_uses(house: House, daemon: Daemon):
    """What an isolated server holds is not its caller's: the caller's own programs can neither read nor end it."""
    house.register("victim", TELL, run_as="isolated")
    with client(ALICE) as alice:
        target = daemon.order("victim", alice)
        assert target.word()[0] == "started"
        target.told()
        words = ["setpriv", f"--reuid={ALICE}", f"--regid={ALICE}", "--clear-groups", PYTHON, "-I", "-c", ATTACK]
        done = subprocess.run(words, input=f"{target.pid}\n", capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout).values()) <= DENIED
