"""What a started server is kept from: files, network, more than its memory; and what its kernel must have for that.

In the container these are what the kernel of the machine around allows. So the same is shown in a virtual machine, whose kernel,
that of the suite's backports, has the Landlock and the cgroup controllers that it takes.
"""

from __future__ import annotations

import json
import shlex
import time

from tests.system import virtual
from tests.system.machine import Machine
from tests.system.report import Report, expect, until
from tests.system.stage import AGENT, MEMORY_MIB, OPEN, WRITABLE, Seen, agent, cause_of, grant

READS = {"list", "read"}
"""Of what can be done to files."""
NO_LANDLOCK = "it needs Landlock of Linux 6.2"
NO_CONTROLLER = "limits.memory_mib needs a cgroup"
SERVICES = ("attestd.service", "attestd-launcher.service")
CALLING = """
mkfifo --mode=666 /run/go
{bob} <<< {load} > /run/bob &
until pgrep --uid bob --full /opt/mcp/bin/echo; do sleep 0.1; done > /run/servers
{alice} <<< {hog} > /run/alice
{alice} <<< {again} > /run/again
echo > /run/go
wait
pgrep --uid bob --full /opt/mcp/bin/echo > /run/left || true
cat /run/alice /run/again /run/bob
"""
"""Bob's calls without a pause go on until he is told; meanwhile alice's server takes too much, and she calls again."""


def check(contained: Machine, report: Report) -> None:
    """Everything of this file that needs a kernel of its own. ``contained``: the installed system in its container."""
    began = time.monotonic()
    with report.check("a virtual machine boots the installed system on the newer kernel of the backports") as figures:
        with virtual.booted(contained.source, "-backports") as machine:
            figures += [machine.out("uname", "--kernel-release"), f"{time.monotonic() - began:.0f} s"]
            report.trouble = lambda: machine.journal("attestd*")
            with report.check(
                "read_only holds: a started server reads, and changes nothing but below its writable"
            ) as said:
                said.extend(kept_files(machine))
                expect(said, "this kernel has no Landlock of 6.2")
            with report.check("network = false holds: a started server does not even reach this machine's own address"):
                kept_network(machine)
            _memory(machine, report)
        report.trouble = lambda: contained.journal("attestd*")


def kept_files(machine: Machine) -> list[str]:
    """What a read-only server was refused; nothing: it is not started, for this kernel cannot. Raises AssertionError."""
    grant(machine, "alice", "kept")
    told = agent(machine, "alice", "once", "kept")
    if not told["ok"]:
        expect(cause_of(told) == "server_unavailable" and NO_LANDLOCK in str(told["text"]), str(told))
        return []
    free, within, kept = (_tried(machine, *where) for where in (("echo", OPEN), ("kept", WRITABLE), ("kept", OPEN)))
    for who, came in (("without read_only", free), ("below writable", within)):
        expect(not any(came.values()), f"{who} not everything works, so that it shows nothing: {came}")
    expect({name for name, why in kept.items() if not why} == READS, f"what works, and why the rest does not: {kept}")
    refused = {name: why for name, why in kept.items() if why}
    expect(set(refused.values()) == {"Permission denied"}, f"refused for other reasons: {refused}")
    return [f"cannot {', '.join(refused)}"]


def _tried(machine: Machine, server: str, place: str) -> dict[str, str]:
    """Of each thing that can be done to files there, why it does not work; empty: it does."""
    grant(machine, "alice", server)
    told = agent(machine, "alice", "once", server, tool="files", place=place)
    expect(told["ok"], str(told))
    came: dict[str, str] = json.loads(str(told["text"]))
    return came


def kept_network(machine: Machine) -> None:
    """Raises AssertionError if ``network = false`` keeps a server from nothing, or nothing keeps the other one."""
    reached = {}
    for server in ("echo", "alone"):
        grant(machine, "alice", server)
        told = agent(machine, "alice", "once", server, tool="where")
        expect(told["ok"], str(told))
        reached[server] = json.loads(str(told["text"]))["loopback"]
    expect(reached == {"echo": True, "alone": False}, f"reaches loopback: {reached}")


def kept_memory(machine: Machine) -> str:
    """What a server with a memory limit says here; empty: it is not started without the controller. Raises AssertionError."""
    grant(machine, "alice", "frugal")
    told = agent(machine, "alice", "once", "frugal")
    if told["ok"]:
        return str(told["text"])
    expect(cause_of(told) == "server_unavailable" and NO_CONTROLLER in str(told["text"]), str(told))
    return ""


def _memory(machine: Machine, report: Report) -> None:
    with report.check(
        "memory_mib: a server that takes more is ended with all it started, its caller is told, and others go on"
    ) as figures:
        expect(kept_memory(machine), "this system has no memory controller")
        grant(machine, "bob", "frugal")
        before = [machine.main_pid(unit) for unit in SERVICES]
        hogged, again, load = _called(machine)
        expect(cause_of(hogged) == "server_unavailable", f"alice, whose server took too much: {hogged}")
        expect("the server was killed by SIGKILL" in str(hogged["text"]), f"she is not told why: {hogged}")
        figures += [f"alice is told: {hogged['text']}", f"bob made {load['calls']} calls"]
        expect(again["ok"], f"alice, with another server: {again}")
        expect((load["lost"], load["sessions"]) == (0, 1) and int(str(load["calls"])) > 0, f"bob was disturbed: {load}")
        killed = machine.out("journalctl", "--quiet", "--no-pager", "--dmesg", "--grep=Memory cgroup out of memory")
        expect(
            "/server-" in machine.out("journalctl", "--quiet", "--no-pager", "--dmesg"), f"no server's cgroup: {killed}"
        )
        expect(before == [machine.main_pid(unit) for unit in SERVICES], "the daemon or the launcher was restarted")
        until(lambda: not _cgroups(machine), "the cgroups of the servers are gone")


def _called(machine: Machine) -> list[Seen]:
    """What alice's greedy call came to, her next one, and bob's calls meanwhile; all in one command."""
    mib = {"mib": 3 * MEMORY_MIB}
    words = {
        "hog": (AGENT, "once", "frugal", "hog", json.dumps(mib)),
        "again": (AGENT, "once", "frugal", "echo", "{}"),
        "load": (AGENT, "load", "frugal", "echo", "{}"),
    }
    typed = {name: shlex.quote(f"{shlex.join(each)}; exit $?") for name, each in words.items()}
    typed["load"] = shlex.quote(f"{shlex.join(words['load'])} 0<>/run/go; exit $?")
    users = {user: shlex.join(machine.unit(user, "bash")) for user in ("alice", "bob")}
    done = machine.run("bash", "-c", CALLING.format(**typed, **users), seconds=300)
    said = done.stdout.splitlines()
    expect(len(said) == 3, f"not each said something: {said}\n{done.stderr[-500:]}")
    return [json.loads(line) for line in said]


def _cgroups(machine: Machine) -> str:
    """Of the launcher's servers, those that are left."""
    group = machine.shown("attestd-launcher.service", "ControlGroup")
    return machine.out("find", f"/sys/fs/cgroup{group}", "-ignore_readdir_race", "-mindepth", "1", "-name", "server-*")
