"""A user who fills what is everybody's: the queue of codes, the audit. Others are served, and it is known who it was.

The accept queue is in ``attacking`` (C7). What one user may have is counted by uid: ``attestd/grants/pending.py``,
``attestd/audit/refusals.py`` and ``attestd/daemon/refusing.py`` say how much that is.
"""

from __future__ import annotations

import time

from attestd.daemon.refusing import FULL_SESSIONS
from attestd.grants.pending import PendingLimits
from tests.system.attacking import MCP, during, last
from tests.system.machine import Machine
from tests.system.report import Report, expect, until
from tests.system.stage import CTL, TERMS, USERS, agent, code_of, grant, records

SOCKET = f"{MCP}/echo.sock"
STRANGERS = PendingLimits().per_uid + 16
REFUSALS = 20_000
SESSIONS = 2 * FULL_SESSIONS
SETTLED_S = 130
"""What was counted in a minute is on record when that is over."""


def check(machine: Machine, report: Report) -> None:
    """Everything of this file."""
    grant(machine, "bob", "echo")
    _pending(machine, report)
    _audit(machine, report)


def _pending(machine: Machine, report: Report) -> None:
    with report.check(
        "a user who fills the queue of codes loses its own oldest; others' codes stay, and they are served"
    ) as figures:
        uids = {user: int(machine.out("id", "--user", user)) for user in USERS}
        code = code_of(agent(machine, "carol", "once", "echo"))
        before = _refused(machine, uids["alice"])
        place = "/home/alice/strangers"
        with during(machine, "alice", "strangers", SOCKET, place, str(STRANGERS)) as attack:
            longest = _served(machine, "bob", 5)
            done = last(attack.communicate(timeout=300)[0])
        figures += [f"{STRANGERS} programs", f"bob's longest call meanwhile, shim and all: {longest:.2f} s"]
        expect(done == {"refused": STRANGERS, "codes": STRANGERS}, f"not every program was a question: {done}")
        waiting = machine.json(*CTL, "pending", "--json")
        whose = [each for each in waiting if f"/uid/{uids['alice']}/program/" in str(each["caller"])]
        expect(len(whose) == PendingLimits().per_uid, f"{len(whose)} codes of alice wait")
        named = {number for number in range(STRANGERS) if f"stranger-{number}.py " in str(whose)}
        youngest = set(range(STRANGERS - PendingLimits().per_uid, STRANGERS))
        expect(named == youngest, f"an administrator does not see which programs: {sorted(named)}")
        recorded = _refused(machine, uids["alice"]) - before
        expect(recorded == STRANGERS, f"{STRANGERS} programs were refused, {recorded} are on record as alice's")
        machine.run(*CTL, "approve", code, *TERMS, "--yes")
        expect(agent(machine, "carol", "once", "echo")["ok"], "carol's code, older than the flood, made no grant")


def _audit(machine: Machine, report: Report) -> None:
    with report.check(
        "a user who is refused in a loop fills no log: each is counted, once, as that user's; others are served"
    ) as figures:
        uid = int(machine.out("id", "--user", "alice"))
        before, lines = _refused(machine, uid), len(records(machine))
        size = _size(machine)
        with during(machine, "alice", "refused", SOCKET, str(REFUSALS), str(SESSIONS)) as attack:
            longest = _served(machine, "bob", 5)
            done = last(attack.communicate(timeout=300)[0])
        expect(done == {"refused": REFUSALS + SESSIONS}, f"not every one was refused as such: {done}")
        until(lambda: _refused(machine, uid) - before >= REFUSALS + SESSIONS, "every refusal is on record", SETTLED_S)
        recorded = _refused(machine, uid) - before
        expect(recorded == REFUSALS + SESSIONS, f"{REFUSALS + SESSIONS} refusals, {recorded} on record as alice's")
        grown, more = _size(machine) - size, len(records(machine)) - lines
        figures += [f"{recorded} refusals", f"{more} records of everybody, {grown >> 10} KiB"]
        figures += [f"bob's longest call meanwhile, shim and all: {longest:.2f} s"]
        expect(more < recorded / 10, f"{more} records for {recorded} refusals")
        expect(machine.json(*CTL, "audit", "verify", "--json")[0]["ok"], "the log does not verify")


def _served(machine: Machine, user: str, calls: int) -> float:
    """The longest of some calls of another user, each a session of its own, seconds. Raises AssertionError."""
    longest = 0.0
    for _ in range(calls):
        began = time.monotonic()
        seen = agent(machine, user, "once", "echo")
        expect(seen["ok"], f"{user} is not served: {seen}")
        longest = max(longest, time.monotonic() - began)
    return longest


def _refused(machine: Machine, uid: int) -> int:
    """How many refusals of a user the log accounts for, singly and counted."""
    total = 0
    for each in records(machine, "--server", "echo", "--cause", "no_grant"):
        detail = each["detail"]
        if each["uid"] == uid:
            total += int(str(detail.get("times", 1))) if isinstance(detail, dict) else 1
    return total


def _size(machine: Machine) -> int:
    """Bytes of the log."""
    return int(machine.walked("du", "--summarize", "--bytes", "/var/lib/attestd/audit").split()[0])
