"""Doors to HTTP back ends: who accepted the connection is known before a byte, and pinned."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from attestd.daemon import http_doors
from attestd.daemon.backs import Backs, ServerImage
from attestd.daemon.config import BackPeer, ServerSettings
from attestd.daemon.http_doors import HttpDoor
from attestd.enforcement.link import ServerError
from attestd.enforcement.workers import Workers
from attestd.errors import AttestdError, Cause
from attestd.evidence.protocol import AbsentRecorder
from attestd.evidence.sealing import SealError
from attestd.grants.pins import Pin
from attestd.kernel.linux.kernel import LinuxKernel
from attestd.kernel.linux.tcp.acceptors import LinuxAcceptors
from tests.fakes.launcher import FakeLauncher
from tests.fakes.pins import Pins

pytestmark = pytest.mark.linux("TCP peers")

ACCEPT = """
import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1])))
s.listen()
print(s.getsockname()[1], flush=True)
kept = []
while True:
    kept.append(s.accept()[0])
    if len(sys.argv) > 2:
        kept.pop().close()
"""


class Listener:
    """A process that accepts everything; another ``mark`` makes another program of it."""

    def __init__(self, root: Path, mark: str = "", port: int = 0, *words: str) -> None:
        script = root / f"accept{mark}.py"
        script.write_text(ACCEPT + f"# {mark}\n")
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(port), *words], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


class Bench:
    """Doors over the real kernel."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.kernel = LinuxKernel(AbsentRecorder())
        self.acceptors: LinuxAcceptors | None = LinuxAcceptors()
        self.workers = Workers(2, "doors")
        self.seen: list[ServerImage] = []
        self.pins = Pins()
        self.pinned: list[Pin] = []
        self.states: list[str] = []
        self.marked = 0
        self.sealed = False
        self.doors: list[HttpDoor] = []
        self.backs = Backs(
            loop=asyncio.get_running_loop(),
            launcher=FakeLauncher(),
            kernel=self.kernel,
            workers=self.workers,
            attest_seconds=lambda: 20.0,
            seen=lambda _name, image: self.seen.append(image),
        )

    def let_through(self, sock: socket.socket) -> None:
        """As sealing does: before the socket is connected."""
        if self.sealed:
            raise SealError("cannot pass seals: no right")
        with pytest.raises(OSError, match="not connected"):
            sock.getpeername()
        self.marked += 1

    def door(self, port: int, *, host: str = "127.0.0.1", **changes: Any) -> HttpDoor:
        """A door to this port."""
        settings = {"name": "far", "transport": "http", "url": f"http://{host}:{port}/mcp", **changes}
        door = HttpDoor(
            loop=asyncio.get_running_loop(),
            server=ServerSettings(**settings),
            backs=self.backs,
            acceptors=self.acceptors,
            pins=self.pins,
            pinned=self.pinned.append,
            state=lambda _name, trouble: self.states.append(trouble),
            let_through=self.let_through,
        )
        door.prepare()
        self.doors.append(door)
        return door

    async def refused(self, door: HttpDoor) -> ServerError:
        """How connecting is refused."""
        with pytest.raises(ServerError) as found:
            await door.connect()
        assert self.states[-1] == found.value.message
        return found.value


@pytest.fixture(name="bench")
async def _bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    for door in bench.doors:
        door.close()
    bench.workers.shutdown()
    bench.kernel.close()
    if bench.acceptors is not None:
        bench.acceptors.close()


@pytest.fixture(name="listener")
def _listener(tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(tmp_path)
    yield listener
    listener.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_the_first_program_is_pinned(bench: Bench, listener: Listener, host: str):
    """It is recorded before it is kept, seen once for all its connections, and accepted again."""
    door = bench.door(listener.port, host=host)
    for _ in range(3):
        (await door.connect()).close()
    (pin,) = bench.pinned
    assert bench.pins.kept["far", door.url.text] == pin
    (image,) = bench.seen
    assert (image.pid, image.uid, image.digest) == (listener.process.pid, os.geteuid(), pin.program)
    assert "accept.py" in image.describe
    assert bench.states == ["", "", ""]


async def test_a_stranger_on_the_port(bench: Bench, listener: Listener):
    """Another program in the server's place is refused with both digests and a way out; the right one comes back."""
    door = bench.door(listener.port)
    (await door.connect()).close()
    listener.close()
    stranger = Listener(bench.root, "stranger", listener.port)
    try:
        error = await bench.refused(door)
        assert error.cause is Cause.SERVER_UNTRUSTED
        assert f"expected {bench.pinned[0].program[:16]}" in error.message
        assert "attestctl servers trust far" in error.message
        assert "acceptstranger.py" in error.message
    finally:
        stranger.close()
    again = Listener(bench.root, "", listener.port)
    try:
        (await door.connect()).close()
        assert len(bench.pinned) == 1
        bench.pins.drop_pins("far")
        (await door.connect()).close()
        assert len(bench.pinned) == 2
    finally:
        again.close()


async def test_the_registry_names_the_program(bench: Bench, listener: Listener):
    """Then nothing is pinned, and any other is refused."""
    probe = bench.door(listener.port)
    (await probe.connect()).close()
    program = bench.pins.kept["far", probe.url.text].program
    bench.pins.kept.clear()
    (await bench.door(listener.port, peer=BackPeer(program=program)).connect()).close()
    assert bench.pins.kept == {}
    error = await bench.refused(bench.door(listener.port, peer=BackPeer(program="00" * 32)))
    assert error.cause is Cause.SERVER_UNTRUSTED
    error = await bench.refused(bench.door(listener.port, peer=BackPeer(exe_sha256="00" * 32)))
    assert error.cause is Cause.SERVER_UNTRUSTED


async def test_a_server_of_another_user(bench: Bench, listener: Listener):
    """The uid of the registry counts."""
    error = await bench.refused(bench.door(listener.port, peer=BackPeer(uid=os.geteuid() + 1)))
    assert error.cause is Cause.SERVER_UNTRUSTED
    assert f"uid {os.geteuid()} listens on 127.0.0.1:{listener.port}" in error.message


async def test_a_program_that_cannot_be_told(bench: Bench):
    """Code from standard input has no digest to pin."""
    words = [sys.executable, "-", "0"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - brief
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(ACCEPT)
    process.stdin.close()
    try:
        error = await bench.refused(bench.door(int(process.stdout.readline())))
        assert (error.cause, "cannot pin" in error.message) == (Cause.SERVER_UNTRUSTED, True)
        assert bench.pins.kept == {}
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def test_a_pin_that_cannot_be_kept(bench: Bench, listener: Listener):
    """Then the server is not used."""
    bench.pins.failure = AttestdError("the disk is full")
    error = await bench.refused(bench.door(listener.port))
    assert (error.cause, "the disk is full" in error.message) == (Cause.SERVER_UNAVAILABLE, True)
    assert bench.seen == []


async def test_nobody_is_there(bench: Bench, listener: Listener):
    """The address and the reason."""
    listener.close()
    error = await bench.refused(bench.door(listener.port))
    assert error.cause is Cause.SERVER_UNAVAILABLE
    assert error.message == f"cannot connect to 127.0.0.1:{listener.port}: Connection refused"


async def test_connections_on_this_machine_are_let_through_seals(bench: Bench, listener: Listener):
    """Each of them is marked before it is made; what cannot be marked is not tried."""
    door = bench.door(listener.port)
    for _ in range(2):
        (await door.connect()).close()
    assert bench.marked == 2
    bench.sealed = True
    refused = await bench.refused(door)
    assert (refused.cause, "cannot pass seals" in refused.message) == (Cause.SERVER_UNAVAILABLE, True)


async def test_a_server_that_does_not_accept(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """Nobody has the connection, so nobody gets a byte."""
    monkeypatch.setattr(http_doors, "CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        error = await bench.refused(bench.door(listening.getsockname()[1]))
    assert (error.cause, "no process has accepted" in error.message) == (Cause.SERVER_UNAVAILABLE, True)


async def test_a_server_that_hangs_up(bench: Bench):
    """It says so at once."""
    listener = Listener(bench.root, "", 0, "close")
    try:
        error = await bench.refused(bench.door(listener.port))
        assert error.cause in {Cause.SERVER_UNAVAILABLE, Cause.SERVER_UNTRUSTED}
    finally:
        listener.close()


async def test_without_a_way_to_attest(bench: Bench, listener: Listener):
    """A system that cannot say who accepts gets no loopback server."""
    assert bench.acceptors is not None
    bench.acceptors.close()
    bench.acceptors = None
    error = await bench.refused(bench.door(listener.port))
    assert error.cause is Cause.SERVER_UNTRUSTED


async def test_secrets_are_read_when_they_are_needed(bench: Bench, listener: Listener):
    """Token and headers come from their files, anew each time; a bad file is named, not shown."""
    token, key = bench.root / "token", bench.root / "key"
    for path, text in ((token, "t0ken"), (key, "k3y")):
        path.write_text(text)
        path.chmod(0o600)
    door = bench.door(listener.port, token_file=str(token), header_files={"X-Key": str(key)})
    assert door.own_headers == [("X-Key", "k3y"), ("Authorization", "Bearer t0ken")]
    token.write_text("an0ther")
    door.prepare()
    assert door.own_headers[1] == ("Authorization", "Bearer an0ther")
    token.chmod(0o644)
    with pytest.raises(ServerError) as found:
        door.prepare()
    assert str(token) in found.value.message
    assert "an0ther" not in found.value.message


async def test_certificates_that_cannot_be_read(bench: Bench):
    """The file is named."""
    with pytest.raises(ServerError, match=r"cannot use the certificates of /nowhere\.pem"):
        bench.door(1, url="https://127.0.0.1/mcp", ca_file="/nowhere.pem")


async def test_only_so_many_processes_are_remembered(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """The one that was not used for longest is let go."""
    monkeypatch.setattr(http_doors, "KNOWN", 1)
    door = None
    port = 0
    for _ in range(2):
        listener = Listener(bench.root, "", port)
        port = listener.port
        door = door or bench.door(port)
        (await door.connect()).close()
        listener.close()
    assert door is not None
    assert len(door._known) == 1
