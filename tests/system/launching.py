"""The launcher under attack: whoever holds the daemon gets no more than the registry has."""

from __future__ import annotations

import json

from tests.system import confining
from tests.system.machine import Machine
from tests.system.report import Report, expect, until
from tests.system.stage import COMPROMISED, Seen, agent, grant, register
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
    _accounts(machine, report)
    with report.check("servers end with the daemon, and with their session"):
        with holding(machine, "alice", "echo"):
            expect(_servers(machine), "no server runs")
        until(lambda: not _servers(machine), "the server is gone with its session")


def _accounts(machine: Machine, report: Report) -> None:
    with report.check(
        "run_as: a fixed account, or for each caller a uid of its own that is nobody's and stays the same"
    ):
        for server in ("fixed", "alone"):
            for user in ("alice", "bob"):
                grant(machine, user, server)
        carol = int(machine.out("id", "--user", "carol"))
        expect(_where(machine, "alice", "fixed")["uid"] == carol, "it does not run as its account")
        uids = [_where(machine, user, "alone")["uid"] for user in ("alice", "bob", "alice")]
        expect(uids[0] == uids[2] != uids[1], f"uids for alice, bob, alice: {uids}")
        for uid in uids:
            expect(machine.run("getent", "passwd", str(uid), check=False).stdout == "", f"{uid} is somebody's")
    with report.check("a limit and network = false hold for a started server, and only where they are set"):
        confining.kept_network(machine)
        free, alone = (_where(machine, "alice", server) for server in ("echo", "alone"))
        expect(alone["open_files"] == 64 != free["open_files"], f"open files: {alone['open_files']}")
    with report.check(
        "a server that is to be read-only is, or is not started where this kernel has no Landlock of 6.2"
    ) as figures:
        figures.extend(confining.kept_files(machine) or ["it is not started"])
    with report.check(
        "a server with a memory limit has it, or is not started where the launcher has no controller"
    ) as told:
        told.append("it has" if confining.kept_memory(machine) else "it is not started")


def _where(machine: Machine, user: str, server: str) -> Seen:
    """What a server that is started for a user says of itself."""
    told = agent(machine, user, "once", server, tool="where")
    expect(told["ok"], f"{server} for {user}: {told}")
    where: Seen = json.loads(str(told["text"]))
    return where


def _victim(machine: Machine) -> int:
    """A process of alice, for a minute."""
    machine.systemctl("stop", "victim.service", check=False)
    machine.run("systemd-run", "--quiet", "--uid=alice", "--collect", "--unit=victim", "sleep", "60")
    return machine.main_pid("victim.service")


def _strange(machine: Machine) -> str:
    return machine.run("pgrep", "--full", "--exact", "sh -c id", check=False).stdout


def _servers(machine: Machine) -> str:
    return machine.run("pgrep", "--full", "[/]opt/mcp/bin/echo", check=False).stdout
