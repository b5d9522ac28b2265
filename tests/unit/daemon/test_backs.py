"""Opening back ends: who answers is attested before a byte is passed."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from attestd.daemon.backs import Backs, ServerImage, environment
from attestd.daemon.config import BackPeer, ServerLimits, ServerSettings
from attestd.enforcement.link import ServerError
from attestd.enforcement.workers import Workers
from attestd.errors import Cause, EvidenceError
from attestd.launch.protocol import LaunchError, Sandbox
from tests.fakes.kernel import OneProcess
from tests.fakes.launcher import FakeLauncher
from tests.support.evidence import evidence_of, link_of, python_client, sha, shell
from tests.support.streams import Far
from tests.support.waiting import until

STDIO = ServerSettings(name="time", transport="stdio", command=("/bin/server", "-v"), env={"A": "1"}, cwd="/tmp")


class Bench:
    """Backs over a kernel of one process."""

    def __init__(self, root: Path) -> None:
        self.kernel = OneProcess(evidence_of(python_client("/srv/server.py", uid=os.geteuid()), shell()))
        self.launcher = FakeLauncher()
        self.workers = Workers(1, "backs")
        self.seen: list[tuple[str, ServerImage]] = []
        self.seconds = 10.0
        self.path = root / "server.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen(4)
        self.listener.setblocking(False)
        self.backs = Backs(
            loop=asyncio.get_running_loop(),
            launcher=self.launcher,
            kernel=self.kernel,
            workers=self.workers,
            attest_seconds=lambda: self.seconds,
            seen=lambda name, image: self.seen.append((name, image)),
        )

    def unix(self, **changes: Any) -> ServerSettings:
        """A server that listens on our socket."""
        return ServerSettings(**{"name": "far", "transport": "unix", "socket": str(self.path), **changes})

    async def accepted(self) -> Far:
        """The server's end of the connection."""
        connection, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(self.listener), 5)
        return Far(connection)

    async def refused(self, server: ServerSettings) -> ServerError:
        """How opening is refused."""
        with pytest.raises(ServerError) as found:
            await self.backs.open(server)
        return found.value


@pytest.fixture(name="bench")
async def _bench(short_tmp: Path) -> AsyncIterator[Bench]:
    bench = Bench(short_tmp)
    yield bench
    bench.kernel.go_on.set()
    await bench.launcher.close()
    bench.listener.close()
    await until(lambda: bench.kernel.open == 0)
    bench.workers.shutdown()


# -- started servers ------------------------------------------------------------------------------------------------


async def test_a_started_server_is_looked_at_before_it_is_used(bench: Bench):
    """Command, directory and environment are those of the registry; the image is told with its script."""
    back = await bench.backs.open(STDIO)
    (command,) = bench.launcher.commands
    assert (command.name, command.sandbox, bench.launcher.clients) == ("time", Sandbox(), [None])
    assert (command.argv, command.cwd, dict(command.env)["A"]) == (("/bin/server", "-v"), "/tmp", "1")
    ((name, image),) = bench.seen
    assert (name, image.path) == ("time", "/usr/bin/python3.11")
    assert f"script /srv/server.py sha256 {sha('/srv/server.py')}" in image.describe
    assert back.describe == image.describe
    assert (back.read_fd, back.write_fd) == (bench.launcher.backends[0].stdout_fd, bench.launcher.backends[0].stdin_fd)
    assert bench.kernel.open == 0
    back.finish()
    back.stop()
    back.stop()
    back.finish()
    assert (bench.launcher.backends[0].finished, bench.launcher.backends[0].stopped) == (1, 1)


async def test_the_client_is_shown_and_the_sandbox_told(bench: Bench):
    """Whom a server is for reaches the launcher as the pidfd that was given, with what the server has to do without."""
    confined = msgspec.structs.replace(STDIO, network=False, limits=ServerLimits(open_files=9))
    back = await bench.backs.open(confined, 77)
    assert bench.launcher.clients == [77]
    assert bench.launcher.commands[0].sandbox == Sandbox(network=False, limits=(("open_files", 9),))
    back.stop()


async def test_why_a_server_ended(bench: Bench):
    """Its exit and the last line of its complaints."""
    back = await bench.backs.open(STDIO)
    assert back.failure() == "the server closed its output"
    bench.launcher.backends[0].errors = "Traceback ...\nKeyError: 'TOKEN'\n\n"
    bench.launcher.backends[0].exit("exited with status 1")
    assert back.failure() == "the server exited with status 1: KeyError: 'TOKEN'"
    back.stop()
    assert back.failure() == "the server exited with status 1"


async def test_a_command_that_cannot_start(bench: Bench):
    """The launcher's reason and the server's name."""
    bench.launcher.failure = LaunchError("cannot execute /bin/server: no such file", hint="install it")
    error = await bench.refused(STDIO)
    assert error.cause is Cause.SERVER_UNAVAILABLE
    assert error.message == "cannot start server 'time': cannot execute /bin/server: no such file"
    assert error.hint == "install it"


async def test_a_server_that_does_not_stay(bench: Bench):
    """One that is gone before it was looked at is stopped and reported with its last words."""
    bench.kernel.failure = EvidenceError(Cause.PEER_GONE, "gone")
    error = await bench.refused(STDIO)
    assert error.cause is Cause.SERVER_UNAVAILABLE
    assert "server 'time' did not stay: the server closed its output" in error.message
    assert bench.launcher.backends[0].stopped == 1
    assert bench.seen == []


async def test_a_server_that_cannot_be_read(bench: Bench):
    """Other trouble is told as it is."""
    bench.kernel.failure = EvidenceError(Cause.INCONSISTENT, "its facts kept changing")
    assert "its facts kept changing" in (await bench.refused(STDIO)).message


async def test_another_program_than_the_registry_names(bench: Bench):
    """A started server must be the program whose digest is registered."""
    wanted = ServerSettings(name="time", transport="stdio", command=("x",), peer=BackPeer(exe_sha256=sha("other")))
    error = await bench.refused(wanted)
    assert error.cause is Cause.SERVER_UNTRUSTED
    assert f"expected {sha('other')}" in error.message
    assert bench.launcher.backends[0].stopped == 1
    right = ServerSettings(
        name="time", transport="stdio", command=("x",), peer=BackPeer(exe_sha256=sha("/usr/bin/python3.11"))
    )
    (await bench.backs.open(right)).stop()


async def test_an_unreadable_image_is_no_match(bench: Bench):
    """Not knowing the digest is not having it."""
    bench.kernel.evidence = evidence_of(link_of(None))
    wanted = ServerSettings(name="time", transport="stdio", command=("x",), peer=BackPeer(exe_sha256=sha("other")))
    assert "runs sha256 unreadable" in (await bench.refused(wanted)).message
    await bench.backs.open(STDIO)
    assert "sha256 unreadable" in bench.seen[0][1].describe


async def test_looking_that_hangs_is_given_up(bench: Bench):
    """A file of the server that does not answer costs its own callers the time and nobody else more."""
    bench.seconds = 0.05
    bench.kernel.go_on.clear()
    assert "did not answer within 0.05 s" in (await bench.refused(STDIO)).message
    assert bench.launcher.backends[0].stopped == 1


# -- servers on a socket --------------------------------------------------------------------------------------------


async def test_a_server_on_a_socket_is_attested(bench: Bench):
    """The listener's process is looked at, then bytes pass both ways; finish closes one direction only."""
    back = await bench.backs.open(bench.unix())
    far = await bench.accepted()
    assert bench.seen[0][0] == "far"
    os.write(back.write_fd, b"hello\n")
    assert await far.line() == b"hello"
    back.finish()
    assert await far.line() is None
    await far.send(b"bye\n")
    assert os.read(back.read_fd, 10) == b"bye\n"
    assert back.failure() == "the server closed the connection"
    back.stop()
    back.finish()
    far.close()


async def test_nobody_listens(bench: Bench):
    """Path and reason."""
    error = await bench.refused(bench.unix(socket="/nowhere/x.sock"))
    assert error.cause is Cause.SERVER_UNAVAILABLE
    assert error.message == "cannot connect to /nowhere/x.sock: No such file or directory"
    bench.listener.close()
    assert "Connection refused" in (await bench.refused(bench.unix())).message


async def test_a_socket_of_another_user_that_is_not_to_be_seen(bench: Bench):
    """It may well be there for that user: the message says whose view it is, and the hint what hides it."""
    server = bench.unix(socket="/nowhere/x.sock", peer=BackPeer(uid=os.geteuid() + 1))
    error = await bench.refused(server)
    assert error.message == (
        f"cannot connect to /nowhere/x.sock: No such file or directory, as attestd (uid {os.geteuid()}) sees it"
    )
    assert "hides /home" in error.hint


async def test_a_listener_of_another_uid_gets_nothing(bench: Bench):
    """Both uids are named, and the connection is closed before a byte."""
    error = await bench.refused(bench.unix(peer=BackPeer(uid=os.geteuid() + 1)))
    assert error.cause is Cause.SERVER_UNTRUSTED
    assert f"uid {os.geteuid()} listens on {bench.path}, expected uid {os.geteuid() + 1}" in error.message
    far = await bench.accepted()
    assert await far.line() is None
    assert bench.seen == []
    far.close()
    back = await bench.backs.open(bench.unix(peer=BackPeer(uid=os.geteuid())))
    back.stop()
    (await bench.accepted()).close()


async def test_a_listener_of_another_program_gets_nothing(bench: Bench):
    """The digest of the registry counts here too."""
    error = await bench.refused(bench.unix(peer=BackPeer(exe_sha256=sha("other"))))
    assert error.cause is Cause.SERVER_UNTRUSTED
    far = await bench.accepted()
    assert await far.line() is None
    far.close()


async def test_a_listener_that_cannot_be_attested_gets_nothing(bench: Bench):
    """Whoever cannot be looked at is not trusted."""
    bench.kernel.failure = EvidenceError(Cause.FOREIGN_NAMESPACE, "it is in another pid namespace")
    error = await bench.refused(bench.unix())
    assert error.cause is Cause.SERVER_UNTRUSTED
    assert "another pid namespace" in error.message
    (await bench.accepted()).close()


async def test_a_listener_that_hangs_keeps_no_socket_for_ever(bench: Bench):
    """The thread that hangs has a descriptor of its own, released when it comes back."""
    bench.seconds = 0.05
    bench.kernel.go_on.clear()
    assert "did not answer within" in (await bench.refused(bench.unix())).message
    far = await bench.accepted()
    reading = asyncio.ensure_future(far.line())
    await asyncio.sleep(0.02)
    assert not reading.done()
    bench.kernel.go_on.set()
    assert await reading is None
    far.close()


async def test_a_bug_while_looking_releases_the_socket(bench: Bench):
    """An unexpected exception is raised, and nothing stays open."""
    bench.kernel.failure = ZeroDivisionError("oops")
    with pytest.raises(ZeroDivisionError):
        await bench.backs.open(bench.unix())
    far = await bench.accepted()
    assert await far.line() is None
    far.close()
    assert threading.active_count() >= 1


# -- the environment ------------------------------------------------------------------------------------------------


def test_nothing_is_inherited(monkeypatch: pytest.MonkeyPatch):
    """A server gets who it is, where programs are, and what its file says, which wins."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    values = dict(environment(STDIO))
    assert set(values) == {"PATH", "HOME", "USER", "LOGNAME", "LANG", "A"}
    replaced = ServerSettings(name="t", transport="stdio", command=("x",), env={"PATH": "/opt/bin"})
    assert dict(environment(replaced))["PATH"] == "/opt/bin"


def test_a_uid_without_a_name(monkeypatch: pytest.MonkeyPatch):
    """Its number serves as its name."""
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)
    values = dict(environment(STDIO))
    assert (values["HOME"], values["USER"]) == ("/", "4000000")
