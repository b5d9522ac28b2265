"""Upgrade, removal, purge: what is kept, and what is left of it at the end."""

from __future__ import annotations

from pathlib import Path

from tests.system.machine import Machine
from tests.system.report import Report, expect
from tests.system.stage import CTL, agent, grant, install, records

PLACES = (
    "/etc", "/lib/systemd", "/usr/bin", "/usr/lib", "/usr/share", "/var/lib", "/var/log", "/run", "/opt", "/root",
)  # fmt: skip


def upgraded(machine: Machine, report: Report, deb: Path) -> None:
    """The next version, over the running one."""
    with report.check("an upgrade in place restarts the service and keeps grants, servers and audit"):
        grant(machine, "alice", "echo")
        before = machine.main_pid()
        size = len(records(machine, "--server", "echo"))
        install(machine, deb)
        expect(machine.main_pid() not in {0, before}, "the service was not restarted")
        expect(
            machine.out("dpkg-query", "--show", "--showformat=${Version}", "attestd") in deb.name, "not the new version"
        )
        _still_granted(machine)
        expect(len(records(machine, "--server", "echo")) > size, "records are gone")
        expect(machine.json(*CTL, "audit", "verify", "--json")[0]["ok"], "the log does not verify")


def removed(machine: Machine, report: Report, deb: Path) -> None:
    """Removal, installation again, purge."""
    with report.check(
        "a removal stops everything and keeps configuration and state, which the next installation finds"
    ):
        apt(machine, "remove")
        expect(machine.run("pgrep", "--full", "[a]ttestd", check=False).stdout == "", "processes are left")
        for kept in ("/var/lib/attestd/grants.db", "/etc/attestd/servers.d/echo.toml"):
            expect(machine.path(kept).exists(), f"{kept} is gone")
        install(machine, deb)
        _still_granted(machine)
    with report.check("a purge leaves nothing"):
        apt(machine, "purge")
        found = machine.out(
            "find", *PLACES, "-ignore_readdir_race", "-xdev", "-iname", "*attest*", "-not", "-path", "/run/systemd/*"
        )
        expect(found == "", f"left: {found}")
        for table in ("passwd", "group"):
            expect(machine.run("getent", table, "attestd", check=False).stdout == "", f"an entry in {table} is left")
        expect(machine.run("pgrep", "--full", "[a]ttestd", check=False).stdout == "", "processes are left")
        units = machine.systemctl("list-unit-files", "--no-legend", "attestd*", check=False).stdout.strip()
        expect(units == "", f"units are left: {units}")


def _still_granted(machine: Machine) -> None:
    seen = agent(machine, "alice", "once", "echo")
    expect(seen["ok"], f"the grant does not count: {seen}")


def apt(machine: Machine, what: str) -> None:
    """Remove or purge."""
    machine.run("sh", "-c", f"DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes {what} attestd", seconds=120)
