"""Rows of the attack table on the installed system; C5, and the full disk of C7, are in ``life``, C1 in ``users``.

The clock of C7 is set in the virtual machine (``recording``), which has one of its own.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator

from tests.system.machine import Machine
from tests.system.report import Report, expect
from tests.system.stage import AGENT, ATTACKER, CTL, Seen, agent, grant, records

MCP = "/run/attestd/mcp"
FLOOD = 2000
"""More than one user may have open."""


def check(machine: Machine, report: Report) -> None:
    """Everything of this file."""
    grant(machine, "alice", "echo")
    grant(machine, "bob", "echo")
    _edited_files(machine, report)
    _flooded(machine, report)
    _uid_changes(machine, report)
    _fake_daemon(machine, report)


def last(text: str) -> Seen:
    expect(text.strip(), "nothing was said")
    seen: Seen = json.loads(text.strip().splitlines()[-1])
    return seen


@contextlib.contextmanager
def during(machine: Machine, user: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """An attack that goes on meanwhile; it has said its first line when this begins."""
    attack = machine.start(ATTACKER, *words, user=user)
    try:
        if attack.stdout is None or not attack.stdout.readline():
            raise AssertionError(f"the attack did not begin: {attack.communicate(timeout=20)[1][-500:]}")
        yield attack
    finally:
        attack.communicate(timeout=60)


def _edited_files(machine: Machine, report: Report) -> None:
    with report.check("C3: no user can write policy, registry, programs, grants or audit, nor read what is others'"):
        find = "find /etc/attestd /usr/lib/attestd /usr/share/attestd /var/lib/attestd /lib/systemd/system/attestd* -type f"
        paths = machine.out("sh", "-c", find).splitlines()
        expect(any(path.endswith("grants.db") for path in paths), "the grant store was not found")
        seen = last(machine.out(ATTACKER, "open", *paths, user="alice"))
        expect(seen["opened"] == [], f"alice could open {seen['opened']}")
        for secret in ("/var/lib/attestd/grants.db", "/var/lib/attestd/audit"):
            expect(machine.run("cat", secret, user="alice", check=False).returncode != 0, f"alice could read {secret}")
        for place in (MCP, "/run/attestd", "/etc/attestd/servers.d"):
            made = machine.run("touch", f"{place}/planted", user="alice", check=False)
            expect(made.returncode != 0, f"alice could make a file in {place}")


def _flooded(machine: Machine, report: Report) -> None:
    with report.check("C7: a user who opens more connections than allowed is cut off, and others are served meanwhile"):
        with during(machine, "alice", "flood", f"{MCP}/echo.sock", str(FLOOD)):
            expect(agent(machine, "bob", "once", "echo")["ok"], "bob is not served")
            limited = records(machine, "--cause", "limit_connections")
            expect(limited, "no refusal of alice's connections is on record")
        expect(agent(machine, "bob", "once", "echo")["ok"], "bob is not served afterwards")
        expect(agent(machine, "alice", "once", "echo")["ok"], "alice is not served afterwards")


def clock_set_back(machine: Machine, report: Report) -> None:
    """On a machine with a clock of its own."""
    with report.check(
        "C7: the clock is set back: a grant with an end is refused, then serves again; the log is in order"
    ):
        terms = ("--all-tools", "--for", "1h", "--launched-by", "unreadable")
        expect(not agent(machine, "carol", "once", "soak")["ok"], "carol has a grant already")
        grant(machine, "carol", "soak", *terms)
        expect(agent(machine, "carol", "once", "soak")["ok"], "carol is not served")
        machine.out("date", "--set", "2 hours ago")
        try:
            refused = agent(machine, "carol", "once", "soak")
        finally:
            machine.out("date", "--set", "2 hours")
        data = refused["data"]
        cause = data["cause"] if isinstance(data, dict) else ""
        # Files of the future are the first thing that is wrong; the grant is the second.
        expect(not refused["ok"] and cause in {"unattestable", "expired", "no_grant"}, f"served: {refused}")
        expect(agent(machine, "carol", "once", "soak")["ok"], "carol is not served any more")
        times = [str(record["time"]) for record in records(machine)]
        expect(times in (sorted(times), sorted(times, reverse=True)), "the records are not in order")
        verified = machine.json(*CTL, "audit", "verify", "--json")[0]
        expect(verified["ok"], str(verified))


def _uid_changes(machine: Machine, report: Report) -> None:
    with report.check("I22: connected as root and then somebody else: root's grant does not count"):
        grant(machine, "root", "echo")
        uid = machine.out("id", "--user", "alice")
        done = machine.run(ATTACKER, "become", f"{MCP}/echo.sock", uid, shell=True)
        seen = last(done.stdout)
        expect(not seen["ok"], f"served: {seen}")


def _fake_daemon(machine: Machine, report: Report) -> None:
    with report.check("I23: an impostor at the user's own place is told nothing, by the shim and by attestctl"):
        runtime = "/home/alice/runtime"
        machine.run("mkdir", "--mode=700", runtime, user="alice")
        environ = ("env", f"XDG_RUNTIME_DIR={runtime}")
        fake = f"{runtime}/attestd/mcp/echo.sock"
        with during(machine, "alice", "impostor", fake) as impostor:
            words = (AGENT, "once", "echo", "echo", '{"secret": "of alice"}')
            seen = last(machine.run(*environ, *words, user="alice", check=False, shell=True).stdout)
            data = seen["data"]
            expect(isinstance(data, dict) and data.get("cause") == "daemon_untrusted", f"got {seen}")
            asked = machine.run("attestctl", "--socket", fake, "status", user="alice", check=False)
            expect(asked.returncode == 5 and "cannot trust" in asked.stderr, asked.stderr)
            heard = impostor.communicate(timeout=20)[0]
        expect(last(heard) == {"heard": ""}, f"it heard {heard}")
    with report.check("I23: a socket of another user is not the service"):
        machine.run("chmod", "755", "/home/bob")
        with during(machine, "bob", "impostor", "/home/bob/fake/echo.sock"):
            machine.run("chmod", "755", "/home/bob/fake")
            machine.run("chmod", "666", "/home/bob/fake/echo.sock")
            words = ("attestd-connect", "echo", "--socket", "/home/bob/fake/echo.sock")
            told = machine.run(*words, "--system", user="alice", check=False)
            expect(told.returncode == 5 and "cannot trust the daemon" in told.stderr, told.stderr)
