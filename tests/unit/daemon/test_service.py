"""Kernel, launcher, daemon and control socket, started together and ended together; with the real kernel."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from attestd.daemon.activation import Passed
from attestd.daemon.notify import Notifier
from attestd.daemon.service import Serving
from attestd.errors import Cause, ConfigurationError, EvidenceError
from tests.support.daemons import paths_below, server_text


@pytest.fixture(name="serving")
async def _serving(short_tmp: Path) -> AsyncIterator[Serving]:
    paths_below(short_tmp).servers.mkdir(parents=True)
    serving = Serving(paths_below(short_tmp))
    yield serving
    await serving.close()


async def test_both_sockets_are_there_and_go(serving: Serving):
    """The control socket is private to the user; both kinds are gone after the end."""
    paths = serving.daemon.paths
    assert paths.control.stat().st_mode & 0o777 == 0o600
    (paths.servers / "time.toml").write_text(server_text())
    serving.reload_signalled()
    assert paths.sockets.joinpath("time.sock").is_socket()


async def test_a_second_one_leaves_nothing_running(serving: Serving):
    """Its start is refused, and the first goes on."""
    with pytest.raises(ConfigurationError):
        Serving(serving.daemon.paths)
    assert serving.daemon.paths.control.exists()


async def test_a_control_socket_in_the_way(short_tmp: Path):
    """The daemon that cannot serve control lets go of everything: the next start succeeds."""
    paths = paths_below(short_tmp)
    paths.servers.mkdir(parents=True)
    paths.runtime.mkdir(mode=0o700)
    paths.control.write_text("in the way")
    with pytest.raises(ConfigurationError):
        Serving(paths)
    paths.control.unlink()
    await Serving(paths).close()


async def test_a_bad_reload_by_signal_is_noted(serving: Serving):
    """Nobody waits for the answer to a signal: status shows it, and the old configuration stays."""
    serving.daemon.paths.config_file.write_text("nosuch = 1\n")
    serving.reload_signalled()
    assert "reload refused: " in serving.daemon.troubles.seen(None)[-1][1]


async def test_callers_of_control_are_attested(serving: Serving):
    """This very process is attested on its own connection, and the watch is handed over."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = await serving._attest(ours.fileno())
    assert (found.caller.uid, found.caller.pid) == (os.geteuid(), os.getpid())
    assert found.caller.result is not None
    assert found.watch is not None
    found.watch.close()


@pytest.mark.parametrize("trouble", ["hangs", "fails"])
async def test_a_caller_that_cannot_be_attested_decides_nothing(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, trouble: str
):
    """It may look, with the reason why it may not decide."""
    import threading

    go_on = threading.Event()

    def collect(*_: object) -> None:
        if trouble == "hangs":
            go_on.wait(10)
        raise EvidenceError(Cause.INCONSISTENT, "its facts kept changing")

    monkeypatch.setattr(serving.daemon.kernel, "collect", collect)
    serving.daemon.paths.config_file.write_text("[limits]\nattest_seconds = 0.05\n")
    serving.daemon.reload()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = await serving._attest(ours.fileno())
    assert (found.caller.result, found.caller.how, found.watch) == (None, "", None)
    assert ("did not answer" if trouble == "hangs" else "kept changing") in found.caller.why_not
    go_on.set()
    await asyncio.sleep(0.02)


async def test_bugs_are_shown_in_status(serving: Serving):
    """An exception that nobody expected is remembered, wherever it came from."""
    serving._bug(ZeroDivisionError("oops"))
    assert "internal: ZeroDivisionError: oops" in serving.daemon.troubles.seen(None)[-1][1]
    context = {"message": "a task failed", "exception": KeyError("x")}
    serving._bug_in_loop(asyncio.get_running_loop(), context)
    assert "a task failed" in serving.daemon.troubles.seen(None)[-1][1]


async def test_who_connects_during_a_restart_is_served(short_tmp: Path):
    """The manager holds the socket of a server: its file stays, the connection waits, and the next run takes it."""
    paths = paths_below(short_tmp)
    paths.servers.mkdir(parents=True)
    (paths.servers / "time.toml").write_text(server_text())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, socket.socket(socket.AF_UNIX) as client:
        manager.bind(str(short_tmp / "notify"))
        notifier = Notifier(str(short_tmp / "notify"))
        first = Serving(paths, notifier=notifier)
        text, ancillary, _, _ = manager.recvmsg(4096, socket.CMSG_SPACE(4))
        assert text == b"FDSTORE=1\nFDNAME=mcp-time"
        held = socket.socket(fileno=int.from_bytes(ancillary[0][2], sys.byteorder))
        await first.close()
        client.connect(str(paths.sockets / "time.sock"))
        second = Serving(paths, notifier=notifier, passed=Passed(servers={"time": held}))
        try:
            client.setblocking(False)
            client.send(b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}\n')
            answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 65536), 10)
            assert b"-31403" in answer
        finally:
            await second.close()


async def test_the_managers_control_socket_stays(short_tmp: Path):
    """It was passed, so it is not ours to remove; asked for by its path, it answers with hello."""
    paths = paths_below(short_tmp)
    paths.servers.mkdir(parents=True)
    paths.runtime.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as made, socket.socket(socket.AF_UNIX) as client:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        made.bind(str(paths.control))
        made.listen()
        made.setblocking(False)
        serving = Serving(paths, passed=Passed(control=socket.socket(fileno=os.dup(made.fileno()))))
        client.connect(str(paths.control))
        client.setblocking(False)
        hello = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 4096), 10)
        assert b"nonce" in hello
        await serving.close()
        assert paths.control.is_socket()


async def test_a_reload_begins_and_ends(short_tmp: Path):
    """The manager is told both, also where the new configuration is refused; then the status says why."""
    paths = paths_below(short_tmp)
    paths.servers.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(short_tmp / "notify"))
        manager.settimeout(5)
        serving = Serving(paths, notifier=Notifier(str(short_tmp / "notify")))
        try:
            for text, status in (("", b"serving 0 servers"), ("nosuch = 1\n", b"the old configuration goes on")):
                paths.config_file.write_text(text)
                serving.reload_signalled()
                assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
                assert manager.recv(4096).startswith(b"READY=1\nSTATUS=" + status)
        finally:
            await serving.close()
