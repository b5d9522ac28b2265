"""What was installed: by apt alone, in root's hands, with the privileges that the units state and no others."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.system.machine import Machine
from tests.system.report import Report, expect
from tests.system.stage import AGENT, Seen, agent, grant

CAPABILITIES = (1 << 19) | (1 << 2)
"""CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH."""
EXPOSURE = 2.0
RESIDENT_MIB = 80
FIRST_CALL_S = 1.0
TRIES = 5
UNITS = ("attestd-recorder.service", "attestd-launcher.service")


def check(machine: Machine, report: Report, said: str) -> None:
    """Everything of this file. ``said``: what apt said."""
    with report.check("apt installs the package on a minimal Debian, with its dependencies and no network"):
        expect("Setting up attestd" in said and "Setting up python3" in said, said[-1500:])
        state = machine.systemctl("is-system-running", check=False).stdout.strip()
        failed = machine.systemctl("--failed", "--plain", "--no-legend").stdout
        expect("attestd" not in failed, f"{state}: {failed}")
    with report.check("what was installed is what was packed, and nobody but root may write it"):
        expect(machine.out("dpkg", "--verify", "attestd") == "", "dpkg --verify names changed files")
        loose = machine.out(
            "find", "/usr/lib/attestd", "/usr/share/attestd", "/etc/attestd", "(", "-not", "-user", "root",
            "-o", "-not", "-type", "l", "-perm", "/022", ")",
        )  # fmt: skip
        expect(loose == "", f"not only root's: {loose[:500]}")
        made = machine.out("stat", "--format=%U:%a", "/var/lib/attestd", "/run/attestd", "/run/attestd/mcp")
        expect(made.split() == ["attestd:700", "attestd:755", "attestd:711"], made)
    _privileges(machine, report)
    _exposure(machine, report)
    _activation(machine, report)
    _figures(machine, report)
    _user_instance(machine, report)


def _privileges(machine: Machine, report: Report) -> None:
    with report.check("the daemon runs as attestd with exactly CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"):
        status = machine.out("cat", f"/proc/{machine.main_pid()}/status")
        found = dict(re.findall(r"^(\w+):\s+(.*)$", status, re.MULTILINE))
        uid = machine.out("id", "--user", "attestd")
        expect(found["Uid"].split() == [uid] * 4, f"Uid {found['Uid']}, expected {uid}")
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            expect(int(found[kind], 16) == CAPABILITIES, f"{kind} {found[kind]}, expected {CAPABILITIES:x}")
        expect(found["NoNewPrivs"] == "1" and found["Seccomp"] == "2", "no_new_privs and a system call filter")


def _exposure(machine: Machine, report: Report) -> None:
    with report.check(f"systemd-analyze security puts the daemon's exposure at {EXPOSURE} or less") as figures:
        scores = {unit: _score(machine, unit) for unit in ("attestd.service", *UNITS)}
        figures += [f"{unit} {score}" for unit, score in scores.items()]
        expect(scores["attestd.service"] <= EXPOSURE, f"got {scores['attestd.service']}")


def _score(machine: Machine, unit: str) -> float:
    said = machine.out("systemd-analyze", "security", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    if found is None:
        raise AssertionError(f"no score in: {said[-300:]}")
    return float(found[1])


def _activation(machine: Machine, report: Report) -> None:
    with report.check("a connection to the control socket starts the service"):
        machine.systemctl("stop", "attestd.service")
        expect(machine.main_pid() == 0, "the service still runs")
        expect(machine.path("/run/attestd/control.sock").is_socket(), "the socket went with the service")
        status = machine.json("attestctl", "status", "--json", user="alice")[0]
        expect(status["mode"] == "system" and status["pid"] == machine.main_pid() != 0, str(status))
    with report.check("the shim starts the service too, where the server's own socket is not there yet"):
        machine.systemctl("stop", "attestd.service")
        machine.run("find", "/run/attestd/mcp", "-type", "s", "-delete")
        seen = agent(machine, "alice", "once", "time")
        expect("no grant" in str(seen["text"]), str(seen))


def _figures(machine: Machine, report: Report) -> None:
    with report.check(f"the idle daemon keeps at most {RESIDENT_MIB} MiB resident") as figures:
        machine.systemctl("restart", "attestd.service")
        machine.out("attestctl", "status")
        status = machine.out("cat", f"/proc/{machine.main_pid()}/status")
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        resident = int(found[1]) / 1024 if found else float("inf")
        figures.append(f"{resident:.1f} MiB")
        expect(resident <= RESIDENT_MIB, f"got {resident:.1f} MiB")
    with report.check("a service that is stopped serves its first call after it is started") as figures:
        grant(machine, "alice", "echo")
        best = float("inf")
        with waiting(machine, "alice", "echo") as client:
            for _ in range(TRIES):
                machine.systemctl("stop", "attestd.service")
                began = time.monotonic()
                machine.systemctl("start", "attestd.service")
                seen = client()
                best = min(best, time.monotonic() - began)
                expect(seen["ok"], str(seen))
        load = Path("/proc/loadavg").read_text(encoding="ascii").split()[0]
        figures.append(f"best of {TRIES}: {best:.2f} s, target {FIRST_CALL_S:g} s, load average here {load}")


@contextlib.contextmanager
def waiting(machine: Machine, user: str, server: str) -> Iterator[Callable[[], Seen]]:
    """A client that runs already; each call begins a session, with a shim and a server of its own."""
    process = machine.start(AGENT, "when", server, "echo", "{}", user=user)
    reads, writes = process.stdout, process.stdin
    if reads is None or writes is None or not reads.readline():
        raise AssertionError(f"the client did not start: {process.communicate(timeout=20)[1][-500:]}")

    def call() -> Seen:
        writes.write("\n")
        writes.flush()
        seen: Seen = json.loads(reads.readline())
        return seen

    try:
        yield call
    finally:
        process.communicate(timeout=60)


def _user_instance(machine: Machine, report: Report) -> None:
    with report.check("a user's own instance runs under the user's manager: systemctl --user enable --now attestd"):
        uid = machine.out("id", "--user", "carol")
        machine.systemctl("start", f"user@{uid}.service")
        bus = f"XDG_RUNTIME_DIR=/run/user/{uid}"
        systemctl = ("env", bus, "systemctl", "--user")
        machine.out(*systemctl, "enable", "--now", "attestd.service", user="carol")
        status = machine.json("env", bus, "attestctl", "status", "--json", user="carol")[0]
        expect(status["mode"] == "user", str(status))
        machine.out(*systemctl, "reload", "attestd.service", user="carol")
        machine.out(*systemctl, "disable", "--now", "attestd.service", user="carol")
        machine.systemctl("stop", f"user@{uid}.service")
