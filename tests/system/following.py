"""The operations guide, followed: every command of it, as it is written, in its order, as root."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.support.repository import ROOT
from tests.system.machine import Machine
from tests.system.report import Report, expect
from tests.system.stage import agent, cause_of, grant

GUIDE = ROOT / "docs" / "guides" / "operations.md"
FENCE = "```"


def commands(text: str, shell: str = f"{FENCE}sh") -> Iterator[tuple[str, str]]:
    """Section and command of every line that is fenced so."""
    section, inside = "", False
    for line in text.splitlines():
        if line.startswith(("## ", "### ")) and not inside:
            section = line.lstrip("# ")
        elif line.startswith(FENCE):
            inside = not inside and line == shell
        elif inside and line.strip():
            yield section, line


def check(machine: Machine, report: Report, deb: Path) -> None:
    """From nothing to nothing, as the guide says."""
    shutil.copy(deb, machine.path(f"/root/{deb.name}"))
    sections: dict[str, list[str]] = {}
    for section, command in commands(GUIDE.read_text(encoding="utf-8")):
        sections.setdefault(section, []).append(command)
    with report.check("the operations guide has commands for all that it promises"):
        promised = {
            "Install",
            "Verify the install",
            "Upgrade",
            "What to watch",
            "Back up and restore",
            "Incidents",
            "Remove",
        }
        expect(promised <= set(sections), f"without commands: {promised - set(sections)}")
    for section, lines in sections.items():
        with report.check(f"the operations guide works as written: {section}") as figures:
            if section == "Incidents":
                grant(machine, "alice", "clock")
            for line in lines:
                shell = ("bash", "-o", "pipefail", "-c", f"export DEBIAN_FRONTEND=noninteractive; {line}")
                machine.run(*shell, seconds=300)
            if section == "Incidents":
                seen = agent(machine, "alice", "once", "clock")
                expect(cause_of(seen) == "no_grant", f"everything was revoked, and alice is told: {seen}")
            figures.append(f"{len(lines)} commands")
