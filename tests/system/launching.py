"""The launcher under attack: whoever holds the daemon gets no more than the registry has."""

from __future__ import annotations

import json

from tests.system.machine import Machine
from tests.system.report import Report, expect, until
from tests.system.stage import COMPROMISED, agent, grant, register
from tests.system.users import holding

SOCKET = "/run/attestd-launcher.sock"
CAPABILITIES = (1 << 5) | (1 << 6) | (1 << 7) | (1 << 8)
"""KILL, SETGID, SETUID, SETPCAP."""


def check(machine: Machine, report: Report) -> None:
    """Everything of this file."""
    grant(machine, "alice", "echo")
    with report.check("the launcher runs as an account of its own with exactly four capabilities"):
        agent(machine, "alice", "once", "echo")
        pid = machine.main_pid("attestd-launcher.service")
        status = machine.out("cat", f"/proc/{pid}/status")
        found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        uid = machine.out("id", "--user", "attestd-launcher")
        expect(found["Uid"].split()[0] == uid, found["Uid"])
        expect(int(found["CapBnd"], 16) == int(found["CapEff"], 16) == CAPABILITIES, found["CapBnd"])
    with report.check(
        "the launcher under attack by the daemon's own user: nothing that root did not register is started"
    ):
        told = json.loads(machine.out(COMPROMISED, SOCKET, str(_victim(machine)), user="attestd"))
        expect(not any(each.startswith("started") for each in told), str(told))
        honest = json.loads(machine.out(COMPROMISED, SOCKET, str(_victim(machine)), "echo", user="attestd"))
        expect(honest[0].startswith("started"), f"without an attack: {honest}")
        expect(_strange(machine) == "", f"processes were started: {_strange(machine)}")
    with report.check("nobody but the daemon's user reaches the launcher"):
        for user in ("alice", "bob"):
            told = json.loads(machine.out(COMPROMISED, SOCKET, "1", user=user))
            expect(all(each.startswith("no connection") for each in told), str(told))
    with report.check("a registry file that root alone does not own is not used"):
        register(machine, "loose", 'command = ["/opt/mcp/bin/echo"]')
        machine.run("chown", "alice", "/etc/attestd/servers.d/loose.toml")
        try:
            told = json.loads(machine.out(COMPROMISED, SOCKET, str(_victim(machine)), "loose", user="attestd"))
            expect(not told[0].startswith("started"), str(told))
        finally:
            machine.run("rm", "/etc/attestd/servers.d/loose.toml")
    with report.check("servers end with the daemon, and with their session"):
        with holding(machine, "alice", "echo"):
            expect(_servers(machine), "no server runs")
        until(lambda: not _servers(machine), "the server is gone with its session")


def _victim(machine: Machine) -> int:
    """A process of alice, for a minute."""
    machine.systemctl("stop", "victim.service", check=False)
    machine.run("systemd-run", "--quiet", "--uid=alice", "--collect", "--unit=victim", "sleep", "60")
    return machine.main_pid("victim.service")


def _strange(machine: Machine) -> str:
    return machine.run("pgrep", "--full", "--exact", "sh -c id", check=False).stdout


def _servers(machine: Machine) -> str:
    return machine.run("pgrep", "--full", "[/]opt/mcp/bin/echo", check=False).stdout
