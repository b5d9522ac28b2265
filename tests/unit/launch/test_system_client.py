"""The daemon's side of the launcher of system mode."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attestd.launch.protocol import Command, LaunchError
from attestd.launch.system_client import SystemLauncher
from tests.support.launching import HYDRA, Mark, line_of
from tests.support.system_launcher import ALICE, House, client, house

COMMAND = Command(argv=("not", "looked", "at"), env=(), cwd="/", name="cat")
CAT = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"


async def test_nobody_listens(short_tmp: Path):
    """The error names the socket and what to look at."""
    launcher = SystemLauncher(short_tmp / "none.sock")
    with pytest.raises(LaunchError, match=r"cannot reach the launcher on .*none\.sock: No such file") as found:
        await launcher.start(COMMAND, print)
    assert "systemctl status attestd-launcher" in found.value.hint
    await launcher.close()


@pytest.mark.ordinary
async def test_somebody_else_listens(short_tmp: Path):
    """A listener that is not root's is not told a name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(short_tmp / "s"))
        listener.listen()
        launcher = SystemLauncher(short_tmp / "s")
        with pytest.raises(LaunchError, match=rf"uid {os.getuid()} listens on .*, expected root"):
            await launcher.start(COMMAND, print)
        await launcher.close()
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(10) == b""


@pytest.fixture(name="own")
async def _own() -> AsyncIterator[House]:
    """A launcher that takes this process for its daemon."""
    with house(daemon=0) as made:
        made.register("cat", CAT)
        yield made


def uid_of(pid: int) -> int:
    """Whom a process runs as."""
    return Path(f"/proc/{pid}").stat().st_uid


@pytest.mark.root
async def test_a_server_is_started_used_and_ended(own: House):
    """Bytes travel, the end is told, and after close nothing is left and nothing is started."""
    launcher, exits = SystemLauncher(own.path), []
    with client(ALICE) as alice:
        server = await launcher.start(COMMAND, exits.append, alice)
        os.write(server.stdin_fd, b"hello\n")
        assert await line_of(server) == b"hello\n"
        assert uid_of(server.pid) == ALICE
        server.finish()
        async with asyncio.timeout(10):
            await server.gone.wait()
        assert exits == ["exited with status 0"]
        server.stop()
        await launcher.start(COMMAND, print, alice)
        await launcher.close()
        with pytest.raises(LaunchError, match="the launcher is closed"):
            await launcher.start(COMMAND, print, alice)


@pytest.mark.root
async def test_a_refusal_says_why(own: House):
    """The launcher's reason and hint arrive, and so does a program that cannot be executed."""
    launcher = SystemLauncher(own.path)
    own.write("odd", '[server]\nname = "odd"\ntransport = "stdio"\ncommand = ["/no/such/program"]\n')
    with client(ALICE) as alice:
        for name, message in (
            ("nosuch", "cannot start nosuch: there is no "),
            ("odd", "cannot start odd: cannot execute /no/such/program: no such file"),
        ):
            command = Command(argv=(), env=(), cwd="/", name=name)
            with pytest.raises(LaunchError) as found:
                await launcher.start(command, print, alice)
            assert str(found.value).startswith(message)
    await launcher.close()


@pytest.mark.root
async def test_a_launcher_that_was_restarted(own: House):
    """The old servers are gone, told as such, and the next start finds the new launcher."""
    launcher, exits, mark = SystemLauncher(own.path), [], Mark()
    own.register("many", HYDRA, env={"MARK": mark.value})
    with client(ALICE) as alice:
        many = Command(argv=(), env=(), cwd="/", name="many")
        server = await launcher.start(many, exits.append, alice)
        await line_of(server)
        await asyncio.to_thread(own.end)
        async with asyncio.timeout(10):
            await server.gone.wait()
        assert len(exits) == 1
        assert mark.gone_within(2) == []
        server.stop()
        own.start()
        again = await launcher.start(COMMAND, print, alice)
        os.write(again.stdin_fd, b"back\n")
        assert await line_of(again) == b"back\n"
    await launcher.close()
