"""A long life in a short time: many sessions and calls, and nothing grows or is lost.

The sessions use the server's own socket and one back end for all of them, so that what is measured is the daemon's. Their
clients are processes that are forked, attested, have a few sessions one after the other, and exit; two are there at a time. What
grows with use and stays is compared between an early point and the end: descriptors, processes, resident memory.
"""

from __future__ import annotations

import re
import time

from tests.system.machine import Machine
from tests.system.report import Report, expect, until
from tests.system.stage import CTL, TERMS, Seen, agent, code_of, configured, inside_pids

WARM = 0.2
"""Part of the run after which the first point is taken: caches and pools are full by then."""
FRESH = 300
"""Sessions before those that are counted, for a daemon that was just started."""
GROWTH = 1.10
"""Resident memory at the end, against the first point. What a leak of one small object per call would exceed."""
KEPT = 5 * 12
"""Descriptors that the daemon keeps of the programs that the check itself starts meanwhile: its table of processes is
bounded, and looks for those that have ended when others come (``kernel/linux/table.py``). Sessions would leave more."""
EACH = 5
"""Sessions of one client process: every fifth is the first of a process that nobody has seen."""
AT_ONCE = 2
LIMITS = "\n[limits]\nconnections_per_minute = 1000000\n"
"""The soak is one user, who may have 600 in a minute otherwise."""
SERVICES = ("attestd.service", "attestd-launcher.service")


def check(machine: Machine, report: Report, sessions: int, calls: int) -> None:
    """``sessions`` with ``calls`` altogether."""
    each = max(1, calls // sessions)
    first = max(1, int(sessions * WARM))
    with report.check(
        f"{sessions} sessions and {sessions * each} calls: no growth of descriptors, memory or processes, nothing lost"
    ) as figures:
        with configured(machine, LIMITS):
            _grant(machine)
            _run(machine, FRESH, each)
            before = _recorded(machine)
            began = time.monotonic()
            processes = _run(machine, first, each)
            early = _state(machine)
            processes += _run(machine, sessions - first, each)
            late = _state(machine)
            figures += [f"{time.monotonic() - began:.0f} s", f"{processes} client processes"]
        figures += [f"{name} {early[name]} to {late[name]}" for name in early]
        expect(late["descriptors"] <= early["descriptors"] + KEPT, f"descriptors grew: {early} to {late}")
        expect(late["processes"] <= early["processes"], f"processes grew: {early} to {late}")
        expect(late["resident KiB"] <= GROWTH * early["resident KiB"], f"memory grew: {early} to {late}")
        recorded = _recorded(machine) - before
        expect(recorded == sessions * each, f"{sessions * each} calls were served, {recorded} are on record")
        verified = machine.run(*CTL, "audit", "verify", "--json", seconds=1800)
        expect('"ok":true' in verified.stdout.replace(" ", ""), verified.stdout[-300:])


def _soaked(machine: Machine, sessions: int, each: int) -> Seen:
    return agent(machine, "alice", "soak", "soak", *map(str, (sessions, each, EACH, AT_ONCE)), seconds=6 * 3600)


def _grant(machine: Machine) -> None:
    """For the clients of the soak, whose parent is another process of their program."""
    refused = _soaked(machine, 1, 1)
    data = refused["data"]
    if isinstance(data, dict) and data:
        program = data["caller"]["program"]
        machine.run(*CTL, "approve", code_of(refused), *TERMS, "--launched-by", program, "--yes")


def _run(machine: Machine, sessions: int, each: int) -> int:
    """How many client processes there were. Raises AssertionError if a call was not served."""
    seen = _soaked(machine, sessions, each)
    expect(seen["calls"] == sessions * each and not seen["refused"], f"not every call was served: {seen}")
    return int(str(seen["processes"]))


def _state(machine: Machine) -> dict[str, int]:
    """When no session is left."""
    until(lambda: machine.out(*CTL, "ps", "--json") == "", "every session has ended")
    pid = machine.main_pid()
    status = machine.out("cat", f"/proc/{pid}/status")
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    return {
        "descriptors": len(machine.walked("ls", f"/proc/{pid}/fd").split()),
        "processes": sum(len(inside_pids(machine, unit)) for unit in SERVICES),
        "resident KiB": int(found[1]) if found else 0,
    }


def _recorded(machine: Machine) -> int:
    """Permitted calls of the soak's server in the audit log."""
    query = "attestctl --all-users audit query --json --server soak --method tools/call --verdict permit | wc -l"
    return int(machine.out("sh", "-c", query, seconds=1800))
