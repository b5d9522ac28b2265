"""Servers that a user registers for himself alone: only where the administrator lets users, and nobody else's affair."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator

from tests.system.machine import Machine
from tests.system.report import Report, expect, until
from tests.system.stage import ATTACKER, PASSWORD, agent, cause_of, configured, grant, records
from tests.system.terminal import Terminal
from tests.system.users import holding, logged_in

ALLOWED = "\n[servers]\nusers_may_add = true\n"
PLACE = "/srv/alice"
SOCKET = f"{PLACE}/notes.sock"
"""Where the service can see it, and of the other users none: in the user's own hands, by the administrator's leave."""
HOME = "/home/alice/notes.sock"
"""Where it cannot."""
URL = "http://127.0.0.1:7500/mcp"
ADD = f"servers add notes --own --transport unix --path {SOCKET}"
LOOKS = (
    ("servers", "list"), ("ps",), ("pending",), ("grants", "list", "--all"), ("audit", "query"), ("status",), ("doctor",),
)  # fmt: skip


def check(machine: Machine, report: Report) -> None:
    """Everything of this file."""
    machine.run("install", "--directory", "--owner=alice", "--mode=0700", PLACE)
    with report.check("a user registers no server of his own where the administrator does not let users: exit code 4"):
        _refused(machine, "alice", ADD, 4, "this attestd does not let users add servers")
        expect(_gone(machine, "alice"), "it is served")
    with _served(machine), configured(machine, ALLOWED):
        _own(machine, report)
        _elsewhere(machine, report)
        _others(machine, report)
        _rules(machine, report)
        _taken_back(machine, report)


def _own(machine: Machine, report: Report) -> None:
    with report.check("users_may_add: a user registers a server that he runs himself, approves, and is served by it"):
        _typed(machine, "alice", ADD)
        uid = machine.out("id", "--user", "alice")
        shown = machine.json("attestctl", "servers", "show", "notes", "--json", user="alice")[0]
        expect(shown["name"] == f"notes@{uid}" and str(shown["owner"]) == uid, str(shown))
        expect(cause_of(agent(machine, "alice", "once", "notes")) == "no_grant", "it is served without a grant")
        grant(machine, "alice", "notes")
        told = agent(machine, "alice", "once", "notes", tool="where")
        expect(told["ok"] and str(json.loads(str(told["text"]))["uid"]) == uid, f"as alice: {told}")


def _elsewhere(machine: Machine, report: Report) -> None:
    with report.check("a user's own server may be on a port, and a socket that the service cannot see is said so"):
        _typed(machine, "alice", f"servers add web --own --url {URL}")
        grant(machine, "alice", "web")
        told = agent(machine, "alice", "once", "web")
        expect(told["ok"], f"over a port: {told}")
        machine.run("ln", SOCKET, HOME)
        _typed(machine, "alice", f"servers add home --own --transport unix --path {HOME}")
        grant(machine, "alice", "home")
        told = agent(machine, "alice", "once", "home", tool="echo")
        expect(
            cause_of(told) == "server_unavailable" and "sees it" in str(told["text"]), f"in a home directory: {told}"
        )
        for name in ("web", "home"):
            _typed(machine, "alice", f"servers remove {name}")


def _others(machine: Machine, report: Report) -> None:
    alice, bob = (machine.out("id", "--user", user) for user in ("alice", "bob"))
    whole = f"notes@{alice}"
    with report.check("what a user registered for himself is not there for another: lists, records, explain, names"):
        for words in LOOKS:
            told = machine.run("attestctl", *words, "--json", user="bob", check=False).stdout
            expect("notes" not in told and f"/uid/{alice}/" not in told, f"{' '.join(words)} tells bob: {told}")
        mine = machine.json("attestctl", "audit", "query", "--json", "--server", whole, user="alice")
        decisions = [str(each["id"]) for each in mine if each["kind"] == "decision"]
        expect(decisions, f"no decision is on record: {mine}")
        never = {"explain": "bbbbbbbbbbbb.9", "servers show": f"nothing@{alice}", "why --server": f"nothing@{alice}"}
        hers = {"explain": decisions[-1], "servers show": whole, "why --server": whole}
        for words, name in hers.items():
            got = machine.run("attestctl", *words.split(), name, user="bob", check=False)
            none = machine.run("attestctl", *words.split(), never[words], user="bob", check=False)
            expect(got.returncode == none.returncode == 9, f"{words} as bob ended with {got.returncode}: {got}")
            expect(got.stderr.replace(name, "X") == none.stderr.replace(never[words], "X"), f"{words}: {got.stderr}")
            machine.run("attestctl", *words.split(), name, user="alice")
    with report.check("another user does not reach it: by name, by attestd's socket, or by the server's own"):
        unknown = str(agent(machine, "bob", "once", "nothing", tool="echo")["text"])
        said = str(agent(machine, "bob", "once", "notes", tool="echo")["text"])
        expect(said.replace("notes", "X") == unknown.replace("nothing", "X"), f"bob is told more of notes: {said}")
        asked = machine.out(ATTACKER, "ask", f"/run/attestd/mcp/{alice}/notes.sock", user="bob")
        expect(json.loads(asked)["data"] == {"cause": "ended"}, f"bob is told more than the end: {asked}")
        refused = records(machine, "--server", whole, "--cause", "not_found")
        expect([str(each["uid"]) for each in refused] == [bob], f"on record: {refused}")
        expect(machine.run("test", "-e", SOCKET, user="bob", check=False).returncode == 1, "bob sees the socket")


def _rules(machine: Machine, report: Report) -> None:
    with report.check("a user's own server is none that attestd starts, shares, or reads a file for"):
        for more in ("-- /opt/mcp/bin/echo", f"--transport unix --path {SOCKET} --shared"):
            _refused(machine, "alice", f"servers add more --own {more}", 3, "expected")
        url = "--url http://127.0.0.1:7500/mcp --token-file /etc/hostname"
        _refused(machine, "alice", f"servers add more --own {url}", 3, "the daemon would read it with its own rights")
    with report.check("a name that root registered for everybody is not to be had, nor a server for everybody"):
        add = f"--transport unix --path {SOCKET}"
        _refused(machine, "alice", f"servers add echo --own {add}", 3, "there is one of that name")
        _refused(machine, "alice", f"servers add more {add}", 4, "polkit does not authorize it")
        expect(agent(machine, "alice", "once", "echo")["ok"], "everybody's echo is not served to alice")
    with report.check("who registers another user's server for himself gets not one byte through it: it must be his"):
        _typed(machine, "bob", f"servers add deputy --own --transport unix --path {SOCKET}")
        grant(machine, "bob", "deputy")
        told = agent(machine, "bob", "once", "deputy", tool="echo")
        expect(cause_of(told) == "server_untrusted", f"bob is served by alice's server: {told}")
        _typed(machine, "bob", "servers remove deputy")


def _taken_back(machine: Machine, report: Report) -> None:
    uid = machine.out("id", "--user", "alice")
    kept = machine.path(f"/var/lib/attestd/servers/{uid}/notes.toml")
    with report.check("the administrator takes it back: sessions end, the server is gone, what was registered is kept"):
        with holding(machine, "alice", "notes") as client:
            with configured(machine, "", instead_of=ALLOWED):
                ended = _called(client)
                expect(not ended["ok"], f"the session goes on: {ended}")
                told = records(machine, "--server", f"notes@{uid}", "--cause", "shutting_down")
                expect(told, "no session was told why")
                expect(_gone(machine, "alice") and kept.exists(), "it is still served, or forgotten")
                _refused(machine, "alice", ADD, 4, "this attestd does not let users add servers")
            until(lambda: not _gone(machine, "alice"), "it is there again")
        expect(agent(machine, "alice", "once", "notes", tool="echo")["ok"], "allowed again, its grant does not count")
    with report.check("a user removes his own server, for good"):
        _typed(machine, "alice", "servers remove notes")
        expect(_gone(machine, "alice") and not kept.exists(), "it is still there")


@contextlib.contextmanager
def _served(machine: Machine) -> Iterator[None]:
    """Alice's server runs meanwhile, on her socket and on a port."""
    units = {"notes": ("--unix", SOCKET), "web": ("--http", URL.rpartition(":")[2].partition("/")[0])}
    for unit, where in units.items():
        run = ("systemd-run", "--quiet", "--uid=alice", "--collect", f"--unit={unit}", "/opt/mcp/bin/echo", *where)
        machine.run(*run)
    try:
        until(machine.path(SOCKET).is_socket, "alice's server listens")
        yield
    finally:
        machine.systemctl("stop", *(f"{unit}.service" for unit in units))


def _typed(machine: Machine, user: str, words: str) -> None:
    """A user's own command, with the password when it is asked for. Raises AssertionError: it did not work."""
    code, shown = _said(machine, user, words)
    expect(code == 0, shown)


def _refused(machine: Machine, user: str, words: str, wanted: int, text: str) -> None:
    """Such a command ends with this exit code and says this."""
    code, shown = _said(machine, user, words)
    expect(code == wanted and text in shown, f"{words} as {user} ended with {code}, expected {wanted}: {shown}")


def _said(machine: Machine, user: str, words: str) -> tuple[int, str]:
    with logged_in(machine, user) as terminal:
        return _run(terminal, user, f"attestctl {words}")


def _run(terminal: Terminal, user: str, command: str) -> tuple[int, str]:
    code, shown = terminal.run(command, password=PASSWORD.format(user=user))
    return code, " ".join(shown.split())


def _gone(machine: Machine, user: str) -> bool:
    """Whether the user has no server of his own."""
    listed = machine.json("attestctl", "servers", "list", "--json", user=user)
    return not [each for each in listed if each["owner"] is not None]


def _called(client: subprocess.Popen[str]) -> dict[str, object]:
    """One more call of a session that is held."""
    if client.stdin is None or client.stdout is None:
        raise AssertionError("the client has no pipes")
    client.stdin.write("\n")
    client.stdin.flush()
    found: dict[str, object] = json.loads(client.stdout.readline())
    return found
