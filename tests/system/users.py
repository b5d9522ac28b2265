"""Several ordinary users of one service: each calls, approves with a password, and sees what is its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator

from tests.system.machine import Machine
from tests.system.report import Report, expect
from tests.system.stage import AGENT, PASSWORD, TERMS, USERS, Seen, agent, code_of, grant, records
from tests.system.terminal import Terminal

EVERYTHING = " ".join((*TERMS, "--yes"))
LISTS = (("ps",), ("pending",), ("grants", "list"), ("audit", "query"))


def check(machine: Machine, report: Report) -> None:
    """Everything of this file."""
    _approving(machine, report)
    _calling(machine, report)
    _separate(machine, report)
    _managing(machine, report)


@contextlib.contextmanager
def logged_in(machine: Machine, user: str) -> Iterator[Terminal]:
    """A user at a terminal."""
    terminal = Terminal(machine, user, PASSWORD.format(user=user))
    try:
        yield terminal
    finally:
        terminal.close()


@contextlib.contextmanager
def holding(machine: Machine, user: str, server: str) -> Iterator[subprocess.Popen[str]]:
    """A session of a user that is open meanwhile."""
    process = machine.start(AGENT, "hold", server, "echo", "{}", user=user)
    try:
        if process.stdout is None or not process.stdout.readline():
            raise AssertionError(f"no session: {process.communicate(timeout=20)[1][-500:]}")
        yield process
    finally:
        process.communicate(timeout=60)


def _approving(machine: Machine, report: Report) -> None:
    with report.check("C1: an agent's shell tool cannot approve, with a terminal or without, and that is on record"):
        code = code_of(agent(machine, "alice", "once", "time"))
        words = ("attestctl", "approve", code, *EVERYTHING.split())
        done = machine.run(AGENT, "shell", *words, user="alice", check=False, shell=True)
        seen: Seen = json.loads(done.stdout.splitlines()[-1])
        expect(seen["code"] == 4, str(seen))
        with logged_in(machine, "alice") as terminal:
            _, shown = terminal.run(f"{AGENT} shell {' '.join(words)}")
            expect('"code": 4' in shown, shown)
        refused = records(machine, "--cause", "not_approver")
        expect(len(refused) >= 2, f"{len(refused)} refusals on record")
        expect(not agent(machine, "alice", "once", "time")["ok"], "a grant was made")
    with report.check("a user approves with their own password, asked for by polkit on a terminal"):
        code = code_of(agent(machine, "alice", "once", "time"))
        with logged_in(machine, "alice") as terminal:
            got, shown = terminal.run(f"attestctl approve {code} {EVERYTHING}", password=PASSWORD.format(user="alice"))
            expect(got == 0, shown)
        expect(agent(machine, "alice", "once", "time")["ok"], "the grant does not count")
    with report.check("a wrong password makes no grant"):
        code = code_of(agent(machine, "bob", "once", "time"))
        with logged_in(machine, "bob") as terminal:
            got, shown = terminal.run(f"attestctl approve {code} {EVERYTHING}", password="wrong")
            expect(got == 4, shown)
        expect(not agent(machine, "bob", "once", "time")["ok"], "a grant was made")
    with report.check("another user's password and code decide nothing for bob"):
        code = code_of(agent(machine, "bob", "once", "time"))
        with logged_in(machine, "alice") as terminal:
            got, shown = terminal.run(f"attestctl approve {code} {EVERYTHING}")
            expect(got != 0, shown)
        expect(not agent(machine, "bob", "once", "time")["ok"], "a grant was made")


def _calling(machine: Machine, report: Report) -> None:
    with report.check("three users call a real MCP server, each with a grant of its own"):
        for user in USERS:
            grant(machine, user, "time")
            seen = agent(machine, user, "once", "time")
            expect(seen["ok"] and "UTC" in str(seen["text"]), f"{user}: {seen}")
    with report.check("a server runs as its caller, with no privilege, clean environment and its own cgroup"):
        for user in ("alice", "bob"):
            grant(machine, user, "echo")
            told = agent(machine, user, "once", "echo", tool="where")
            expect(told["ok"], str(told))
            where = json.loads(str(told["text"]))
            expect(str(where["uid"]) == machine.out("id", "--user", user), f"{user}: {where}")
            expect(where["no_new_privs"] == 1 and int(where["cap_bnd"], 16) == 0, str(where))
            expect(set(where["fds"]) <= {0, 1, 2, 3}, f"open: {where['fds']}")
            expect("attestd-launcher.service/" in where["cgroup"], str(where))
            expect(not [name for name in where["env"] if name.startswith(("LD_", "PYTHON", "NOTIFY"))], str(where))


def _separate(machine: Machine, report: Report) -> None:
    with report.check("sessions, codes, grants and records of one user are not another's to see"):
        agent(machine, "carol", "once", "echo")  # refused: a code waits
        uids = {user: int(machine.out("id", "--user", user)) for user in USERS}
        with holding(machine, "alice", "echo"), holding(machine, "bob", "echo"):
            for user in USERS:
                for words in LISTS:
                    shown = machine.out("attestctl", *words, "--json", user=user)
                    for other in set(USERS) - {user}:
                        expect(f"/uid/{uids[other]}/" not in shown, f"{user} sees {other} in {' '.join(words)}")
            everybody = machine.out("attestctl", "--all-users", "ps", "--json")
            for user in ("alice", "bob"):
                expect(f"/uid/{uids[user]}/" in everybody, f"root does not see the session of {user}")
    with report.check("a user cannot revoke another's grant"):
        found = machine.json("attestctl", "--all-users", "grants", "list", "--json")
        mine = machine.json("attestctl", "grants", "list", "--json", user="bob")
        others = {str(each["id"]) for each in found} - {str(each["id"]) for each in mine}
        expect(others, "nobody else has a grant")
        for each in sorted(others):
            got = machine.run("attestctl", "grants", "revoke", each, user="bob", check=False)
            expect(got.returncode != 0, f"bob revoked {each}")
        expect(agent(machine, "alice", "once", "echo")["ok"], "the grant is gone")


def _managing(machine: Machine, report: Report) -> None:
    with report.check("decisions about everybody need an administrator"):
        for words in (("--all-users", "ps"), ("servers", "remove", "echo"), ("reload",)):
            got = machine.run("attestctl", *words, user="bob", check=False)
            expect(got.returncode == 4, f"{' '.join(words)} as bob ended with {got.returncode}: {got.stderr}")
        machine.run("usermod", "--append", "--groups", "sudo", "carol")
        with logged_in(machine, "carol") as terminal:
            got, shown = terminal.run("attestctl --all-users ps", password=PASSWORD.format(user="carol"))
            expect(got == 0, shown)
        machine.run("gpasswd", "--delete", "carol", "sudo")
