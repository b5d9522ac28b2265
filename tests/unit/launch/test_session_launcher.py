"""The launcher of macOS, which is of no one operating system: run here as it is, with real processes."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from attestd.launch.protocol import Command, LaunchError, Sandbox
from attestd.launch.session_launcher import NoLauncher, SessionLauncher
from tests.support.exits import Exits
from tests.support.launching import Mark, line_of, parent, text_of
from tests.support.repository import ROOT

IGNORES = "import signal, time; signal.signal(15, signal.SIG_IGN)"
FAMILY = f"""
import os, signal, sys
{IGNORES}
for _ in range(3):
    if os.fork() == 0:
        if os.fork() == 0:
            os.closerange(0, 3)
            time.sleep(1000)
        os._exit(0)
    os.wait()
print("ready", flush=True)
sys.stdin.read()
"""
"""Leaves three orphans in its group that ignore SIGTERM; itself ends with its standard input."""


@pytest.fixture
async def launcher() -> AsyncIterator[SessionLauncher]:
    """A launcher whose servers get little grace."""
    made = SessionLauncher(grace_s=0.2)
    yield made
    await made.close()


def ignored(_text: str) -> None:
    """Nobody asks how it ended."""


async def facts_of(launcher: SessionLauncher, mark: Mark, tmp_path: Path, source: str) -> Any:
    """What a server says of itself."""
    command = Command(argv=(sys.executable, "-I", "-S", "-c", source), env=mark.python("").env, cwd=str(tmp_path))
    return json.loads(await text_of(await launcher.start(command, ignored)))


async def test_a_server_gets_its_words_and_nothing_else(launcher: SessionLauncher, mark: Mark, tmp_path: Path):
    """Environment, directory, umask, signals, core limit and open files are the order's, not the daemon's."""
    source = (
        "import json, os, resource, signal\n"
        "print(json.dumps([sorted(os.environ), os.getcwd(), os.umask(0), sorted(os.listdir('/proc/self/fd')),"
        " [int(n) for n in signal.valid_signals() if n < 32 and signal.getsignal(n) == signal.SIG_IGN],"
        " len(signal.pthread_sigmask(0, ())), resource.getrlimit(resource.RLIMIT_CORE)]))"
    )
    opened = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(opened, True)
    old = os.umask(0o077)
    try:
        found = await facts_of(launcher, mark, tmp_path, source)
    finally:
        os.umask(old)
        os.close(opened)
    # the interpreter itself sets LC_CTYPE and ignores SIGPIPE and SIGXFSZ
    assert found == [["LC_CTYPE", "MARK", "PATH"], str(tmp_path), 0o022, ["0", "1", "2", "3"], [13, 25], 0, [0, 0]]


async def test_bytes_travel_and_finish_ends_the_input(launcher: SessionLauncher, mark: Mark):
    """What a server writes after the end of its input arrives, its status is told, and its complaint is kept."""
    exits = Exits()
    source = "import sys; d = sys.stdin.read(); print(len(d)); print('oh', file=sys.stderr); sys.exit(7)"
    server = await launcher.start(mark.python(source), exits)
    os.write(server.stdin_fd, b"x" * 1000)
    server.finish()
    assert await text_of(server) == "1000\n"
    assert await exits.text() == "exited with status 7"
    await server.gone.wait()
    assert server.stderr_tail() == "oh\n"
    server.stop()


@pytest.mark.parametrize(
    ("argv", "cwd", "message"),
    [
        (("/no/such/program",), "/", "cannot start /no/such/program: cannot execute /no/such/program: no such file"),
        (("/etc",), "/", "cannot start /etc: cannot execute /etc: it is a directory"),
        (("true",), "/no/such/place", "cannot enter /no/such/place: No such file or directory"),
        ((), "/", "cannot start a server: its command is empty"),
    ],
)
async def test_a_failed_start_says_why(
    launcher: SessionLauncher, mark: Mark, argv: tuple[str, ...], cwd: str, message: str
):
    """In the words of Linux; no supervisor is left."""
    with pytest.raises(LaunchError) as raised:
        await launcher.start(mark.command(*argv, cwd=cwd), ignored)
    assert message in str(raised.value)
    async with asyncio.timeout(5):
        while launcher.supervisors:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("ends", ["stop", "finish", "kill the supervisor"])
async def test_the_group_ends_with_its_server(launcher: SessionLauncher, mark: Mark, ends: str):
    """Orphans in the server's group are gone when ``gone`` is set, whoever ended first; a bystander lives on."""
    exits = Exits()
    bystander = await launcher.start(mark.command("cat"), ignored)
    server = await launcher.start(mark.python(FAMILY), exits)
    assert await line_of(server) == b"ready\n"
    assert len(mark.alive()) == 5
    if ends == "kill the supervisor":
        os.kill(parent(server.pid), signal.SIGKILL)
    else:
        getattr(server, ends)()
    async with asyncio.timeout(5):
        await server.gone.wait()
    assert mark.gone_within(0.5, but=bystander.pid) == []
    wanted = "supervisor is gone" if ends == "kill the supervisor" else "exited with status 0"
    assert wanted in await exits.text()
    os.write(bystander.stdin_fd, b"here\n")
    assert await line_of(bystander) == b"here\n"


@pytest.mark.parametrize(
    ("source", "text", "least_s"), [(IGNORES, "was killed by SIGKILL", 0.35), ("import time", "SIGTERM", 0)]
)
async def test_grace(launcher: SessionLauncher, mark: Mark, source: str, text: str, least_s: float):
    """SIGTERM comes one grace period after the end of input, SIGKILL one later, and not before."""
    exits = Exits()
    server = await launcher.start(
        mark.python(f"{source}\nprint('ready', flush=True)\nwhile True: time.sleep(9)"), exits
    )
    await line_of(server)
    begun = time.monotonic()
    server.stop()
    assert text in await exits.text()
    assert least_s <= time.monotonic() - begun < 3


async def test_a_server_that_leaves_the_session_is_ended_too(launcher: SessionLauncher, mark: Mark):
    """The server itself, with the group that it made: the supervisor has not reaped it and knows both numbers."""
    source = f"import os; os.fork() and os._exit(0)\n{IGNORES}\nprint(1, flush=True); time.sleep(1000)"
    own = f"import os, subprocess, sys; os.setsid(); p = subprocess.Popen([sys.executable, '-c', {source!r}]); p.wait(); import time; time.sleep(1000)"
    server = await launcher.start(mark.python(own), ignored)
    await line_of(server)
    assert os.getsid(server.pid) == server.pid
    server.stop()
    await server.gone.wait()
    assert mark.gone_within(0.5) == []


async def test_a_stopped_server_does_not_hold_close(mark: Mark):
    """SIGSTOP helps nobody to survive; afterwards nothing is started any more."""
    launcher = SessionLauncher(grace_s=0.1)
    server = await launcher.start(mark.command("sleep", "100"), ignored)
    os.kill(server.pid, signal.SIGSTOP)
    async with asyncio.timeout(5):
        await launcher.close()
    assert mark.alive() == []
    assert launcher.supervisors == ()
    with pytest.raises(LaunchError, match="the launcher is closed"):
        await launcher.start(mark.command("true"), ignored)


async def test_a_cancelled_start_leaves_nothing(launcher: SessionLauncher, mark: Mark):
    """Cancelling at any moment of a start ends what was started, the supervisor included."""
    for delay in (0, 0.001, 0.01, 0.03):
        task = asyncio.create_task(launcher.start(mark.command("sleep", "100"), ignored))
        await asyncio.sleep(delay)
        task.cancel()
        done = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(done[0], BaseException):
            done[0].stop()
    assert mark.gone_within(2) == []


async def test_descriptors_do_not_grow(launcher: SessionLauncher, mark: Mark):
    """Neither with servers that ended nor with starts that failed."""

    async def round_trip() -> int:
        with pytest.raises(LaunchError):
            await launcher.start(mark.command("/no/such/program"), ignored)
        server = await launcher.start(mark.command("true"), ignored)
        server.stop()
        await server.gone.wait()
        await asyncio.sleep(0)
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only the number counts

    before = await round_trip()
    assert [await round_trip() for _ in range(3)][-1] <= before


def test_a_killed_daemon_takes_every_server_along(mark: Mark):
    """SIGKILL of the daemon closes the lines: supervisors, servers and their groups are gone within a second."""
    source = (
        "import asyncio, sys\nfrom attestd.launch.session_launcher import SessionLauncher\n"
        "from tests.support.launching import Mark, line_of\n"
        "from tests.unit.launch.test_session_launcher import FAMILY\n"
        "async def host():\n    mark = Mark(); mark.value = sys.argv[1]; launcher = SessionLauncher()\n"
        "    for _ in range(2): await line_of(await launcher.start(mark.python(FAMILY), print))\n"
        "    print(*launcher.supervisors, flush=True); await asyncio.sleep(1000)\n"
        "asyncio.run(host())\n"
    )
    with subprocess.Popen([sys.executable, "-c", source, mark.value], cwd=ROOT, stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        supervisors = [int(word) for word in host.stdout.readline().split()]
        assert len(mark.alive()) == 8
        host.kill()
    assert mark.gone_within(1.5) == []
    assert [pid for pid in supervisors if Path(f"/proc/{pid}").exists() and parent(pid) != 1] == []


async def test_limits_of_macos(launcher: SessionLauncher, mark: Mark):
    """Those that it enforces are set, soft and hard; one above the hard limit is an error of the start."""
    names = ("RLIMIT_NOFILE", "RLIMIT_FSIZE")
    source = f"import resource; print([resource.getrlimit(getattr(resource, n)) for n in {names}])"
    command = mark.python(source)
    limits = (("open_files", 64), ("file_mib", 2))
    limited = Command(argv=command.argv, env=command.env, cwd="/", sandbox=Sandbox(limits=limits))
    assert await text_of(await launcher.start(limited, ignored)) == "[(64, 64), (2097152, 2097152)]\n"
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and os.geteuid() != 0:
        above = Command(
            argv=command.argv, env=command.env, cwd="/", sandbox=Sandbox(limits=(("open_files", hard + 1),))
        )
        with pytest.raises(LaunchError, match="cannot limit its process"):
            await launcher.start(above, ignored)


@pytest.mark.parametrize(
    ("sandbox", "named"),
    [
        (Sandbox(network=False), "network"),
        (Sandbox(read_only=True, writable=("/tmp",)), "read_only"),
        (Sandbox(limits=(("address_space_mib", 64), ("processes", 9))), "limits.address_space_mib"),
        (Sandbox(network=False, limits=(("memory_mib", 64),)), "network, limits.memory_mib"),
    ],
)
async def test_what_cannot_be_taken_away_is_refused(
    launcher: SessionLauncher, mark: Mark, sandbox: Sandbox, named: str
):
    """A server is never started with less confinement than its file says; nothing was started for it."""
    command = Command(argv=("/bin/true",), env=mark.python("").env, cwd="/", sandbox=sandbox)
    with pytest.raises(LaunchError, match=f"cannot enforce {named} of its server file"):
        await launcher.start(command, ignored)
    assert launcher.supervisors == ()


async def test_no_launcher_says_why(mark: Mark):
    """Where servers cannot be started at all, each start is refused with the reason."""
    launcher = NoLauncher("nobody may", "do it yourself")
    with pytest.raises(LaunchError, match="cannot start true: nobody may") as raised:
        await launcher.start(mark.command("true"), ignored)
    assert raised.value.hint == "do it yourself"
    await launcher.close()
