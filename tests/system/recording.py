"""The kernel recorder of the installed system, in a virtual machine: its unit, its sandbox, its reader, its end.

Not in the container, whatever it is allowed: the daemon there says ``this daemon is in a pid namespace of its own``, since the
recorder names processes as the first one does, and what is loaded from a container is loaded into the host's kernel.
"""

from __future__ import annotations

import json
import time

from tests.system import attacking, virtual
from tests.system.machine import Machine
from tests.system.report import Report, expect, until
from tests.system.stage import BPF, Seen, agent, grant

UNIT = "attestd-recorder.service"
PINS = "/sys/fs/bpf"
LEVEL = 2
"""Of a script of root's that no package has: what recorded words and images make possible."""
SLEEP = "sleep 3601"
ORPHAN = f"setsid sh -c '{SLEEP} &' && exec sleep 3602"
"""A process whose parent has exited."""


def check(contained: Machine, report: Report) -> None:
    """Everything of this file. ``contained``: the installed system in its container."""
    began = time.monotonic()
    with report.check("a virtual machine boots the installed system, on a kernel of its own") as figures:
        with virtual.booted(contained.source) as machine:
            figures += [machine.out("uname", "--kernel-release"), f"{time.monotonic() - began:.0f} s"]
            report.trouble = lambda: machine.journal("attestd*")
            _loaded(machine, report)
            _levels(machine, report, contained)
            _restarted(machine, report)
            attacking.clock_set_back(machine, report)
            _unloaded(machine, report)
        report.trouble = lambda: contained.journal("attestd*")


def _state(machine: Machine) -> str:
    """What the daemon says of the recorder, in a word."""
    recorder = machine.json("attestctl", "status", "--json")[0]["recorder"]
    return str(recorder["state"]) if isinstance(recorder, dict) else ""


def _inspected(machine: Machine, user: str) -> Seen:
    """What attestctl of a user is taken for."""
    shown = machine.run("attestctl", "inspect", "--self", "--json", user=user, shell=True, seconds=120).stdout
    found: Seen = json.loads(shown)
    return found


def _level(seen: Seen) -> int:
    identity = seen["identity"]
    return int(str(identity["level"])) if isinstance(identity, dict) else -1


def _recorded(seen: Seen) -> list[bool]:
    """Of each link below the edge."""
    chain = seen["chain"]
    return [bool(link["recorded"]) for link in chain if link["class"] != "edge"] if isinstance(chain, list) else []


def _pinned(machine: Machine) -> set[str]:
    """Programs and maps that are pinned, by the names that the kernel shows."""
    names = machine.out("find", f"{PINS}/attestd/current", "-type", "f", "-printf", "%f\n").split()
    programs = {f"program:{name.removeprefix('program_')}" for name in names if name.startswith("program_")}
    maps = {f"map:{name[:15]}" for name in names if not name.startswith(("program_", "link_"))}
    return programs | maps


def _loaded_names(machine: Machine) -> set[str]:
    """Of all programs and maps in the kernel."""
    return set(machine.out(BPF).split())


def _loaded(machine: Machine, report: Report) -> None:
    with report.check(
        "attestd-recorder.service loads the recorder within its sandbox, and the daemon reads it with two capabilities"
    ) as figures:
        failed = machine.systemctl("--failed", "--plain", "--no-legend").stdout
        expect("attestd" not in failed, f"failed: {failed}\n{machine.journal(UNIT)}")
        expect(machine.shown(UNIT, "ActiveState") == "active" and machine.main_pid(UNIT) == 0, "it has not exited")
        until(lambda: _state(machine) == "on", f"the daemon reads it: {machine.out('attestctl', 'status')}")
        figures += [line for line in machine.journal(UNIT).splitlines() if "without" in line or " ms" in line]
        figures[:] = [line.split("]: ")[-1].strip() for line in figures]
        for path in machine.out("find", PINS, "-mindepth", "1", "-printf", "%U:%g:%m %p\n").splitlines():
            owner, _, mode = path.split()[0].rpartition(":")
            expect(owner == "0:attestd" and int(mode, 8) & 0o007 == 0, f"not root's and the daemon's alone: {path}")


def _levels(machine: Machine, report: Report, contained: Machine) -> None:
    with report.check("with the recorder each process that was started since is recorded, and levels rise") as figures:
        before, now = _inspected(contained, "alice"), _inspected(machine, "alice")
        figures += [f"attestctl: level {_level(before)} in the container, {_level(now)} here"]
        expect(not any(_recorded(before)) and _level(before) == 1, f"in the container: {before}")
        links = _recorded(now)
        expect(links and all(links) and _level(now) == 3, f"here: {now}")
    with report.check("a client has the level that the recorder makes possible, and is served when it is approved"):
        refused = agent(machine, "bob", "once", "soak")
        data = refused["data"]
        caller = data["caller"] if isinstance(data, dict) else {}
        expect(caller["level"] == LEVEL, str(refused))
        grant(machine, "bob", "soak")
        seen = agent(machine, "bob", "once", "soak")
        expect(seen["ok"], str(seen))


def _restarted(machine: Machine, report: Report) -> None:
    with report.check("a restart of the daemon and a reload of the recorder lose nothing of what the kernel recorded"):
        machine.run("systemd-run", "--quiet", "--uid=alice", "--collect", "--unit=orphan", "sh", "-c", ORPHAN)
        until(lambda: _orphan(machine) != "", "the orphan runs")
        pid = _orphan(machine)
        before = _chain(machine, pid)
        expect(any(dead for *_, dead in before), f"no parent that has exited is known: {before}")
        expect(all(recorded for _, recorded, _ in before), f"not all of it is recorded: {before}")
        machine.systemctl("restart", "attestd.service", seconds=180)
        after = _chain(machine, pid)
        expect(after == before, f"before: {before}\nafter: {after}")
        machine.systemctl("reload", UNIT, seconds=180)  # as an upgrade does
        expect(_chain(machine, pid) == before, "a reload of the recorder forgets")
        machine.systemctl("stop", "orphan.service")


def _orphan(machine: Machine) -> str:
    return machine.run("pgrep", "--full", "--exact", SLEEP, check=False).stdout.strip()


def _chain(machine: Machine, pid: str) -> list[tuple[int, bool, bool]]:
    """Of each link below the edge: its pid, whether it is recorded, whether it has exited."""
    seen = machine.json("attestctl", "inspect", "--pid", pid, "--json", user="alice")[0]["chain"]
    links = [link for link in seen if link["class"] != "edge"] if isinstance(seen, list) else []
    return [(int(link["pid"]), bool(link["recorded"]), bool(link["dead"])) for link in links]


def _unloaded(machine: Machine, report: Report) -> None:
    with report.check("a stop of the unit leaves nothing in the kernel, and levels fall without a restart") as figures:
        ours = _pinned(machine)
        expect(ours and ours <= _loaded_names(machine), f"not all of {ours} is in the kernel")
        figures.append(f"{len(ours)} programs and maps")
        machine.systemctl("stop", UNIT)
        left = machine.out("find", PINS, "-mindepth", "1")
        expect(left == "", f"pinned: {left}")
        until(lambda: _state(machine) != "on", "the daemon notices")
        until(lambda: not ours & _loaded_names(machine), "programs and maps are gone from the kernel")
        seen = _inspected(machine, "alice")
        expect(not any(_recorded(seen)) and _level(seen) == 1, str(seen))
    with report.check("started again it is read without a restart of the daemon"):
        first = machine.main_pid()
        machine.systemctl("start", UNIT, seconds=180)
        until(lambda: _state(machine) == "on", "the daemon reads it")
        seen = _inspected(machine, "alice")
        expect(_recorded(seen) and all(_recorded(seen)) and _level(seen) == 3, str(seen))
        expect(machine.main_pid() == first, "the daemon was restarted")
