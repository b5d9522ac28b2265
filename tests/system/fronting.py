"""The loopback port by socket activation: a real SDK client over Streamable HTTP on the installed system."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from tests.system.machine import Machine
from tests.system.report import Report, expect, until
from tests.system.stage import CONFIG, CTL, TERMS, WEB, Seen, cause_of, code_of, records

PORT = 7411
"""That of ``attestd-http.socket``."""
UNIT = "attestd-http.socket"
URL = f"http://127.0.0.1:{PORT}/echo/mcp"
OTHER = "/home/alice/other.py"
"""The same client as another program."""
RESTARTS = 3


def check(machine: Machine, report: Report) -> None:
    """Everything of this file."""
    with _opened(machine):
        _activated(machine, report)
        _programs(machine, report)
        _restarted(machine, report)
    with report.check("the port is closed with its socket unit, and the service starts without it"):
        expect(not _listening(machine), "somebody listens")
        expect(machine.main_pid() != 0, "the service does not run")


@contextlib.contextmanager
def _opened(machine: Machine) -> Iterator[None]:
    """As the operations guide says; undone at the end."""
    before = machine.path(CONFIG).read_text()
    machine.path(CONFIG).write_text(f"{before}\n[listen]\nport = {PORT}\n")
    try:
        machine.systemctl("enable", UNIT)
        machine.systemctl("stop", "attestd.service")
        machine.systemctl("start", UNIT)
        yield
    finally:
        machine.path(CONFIG).write_text(before)
        machine.systemctl("disable", "--now", UNIT, check=False)
        machine.systemctl("restart", "attestd.service")


def _once(machine: Machine, user: str, url: str = URL, program: str = WEB) -> Seen:
    """One call of the SDK's client."""
    words = (program, "once", url, "echo", json.dumps({"said": "over http"}))
    done = machine.run(*words, user=user, check=False, shell=True)
    expect(done.stdout.strip(), f"{program} said nothing: {done.stderr[-1500:]}")
    seen: Seen = json.loads(done.stdout.splitlines()[-1])
    return seen


def _activated(machine: Machine, report: Report) -> None:
    with report.check("HTTP: a connection to the loopback port starts the service, and an unknown client is refused"):
        expect(machine.main_pid() == 0, "the service ran before anybody connected")
        seen = _once(machine, "alice")
        expect(cause_of(seen) == "no_grant", f"got {seen}")
        expect(machine.main_pid() != 0, "the service does not run")
        held = machine.walked("ls", "-l", "/proc/1/fd")
        inodes = _listening(machine)
        expect(len(inodes) == 2, f"{len(inodes)} sockets listen, expected one for each loopback address")
        expect(all(f"socket:[{each}]" in held for each in inodes), "the manager does not hold the port")


def _listening(machine: Machine) -> list[str]:
    """Inodes of the sockets that listen on the port."""
    lines = machine.out("cat", "/proc/net/tcp", "/proc/net/tcp6").splitlines()
    fields = [line.split() for line in lines]
    return [each[9] for each in fields if each[1].endswith(f":{PORT:04X}") and each[3] == "0A"]


def _programs(machine: Machine, report: Report) -> None:
    with report.check(
        "HTTP: a granted SDK client is served over Streamable HTTP, on both loopback addresses, as its user"
    ):
        machine.run(*CTL, "approve", code_of(_once(machine, "alice")), *TERMS, "--yes")
        for url in (URL, f"http://[::1]:{PORT}/echo/mcp"):
            seen = _once(machine, "alice", url)
            expect(seen["ok"] and "over http" in str(seen["text"]), f"{url}: {seen}")
        uid = int(machine.out("id", "--user", "alice"))
        last = records(machine, "--server", "echo", "--method", "tools/call", "--verdict", "permit")[-1]
        expect(last["uid"] == uid, f"the call is on record as {last}")
    with report.check("HTTP: another program of the same user, and the same program of another user, are refused"):
        machine.write(OTHER, machine.path(WEB).read_text() + "# another\n", 0o755)
        for user, program in (("alice", OTHER), ("bob", WEB)):
            seen = _once(machine, user, program=program)
            expect(cause_of(seen) == "no_grant", f"{program} of {user}: {seen}")
        expect(_once(machine, "alice")["ok"], "the granted one is not served any more")


def _restarted(machine: Machine, report: Report) -> None:
    with report.check(
        "HTTP: restarts under load: the manager holds the port, no connection is refused, the client goes on"
    ) as figures:
        words = (WEB, "load", URL, "echo", json.dumps({"said": "hello"}))
        process = machine.start(*words, user="alice")
        try:
            for _ in range(RESTARTS):
                _calling(machine)
                machine.systemctl("restart", "attestd.service")
            _calling(machine)
        finally:
            out, err = process.communicate(timeout=120)
        expect(out.strip(), f"the client said nothing: {err[-1500:]}")
        seen = json.loads(out.splitlines()[-1])
        figures += [f"{seen['calls']} calls", f"{seen['sessions']} sessions", f"longest {seen['longest_s']} s"]
        expect(seen["lost"] == 0 and seen["sessions"] > RESTARTS, f"{seen}")
    with report.check("HTTP: who connects while the service is stopped starts it, and is served"):
        machine.systemctl("stop", "attestd.service")
        expect(_once(machine, "alice")["ok"], "the call is not served")


def _calling(machine: Machine) -> None:
    """Wait until the client has had another call served."""
    before = _permitted(machine)
    until(lambda: _permitted(machine) > before, "another call over HTTP")


def _permitted(machine: Machine) -> int:
    return len(records(machine, "--server", "echo", "--method", "tools/call", "--verdict", "permit"))
