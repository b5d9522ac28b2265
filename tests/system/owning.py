"""attestd for one user who has no root: the guide's words for that, followed as that user, in a system without the package."""

from __future__ import annotations

import shlex
import shutil

from tests.system import stage
from tests.system.following import GUIDE, commands
from tests.system.machine import Machine
from tests.system.report import Report, expect, until
from tests.system.stage import TERMS, agent, cause_of, code_of

USER = "dave"
INDEX = "/opt/index"
"""What stands for the index of packages, in a system without a network."""
PIP = f"[global]\nno-index = true\nfind-links = {INDEX}\n"
TMUX = ("tmux", "-S", f"/home/{USER}/tmux", "-f", "/dev/null")
RESULT = f"/home/{USER}/result"
FENCE = "```sh user"
TITLE = "For one user, without root"
UNIT = "attestd.service"


def check(machine: Machine, report: Report) -> None:
    """Everything of this file. The package is not installed."""
    uid = _prepared(machine)
    sections: dict[str, list[str]] = {}
    for section, command in commands(GUIDE.read_text(encoding="utf-8"), FENCE):
        sections.setdefault(section, []).append(command)
    with report.check(
        "one user: pipx installs from wheels, and the user's manager runs the unit, as the guide says"
    ) as said:
        for name in ("attestd", "attestctl"):
            expect(machine.run("which", name, check=False).returncode == 1, f"{name} is installed for everybody")
        said.extend(_followed(machine, uid, sections[TITLE]))
        status = machine.json(f"/home/{USER}/.local/bin/attestctl", "status", "--json", user=USER)[0]
        expect(status["mode"] == "user" and status["pid"] == _main_pid(machine, uid) != 0, str(status))
        expect(machine.out("ps", "-o", "user=", "-p", str(status["pid"])) == USER, "it does not run as the user")
    with report.check("one user: what was refused is approved at a terminal, and then served"):
        _typed(machine, "attestctl servers add time -- /opt/mcp/bin/mcp-server-time")
        refused = agent(machine, USER, "once", "time")
        expect(cause_of(refused) == "no_grant", str(refused))
        _typed(machine, f"attestctl approve {code_of(refused)} {shlex.join(TERMS)} --yes")
        _calls(machine)
    with report.check("one user: restarted, by the user's manager, it is another process and the grant counts") as said:
        before = _main_pid(machine, uid)
        said.extend(_followed(machine, uid, sections["Restart and upgrade"]))
        expect(_main_pid(machine, uid) not in {0, before}, "it was not restarted")
        _calls(machine)
    with report.check("one user: removed as the guide says, nothing of it runs, and what was decided is kept") as said:
        _tmux(machine, "kill-server")
        said.extend(_followed(machine, uid, sections["Remove it"]))
        expect(machine.run("pgrep", "--full", "[a]ttestd", check=False).stdout == "", "processes are left")
        for listed in (("list-units", "--all", "--plain"), ("list-unit-files",)):
            units = _systemctl(machine, uid, *listed, "--no-legend", "attestd*", check=False)
            expect(units == "", f"units are left: {units}")
        left = machine.out(
            "find",
            f"/home/{USER}/.local/bin",
            f"/run/user/{uid}",
            "-ignore_readdir_race",
            "-name",
            "*attest*",
            "-not",
            "-type",
            "d",
        )
        expect(left == "", f"left: {left}")
        expect(machine.path(f"/home/{USER}/.local/state/attestd/grants.db").exists(), "the grants are gone")


def _prepared(machine: Machine) -> str:
    """A user whose manager runs without a login, the tools that a person has, and an index; the user's uid."""
    machine.run("useradd", "--create-home", "--shell=/bin/bash", USER)
    fetched = "DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes install --no-install-recommends pipx tmux"
    machine.run("sh", "-c", fetched, seconds=300)
    shutil.copytree(stage.wheels(), machine.path(INDEX))
    machine.write("/etc/pip.conf", PIP)
    machine.run("loginctl", "enable-linger", USER)
    uid = machine.out("id", "--user", USER)
    until(machine.path(f"/run/user/{uid}/systemd/private").is_socket, "the user's manager runs")
    person = (
        "--unit=person",
        f"--uid={USER}",
        "--collect",
        "--service-type=forking",
        f"--working-directory=/home/{USER}",
    )
    words = (*TMUX, "new-session", "-d", "-x", "200", "-y", "50", "/bin/bash --norc -i")
    path = f"PATH=/home/{USER}/.local/bin:/usr/bin:/bin"
    environment = (path, "TERM=xterm", f"HOME=/home/{USER}", f"XDG_RUNTIME_DIR=/run/user/{uid}")
    machine.run("systemd-run", "--quiet", *person, *(f"--setenv={each}" for each in environment), *words)
    return uid


def _followed(machine: Machine, uid: str, lines: list[str]) -> list[str]:
    """Each command as it is written, in a login shell of the user; a figure."""
    for line in lines:
        shell = ("bash", "-l", "-o", "pipefail", "-c", line)
        machine.run("env", f"XDG_RUNTIME_DIR=/run/user/{uid}", *shell, user=USER, seconds=300)
    return [f"{len(lines)} commands"]


def _systemctl(machine: Machine, uid: str, *words: str, check: bool = True) -> str:
    command = ("env", f"XDG_RUNTIME_DIR=/run/user/{uid}", "systemctl", "--user", *words)
    return machine.run(*command, user=USER, check=check).stdout.strip()


def _main_pid(machine: Machine, uid: str) -> int:
    return int(_systemctl(machine, uid, "show", "--value", "--property=MainPID", UNIT))


def _calls(machine: Machine) -> None:
    seen = agent(machine, USER, "once", "time")
    expect(seen["ok"] and "UTC" in str(seen["text"]), str(seen))


def _tmux(machine: Machine, *words: str) -> None:
    machine.run(*TMUX, *words, user=USER)


def _typed(machine: Machine, line: str) -> None:
    """A command that the user types at a prompt. Raises AssertionError: it failed."""
    machine.path(RESULT).unlink(missing_ok=True)
    _tmux(machine, "send-keys", f"{line} >{RESULT}.new 2>&1; echo $? >>{RESULT}.new; mv {RESULT}.new {RESULT}", "Enter")
    until(machine.path(RESULT).exists, f"an end of: {line}")
    *said, status = machine.path(RESULT).read_text().splitlines()
    expect(status == "0", f"{line} ended with {status}: {' '.join(said)}")
