"""The launcher's client, with real processes."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attestd.launch.client import ProcessLauncher
from attestd.launch.protocol import Command, LaunchError
from attestd.launch.starting import ORDER_BYTES, encode
from tests.support.exits import Exits
from tests.support.launching import HYDRA, Mark, line_of, parent, text_of

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
async def launcher() -> AsyncIterator[ProcessLauncher]:
    """A launcher whose servers get little grace."""
    made = ProcessLauncher(grace_s=0.2)
    yield made
    await made.close()


def fill(fd: int) -> int:
    """Bytes that a descriptor takes until it would block."""
    written = 0
    try:
        while True:
            written += os.write(fd, b"x" * 65536)
    except BlockingIOError:
        return written


def descriptors() -> list[int]:
    """Our open descriptors."""
    return [int(path.name) for path in Path("/proc/self/fd").iterdir()]


async def test_the_environment_is_exactly_what_was_given(launcher: ProcessLauncher) -> None:
    """A server sees the variables of its command, in order, and none of the daemon's or the launcher's."""
    env = (("B", "2"), ("A", "eins=zwei"), ("EMPTY", ""), ("UTF", "ä\udcff"))
    source = "import sys; sys.stdout.buffer.write(open('/proc/self/environ','rb').read())"
    server = await launcher.start(
        Command(argv=(sys.executable, "-I", "-S", "-c", source), env=env, cwd="/"), lambda _: None
    )
    data = b""
    while chunk := await line_of(server):
        data += chunk
    assert data == b"B=2\0A=eins=zwei\0EMPTY=\0UTF=\xc3\xa4\xff\0"


async def test_only_three_descriptors_are_open(launcher: ProcessLauncher, mark: Mark) -> None:
    """A server that lists /proc/self/fd finds 0, 1, 2 and that of the listing, also when other servers run."""
    others = [await launcher.start(mark.command("cat"), lambda _: None) for _ in range(3)]
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(5)]
    for fd in opened:
        os.set_inheritable(fd, True)
    server = await launcher.start(mark.python("import os; print(*sorted(os.listdir('/proc/self/fd')))"), lambda _: None)
    assert (await text_of(server)).split() == ["0", "1", "2", "3"]
    for fd in opened:
        os.close(fd)
    for other in others:
        other.stop()


async def test_the_server_starts_from_a_clean_process(launcher: ProcessLauncher, mark: Mark, tmp_path: Path) -> None:
    """Directory, umask, signals, limits, session and no_new_privs are set, whatever the daemon has."""
    source = (
        "import os,resource,json;"
        "status=dict(l.split(':',1) for l in open('/proc/self/status'));"
        "print(json.dumps([os.getcwd(), status['Umask'].strip(), status['NoNewPrivs'].strip(),"
        " status['SigIgn'].strip(),"
        " status['SigBlk'].strip(), os.getsid(0)==os.getpid(), resource.getrlimit(resource.RLIMIT_CORE),"
        " resource.getrlimit(resource.RLIMIT_NOFILE)[0]<=1024]))"
    )
    command = Command(argv=(sys.executable, "-I", "-c", source), env=mark.python("").env, cwd=str(tmp_path))
    old = os.umask(0o077)
    try:
        server = await launcher.start(command, lambda _: None)
    finally:
        os.umask(old)
    facts = json.loads(await text_of(server))
    facts[3] = f"{int(facts[3], 16) & ~(3 << 31):016x}"  # 32 and 33 belong to the C library: nobody can reset them
    # the interpreter itself ignores SIGPIPE (13) and SIGXFSZ (25) again
    assert facts == [str(tmp_path), "0022", "1", f"{1 << 12 | 1 << 24:016x}", "0" * 16, True, [0, 0], True]


async def test_bytes_travel_and_finish_ends_the_input(launcher: ProcessLauncher, mark: Mark) -> None:
    """``finish`` lets a server end by itself: what it writes then still arrives, and its status is told."""
    exits = Exits()
    server = await launcher.start(mark.python("import sys; d=sys.stdin.read(); print(len(d)); sys.exit(7)"), exits)
    os.write(server.stdin_fd, b"x" * 1000)
    server.finish()
    server.finish()
    assert server.stdin_fd == -1
    assert await text_of(server) == "1000\n"
    assert await exits.text() == "exited with status 7"
    server.stop()
    server.stop()
    assert server.stdout_fd == -1


async def test_our_ends_do_not_block(launcher: ProcessLauncher, mark: Mark) -> None:
    """A server that reads nothing cannot hold the daemon, and the pipe takes what one large message needs."""
    server = await launcher.start(mark.command("sleep", "100"), lambda _: None)
    assert fill(server.stdin_fd) >= 65536
    with pytest.raises(BlockingIOError):
        os.read(server.stdout_fd, 1)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("no-such-program",), "cannot start no-such-program: no such program in PATH, got PATH="),
        (("/no/such/program",), "cannot start /no/such/program: cannot execute /no/such/program: no such file"),
        (("/etc",), "cannot start /etc: cannot execute /etc: it is a directory"),
        (("/etc/passwd",), "cannot start /etc/passwd: cannot execute /etc/passwd: Permission denied"),
        ((), "cannot start a server: its command is empty"),
    ],
)
async def test_a_failed_start_says_which_file_and_why(
    launcher: ProcessLauncher, mark: Mark, argv: tuple[str, ...], message: str
) -> None:
    """The error comes before ``start`` returns and names the file and the reason."""
    with pytest.raises(LaunchError) as raised:
        await launcher.start(mark.command(*argv), lambda _: None)
    assert str(raised.value).startswith(message)


async def test_a_script_without_its_interpreter_is_explained(
    launcher: ProcessLauncher, mark: Mark, tmp_path: Path
) -> None:
    """A missing interpreter is not reported as a missing script."""
    script = tmp_path / "server"
    script.write_text("#!/no/such/python -I\n")
    script.chmod(0o755)
    with pytest.raises(LaunchError, match="its interpreter /no/such/python does not exist"):
        await launcher.start(mark.command(str(script)), lambda _: None)
    script.write_text("echo hello\n")
    with pytest.raises(LaunchError, match="neither a binary for this machine nor a script"):
        await launcher.start(mark.command(str(script)), lambda _: None)


async def test_a_missing_directory_is_named(launcher: ProcessLauncher, mark: Mark) -> None:
    """The working directory is entered before the program is executed, and its absence is said."""
    with pytest.raises(LaunchError, match="cannot enter /no/such/place: No such file or directory"):
        await launcher.start(mark.command("true", cwd="/no/such/place"), lambda _: None)


async def test_a_failed_start_leaves_nothing_open(launcher: ProcessLauncher, mark: Mark) -> None:
    """Descriptors do not grow with failed and with ended servers."""

    async def round_trip() -> None:
        with pytest.raises(LaunchError):
            await launcher.start(mark.command("/no/such/program"), lambda _: None)
        exits = Exits()
        server = await launcher.start(mark.command("true"), exits)
        await exits.text()
        server.stop()
        await server.gone.wait()
        await asyncio.sleep(0)

    await round_trip()
    before = len(descriptors())
    for _ in range(10):
        await round_trip()
    assert len(descriptors()) <= before + 1


async def test_daemonised_children_do_not_survive_stop(launcher: ProcessLauncher, mark: Mark) -> None:
    """Double-forked children in sessions of their own that ignore SIGTERM are gone when ``gone`` is set."""
    server = await launcher.start(mark.python(HYDRA), lambda _: None)
    assert await line_of(server) == b"ready\n"
    assert len(mark.alive()) == 7
    server.stop()
    async with asyncio.timeout(5):
        await server.gone.wait()
    assert mark.alive() == []


async def test_daemonised_children_do_not_survive_the_servers_own_end(launcher: ProcessLauncher, mark: Mark) -> None:
    """When the server exits by itself its daemons are killed without being asked."""
    exits = Exits()
    server = await launcher.start(mark.python(HYDRA), exits)
    await line_of(server)
    server.finish()
    assert await exits.text() == "exited with status 0"
    async with asyncio.timeout(5):
        await server.gone.wait()
    assert mark.alive() == []


async def test_a_server_that_forks_all_the_time_is_caught(launcher: ProcessLauncher, mark: Mark) -> None:
    """A process that hops from pid to pid, each parent dying at once, does not escape."""
    hopper = (
        "import os,signal\nfor s in (1,2,15): signal.signal(s, signal.SIG_IGN)\nprint('ready', flush=True)\n"
        "while True:\n    if os.fork(): os._exit(0)\n    os.setsid()\n"
    )
    server = await launcher.start(mark.python(hopper), lambda _: None)
    await line_of(server)
    server.stop()
    async with asyncio.timeout(10):
        await server.gone.wait()
    assert mark.gone_within(0.5) == []


async def test_a_server_that_ignores_sigterm_is_killed_after_its_grace(launcher: ProcessLauncher, mark: Mark) -> None:
    """SIGTERM comes one grace period after the end of input, SIGKILL one later, and not before."""
    exits = Exits()
    source = (
        "import signal,time; signal.signal(15, lambda *_: None); print('ready', flush=True)\nwhile True: time.sleep(9)"
    )
    server = await launcher.start(mark.python(source), exits)
    await line_of(server)
    begun = time.monotonic()
    server.stop()
    assert await exits.text() == "was killed by SIGKILL"
    assert 0.35 <= time.monotonic() - begun < 3


async def test_a_polite_server_ends_on_sigterm(launcher: ProcessLauncher, mark: Mark) -> None:
    """A server that handles SIGTERM ends with its own status."""
    exits = Exits()
    source = (
        "import signal,sys,time; signal.signal(15, lambda *_: sys.exit(4)); print('ready', flush=True)\n"
        "while True: time.sleep(9)"
    )
    server = await launcher.start(mark.python(source), exits)
    await line_of(server)
    server.stop()
    assert await exits.text() == "exited with status 4"


async def test_a_flood_on_standard_error_does_not_block(launcher: ProcessLauncher, mark: Mark) -> None:
    """64 MiB on standard error pass, the answer arrives, and the tail is the last 4 KiB."""
    exits = Exits()
    source = (
        "import sys\nfor _ in range(1024): sys.stderr.write('x' * 65536)\nsys.stderr.write('y' * 4000 + 'the end\\n')\n"
        "sys.stderr.flush(); print('done', flush=True); sys.stdin.read()"
    )
    server = await launcher.start(mark.python(source), exits)
    assert await line_of(server, 30) == b"done\n"
    server.finish()
    await exits.text()
    await server.gone.wait()
    assert len(server.stderr_tail()) <= 4096
    assert server.stderr_tail().endswith("ythe end\n")


async def test_fifty_starts_at_once(launcher: ProcessLauncher, mark: Mark) -> None:
    """Fifty servers started together all run, answer for themselves, and all end."""
    servers = await asyncio.gather(
        *(launcher.start(mark.command("sh", "-c", f"echo {number}; cat"), lambda _: None) for number in range(50))
    )
    assert [await line_of(server) for server in servers] == [f"{number}\n".encode() for number in range(50)]
    assert len({server.pid for server in servers}) == 50
    for server in servers:
        server.stop()
    for server in servers:
        await server.gone.wait()
    assert mark.alive() == []


async def test_a_cancelled_start_leaves_nothing(launcher: ProcessLauncher, mark: Mark) -> None:
    """Cancelling at any moment of a start ends what was started."""
    await (await launcher.start(mark.command("true"), lambda _: None)).gone.wait()
    for delay in (0, 0.0005, 0.001, 0.002, 0.004):
        task = asyncio.create_task(launcher.start(mark.command("sleep", "100"), lambda _: None))
        await asyncio.sleep(delay)
        task.cancel()
        done = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(done[0], BaseException):
            done[0].stop()
    assert mark.gone_within(2) == []


async def test_the_launcher_killed_takes_every_server_along(launcher: ProcessLauncher, mark: Mark) -> None:
    """SIGKILL of the launcher ends servers and their daemons within a second; the next start has a new launcher."""
    exits = Exits()
    server = await launcher.start(mark.python(HYDRA), exits)
    await line_of(server)
    first = launcher.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(1):
        await server.gone.wait()
    assert await exits.text()
    assert mark.gone_within(0) == []
    server.stop()
    again = await launcher.start(mark.command("echo", "back"), lambda _: None)
    assert await line_of(again) == b"back\n"
    assert launcher.pid != first


async def test_a_supervisor_killed_takes_its_server_along(launcher: ProcessLauncher, mark: Mark) -> None:
    """SIGKILL of a supervisor ends its server and what that daemonised, and no other server; the daemon hears of it."""
    exits = Exits()
    bystander = await launcher.start(mark.command("cat"), lambda _: None)
    server = await launcher.start(mark.python(HYDRA), exits)
    await line_of(server)
    os.kill(parent(server.pid), signal.SIGKILL)
    assert await exits.text() == "ended because its supervisor is gone"
    assert mark.gone_within(1, but=bystander.pid) == []
    assert mark.alive() == [bystander.pid]
    os.write(bystander.stdin_fd, b"still here\n")
    assert await line_of(bystander) == b"still here\n"


async def test_a_stopped_server_and_a_stopped_launcher_do_not_hold_close(mark: Mark) -> None:
    """SIGSTOP does not help a server to survive."""
    launcher = ProcessLauncher(grace_s=0.1)
    server = await launcher.start(mark.command("sleep", "100"), lambda _: None)
    os.kill(server.pid, signal.SIGSTOP)
    async with asyncio.timeout(5):
        await launcher.close()
    assert mark.alive() == []


async def test_close_ends_everything(mark: Mark) -> None:
    """After ``close`` no server, no supervisor and no launcher is left, and a start is refused."""
    launcher = ProcessLauncher(grace_s=0.1)
    servers = [await launcher.start(mark.python(HYDRA), lambda _: None) for _ in range(3)]
    for server in servers:
        await line_of(server)
    await launcher.close()
    assert mark.alive() == []
    assert mark.alive(os.getpid()) == []
    with pytest.raises(LaunchError, match="the launcher is closed"):
        await launcher.start(mark.command("true"), lambda _: None)
    await launcher.close()


@pytest.mark.parametrize("victim", ["daemon", "launcher", "supervisor"])
def test_sigkill_at_random_moments_leaves_nothing(victim: str) -> None:
    """Whoever is killed while servers start and stop: once the daemon is dead too, all are gone in a second."""
    for round_ in range(8):
        mark = Mark()
        host = subprocess.Popen(
            [sys.executable, "-m", "tests.support.launching", mark.value, "2"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        with host:
            assert host.stdout is not None
            pids = [int(word) for word in host.stdout.readline().split()]
            time.sleep(random.Random(round_).uniform(0, 0.15))
            targets = {"daemon": host.pid, "launcher": pids[0], "supervisor": _a_child(pids[0])}
            assert mark.alive(host.pid)
            os.kill(targets[victim], signal.SIGKILL)
            if victim != "daemon":
                time.sleep(random.Random(round_).uniform(0, 0.05))
                host.kill()
        assert mark.gone_within(1, host.pid) == []


def _a_child(pid: int) -> int:
    """A supervisor."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


async def test_a_real_mcp_server_answers(launcher: ProcessLauncher, mark: Mark) -> None:
    """mcp-server-time, found through the PATH of the command, answers initialize with one line."""
    server = await launcher.start(mark.command("mcp-server-time", "--local-timezone", "UTC"), lambda _: None)
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }
    os.write(server.stdin_fd, json.dumps(hello).encode() + b"\n")
    answer = json.loads(await line_of(server, 30))
    assert answer["id"] == 1
    assert "serverInfo" in answer["result"]


def test_an_order_refuses_what_no_process_can_have() -> None:
    """NUL characters, names with an equals sign and oversized environments are refused with the limit."""
    with pytest.raises(LaunchError, match="contains a NUL"):
        encode(Command(argv=("a", "b\0c"), env=(), cwd="/"), "/a", 1)
    with pytest.raises(LaunchError, match="variable named 'A=B'"):
        encode(Command(argv=("a",), env=(("A=B", "c"),), cwd="/"), "/a", 1)
    with pytest.raises(LaunchError, match=f"at most {ORDER_BYTES}"):
        encode(Command(argv=("a",), env=(("A", "x" * ORDER_BYTES),), cwd="/"), "/a", 1)


async def test_no_descriptors_left_is_an_error_and_not_the_end(launcher: ProcessLauncher, mark: Mark) -> None:
    """With the descriptor table full a start fails with its reason; afterwards the next one succeeds."""
    await (await launcher.start(mark.command("true"), lambda _: None)).gone.wait()
    taken: list[int] = []
    soft = max(descriptors()) + 3
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, old[1]))
    try:
        try:
            while True:
                taken.append(os.dup(0))
        except OSError as error:
            assert error.errno == errno.EMFILE  # noqa: PT017 - a loop until it raises
        with pytest.raises(LaunchError, match="too many open files"):
            await launcher.start(mark.command("cat"), lambda _: None)
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, old)
    server = await launcher.start(mark.command("echo", "fine"), lambda _: None)
    assert await line_of(server) == b"fine\n"
