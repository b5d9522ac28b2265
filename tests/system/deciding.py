"""A daemon that decides wrongly: the manager ends it, since its self-check no longer earns the sign of life.

The product has no switch for that. Root writes into the memory of the running daemon, over two instructions of its decision
code (``inside/damage.py``), so that every answer of the policy engine is taken for a permit.
"""

from __future__ import annotations

import time

from tests.system.life import DROP_IN
from tests.system.machine import Machine
from tests.system.report import Report, expect, until
from tests.system.stage import CTL, DAMAGE, agent, cause_of, grant

UNIT = "attestd.service"
WATCHDOG_S = 30
"""Twice the unit's own: time for a wrong call before the next check, which comes after a third of it."""
UNGRANTED = ("carol", "once", "alone")
"""A call that no check of any group has had approved."""
PACKAGES = "/usr/lib/attestd/lib/python3.*/site-packages"


def check(machine: Machine, report: Report) -> None:
    """Everything of this file."""
    with report.check(
        "a daemon that decides wrongly misses its sign of life and is replaced by one that decides rightly"
    ) as figures:
        grant(machine, "alice", "echo")
        expect(agent(machine, "alice", "once", "echo")["ok"], "who is granted is not served before the damage")
        expect(cause_of(agent(machine, *UNGRANTED)) == "no_grant", "who is not granted is served before the damage")
        machine.write(DROP_IN, f"[Service]\nWatchdogSec={WATCHDOG_S}\n")
        machine.systemctl("daemon-reload")
        machine.systemctl("restart", UNIT)
        first, times = machine.main_pid(), int(machine.shown(UNIT, "NRestarts"))
        began = time.monotonic()
        written = machine.out("sh", "-c", f"exec {DAMAGE} {first} {PACKAGES}")
        expect(written == "2", f"{written} instructions were overwritten, expected 2")
        wrong = agent(machine, *UNGRANTED)
        expect(wrong["ok"] and machine.main_pid() == first, f"the damage changes no decision: {wrong}")
        until(lambda: machine.main_pid() not in {0, first}, "another daemon")
        figures.append(f"{time.monotonic() - began:.1f} s with WatchdogSec={WATCHDOG_S}")
        machine.path(DROP_IN).unlink()
        machine.systemctl("daemon-reload")
        said = machine.journal(UNIT, 60)
        for text in (
            "self-check failed: cannot trust decisions: a caller without a grant came to Forward",
            "Watchdog request",
            "Failed with result 'watchdog'",
        ):
            expect(text in said, f"the journal does not say {text!r}: {said}")
        expect(int(machine.shown(UNIT, "NRestarts")) == times + 1, "it was not restarted by the manager, once")
        expect(cause_of(agent(machine, *UNGRANTED)) == "no_grant", "the new daemon decides wrongly too")
        expect(agent(machine, "alice", "once", "echo")["ok"], "the new daemon does not serve who is granted")
        expect(machine.json(*CTL, "audit", "verify", "--json")[0]["ok"], "the log does not verify")
