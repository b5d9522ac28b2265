"""Reload, restart, death, a hang, a full disk: nothing that must not be lost is lost, and what happened is said."""

from __future__ import annotations

import json
import shutil
import subprocess
import time

from tests.system.machine import Machine
from tests.system.report import Report, expect, until
from tests.system.stage import AGENT, CONFIG, CTL, Seen, agent, cause_of, grant, records, register

ENDED_S = 120
ROOM_KIB = 4096
"""What is left on the disk that is to be full."""
STATE = "/var/lib/attestd"
DROP_IN = "/etc/systemd/system/attestd.service.d/test.conf"


class Load:
    """Agents of several users that call without a pause, until they are asked what they came to."""

    def __init__(self, machine: Machine, *users: str) -> None:
        words = (AGENT, "load", "echo", "echo", json.dumps({"said": "hello"}))
        self._running = {user: machine.start(*words, user=user) for user in users}

    def under_way(self, machine: Machine) -> None:
        """Wait until each has a session. Raises AssertionError, and says what they came to instead."""
        try:
            until(lambda: _open_sessions(machine) >= len(self._running), "every agent has a session")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.results()}") from None

    def seen(self) -> dict[str, Seen]:
        """What each came to. Raises AssertionError if any lost a call, or made none."""
        found = self.results()
        for user, seen in found.items():
            expect(seen["lost"] == 0 and int(str(seen["calls"])) > 0, f"{user}: {seen}")
        return found

    def results(self) -> dict[str, Seen]:
        """End them; what each says. Raises AssertionError if one says nothing."""
        found: dict[str, Seen] = {}
        for user, process in self._running.items():
            out, err = process.communicate(timeout=ENDED_S)
            expect(out.strip(), f"the agent of {user} said nothing: {err[-500:]}")
            found[user] = json.loads(out.strip().splitlines()[-1])
        return found


def check(machine: Machine, report: Report) -> None:
    """Everything of this file."""
    for user in ("alice", "bob"):
        grant(machine, user, "echo")
    _reload(machine, report)
    _restart(machine, report)
    _killed(machine, report)
    _hung(machine, report)
    _full(machine, report)


def _calls(found: dict[str, Seen]) -> list[str]:
    calls = sum(int(str(seen["calls"])) for seen in found.values())
    longest = max(float(str(seen["longest_s"])) for seen in found.values())
    return [f"{calls} calls", f"the longest took {longest:g} s"]


def _reload(machine: Machine, report: Report) -> None:
    with report.check("reloads under load lose no call and end no session of a server that did not change") as figures:
        load = Load(machine, "alice", "bob")
        load.under_way(machine)
        for number in range(5):
            register(machine, "passing", f'command = ["/opt/mcp/bin/echo", "{number}"]')
            machine.systemctl("reload", "attestd.service")
        machine.path("/etc/attestd/servers.d/passing.toml").unlink()
        machine.systemctl("reload", "attestd.service")
        found = load.seen()
        figures.extend(_calls(found))
        expect(all(seen["sessions"] == 1 for seen in found.values()), f"sessions ended: {found}")
    with report.check("a bad configuration is refused with its reason, and the old one goes on"):
        before = machine.path(CONFIG).read_text()
        machine.path(CONFIG).write_text("nosuch = 1\n")
        try:
            refused = machine.systemctl("reload", "attestd.service", check=False)
            expect(refused.returncode != 0, "the reload succeeded")
            expect("nosuch" in machine.journal("attestd.service"), "the journal does not say why")
            expect(agent(machine, "alice", "once", "echo")["ok"], "the old configuration does not go on")
        finally:
            machine.path(CONFIG).write_text(before)
            machine.systemctl("reload", "attestd.service")


def _restart(machine: Machine, report: Report) -> None:
    with report.check(
        "restarts under load: sessions are told shutting_down, a client that reconnects loses no call"
    ) as (figures):
        held = int(machine.shown("attestd.service", "NFileDescriptorStore"))
        expect(held >= 3, f"the manager holds {held} sockets of servers")
        before = len(records(machine, "--server", "echo", "--cause", "shutting_down"))
        load = Load(machine, "alice", "bob")
        for _ in range(3):
            load.under_way(machine)
            machine.systemctl("restart", "attestd.service")
        found = load.seen()
        figures.extend(_calls(found))
        expect(all(int(str(seen["sessions"])) > 1 for seen in found.values()), f"no session ended: {found}")
        told = len(records(machine, "--server", "echo", "--cause", "shutting_down")) - before
        expect(told >= 2, f"{told} sessions were told, expected at least one of each agent")
    with report.check("grants and audit survive a restart"):
        expect(agent(machine, "bob", "once", "echo")["ok"], "the grant is gone")
        expect(machine.json(*CTL, "audit", "verify", "--json")[0]["ok"], "the log does not verify")


def _open_sessions(machine: Machine) -> int:
    return len(machine.out(*CTL, "ps", "--json").splitlines())


def _killed(machine: Machine, report: Report) -> None:
    with report.check(
        "SIGKILL: the manager starts it again, no server outlives it, nothing was done unrecorded"
    ) as figures:
        first = machine.main_pid()
        load = Load(machine, "alice", "bob")
        until(lambda: len(_servers(machine)) >= 2, "both agents have a server")
        servers = _servers(machine)
        before = _permitted(machine)
        machine.systemctl("kill", "--kill-whom=main", "--signal=KILL", "attestd.service")
        until(lambda: machine.main_pid() not in {0, first}, "another daemon")
        until(lambda: not servers & _servers(machine), "the servers of the killed daemon are gone")
        found = load.seen()
        figures.extend(_calls(found))
        made = sum(int(str(seen["calls"])) for seen in found.values())
        recorded = _permitted(machine) - before
        expect(machine.json(*CTL, "audit", "verify", "--json")[0]["ok"], "the log does not verify")
        expect(recorded > 0 and _permitted(machine) >= made, f"{made} calls were served, {recorded} recorded since")


def _servers(machine: Machine) -> set[str]:
    return set(machine.run("pgrep", "--full", "[/]opt/mcp/bin/echo", check=False).stdout.split())


def _permitted(machine: Machine) -> int:
    filters = ("--server", "echo", "--method", "tools/call", "--verdict", "permit")
    return len(records(machine, *filters))


def _hung(machine: Machine, report: Report) -> None:
    with report.check("a daemon that hangs misses its sign of life and is replaced") as figures:
        machine.write(DROP_IN, "[Service]\nWatchdogSec=2\n")
        machine.systemctl("daemon-reload")
        machine.systemctl("restart", "attestd.service")
        first = machine.main_pid()
        began = time.monotonic()
        machine.run("kill", "-STOP", str(first))
        until(lambda: machine.main_pid() not in {0, first}, "another daemon")
        figures.append(f"{time.monotonic() - began:.1f} s with WatchdogSec=2")
        machine.path(DROP_IN).unlink()
        machine.systemctl("daemon-reload")
        machine.systemctl("restart", "attestd.service")
        expect(agent(machine, "alice", "once", "echo")["ok"], "calls are not served again")


def _full(machine: Machine, report: Report) -> None:
    with report.check(
        "a full disk under the state directory: refused with the reason, no restart, served when there is room"
    ):
        machine.systemctl("stop", "attestd.service")
        kept = machine.path("/root/state")
        machine.run("cp", "--archive", STATE, "/root/state")
        room = int(machine.walked("du", "--summarize", "--block-size=1K", STATE).split()[0]) + ROOM_KIB
        small = ("mount", "-t", "tmpfs", "-o", f"size={room}k,mode=700", "small", STATE)
        subprocess.run(machine.enter(*small), check=True)
        try:
            machine.run("sh", "-c", f"cp --archive /root/state/. {STATE}/ && chown attestd:attestd {STATE}")
            machine.systemctl("start", "attestd.service")
            first = machine.main_pid()
            expect(agent(machine, "alice", "once", "echo")["ok"], "calls are not served before")
            machine.run("sh", "-c", f"cat /dev/zero > {STATE}/filler", check=False)
            until(
                lambda: cause_of(agent(machine, "alice", "once", "echo")) == "audit_unavailable",
                "a refusal that says why",
            )
            said = machine.out(*CTL, "status")
            expect("the disk is full" in said, f"status does not say why: {said}")
            expect(machine.main_pid() == first, "the daemon was replaced, which cures no disk")
            machine.run("rm", f"{STATE}/filler")
            until(lambda: bool(agent(machine, "alice", "once", "echo")["ok"]), "served again")
            expect(machine.main_pid() == first, "the daemon was replaced")
            expect(machine.json(*CTL, "audit", "verify", "--json")[0]["ok"], "the log does not verify")
        finally:
            machine.systemctl("stop", "attestd.service", check=False)
            subprocess.run(machine.enter("umount", "--lazy", STATE), check=True)
            shutil.rmtree(kept)
            machine.systemctl("start", "attestd.service")
