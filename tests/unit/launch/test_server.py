"""One started server as the daemon holds it, with the supervisor's words played by the test."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from attestd.launch.protocol import LaunchError
from attestd.launch.server import ServerProcess


class Stage:
    """A server object whose supervisor and server are the test itself."""

    def __init__(self) -> None:
        self.exits: list[str] = []
        self.gone: list[ServerProcess] = []
        line, self.supervisor = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line.settimeout(0)
        self.stdin, stdin = os.pipe()
        stdout, self.stdout = os.pipe()
        stderr, self.stderr = os.pipe()
        os.set_blocking(stderr, False)
        self.server = ServerProcess(
            file="/bin/server",
            line=line,
            fds=(stdin, stdout, stderr),
            on_exit=self.exits.append,
            on_gone=self.gone.append,
        )

    def close(self) -> None:
        """Let go of everything."""
        self.server.abandon()
        self.supervisor.close()
        for fd in (self.stdin, self.stdout, self.stderr):
            os.close(fd)


async def test_an_early_exit_is_told_after_the_object_was_handed_over() -> None:
    """A server that ends before ``start`` returned is told once, and not before its caller has it."""
    stage = Stage()
    stage.supervisor.send(b"started\x0042")
    stage.supervisor.send(b"exit\0exited with status 1")
    await stage.server.started
    await asyncio.sleep(0.01)
    assert stage.server.pid == 42
    assert stage.exits == []
    stage.server.handed_over()
    assert stage.exits == ["exited with status 1"]
    stage.supervisor.close()
    await stage.server.gone.wait()
    assert stage.exits == ["exited with status 1"]
    assert stage.gone == [stage.server]
    stage.close()


async def test_a_failure_becomes_the_error_of_the_start() -> None:
    """The supervisor's report is what ``started`` raises."""
    stage = Stage()
    stage.supervisor.send(b"failed\x0013\0execute /bin/server")
    with pytest.raises(LaunchError, match="cannot execute /bin/server: Permission denied"):
        await stage.server.started
    stage.close()


async def test_a_line_that_closes_first_is_an_error() -> None:
    """A launcher that dies during a start makes it fail instead of hang."""
    stage = Stage()
    stage.supervisor.close()
    with pytest.raises(LaunchError, match="the launcher ended before the server was started"):
        await stage.server.started
    stage.close()


async def test_a_vanished_supervisor_is_told() -> None:
    """The closing of the line without an exit text still tells ``on_exit``."""
    stage = Stage()
    stage.supervisor.send(b"started\x0042")
    await stage.server.started
    stage.server.handed_over()
    stage.supervisor.close()
    await stage.server.gone.wait()
    assert stage.exits == ["ended because its supervisor is gone"]
    stage.close()


async def test_stop_takes_its_descriptors_off_the_loop() -> None:
    """Readers and writers that the session left registered do not outlive the descriptors; the supervisor is told."""
    stage = Stage()
    loop = asyncio.get_running_loop()
    loop.add_reader(stage.server.stdout_fd, lambda: None)
    loop.add_writer(stage.server.stdin_fd, lambda: None)
    old = stage.server.stdout_fd
    stage.server.stop()
    assert not loop.remove_reader(old)
    assert (stage.server.stdin_fd, stage.server.stdout_fd) == (-1, -1)
    assert stage.supervisor.recv(64) == b"stop"
    stage.close()


async def test_the_tail_is_bounded_and_readable() -> None:
    """Only the last 4096 bytes are kept; invalid UTF-8 is replaced."""
    stage = Stage()
    for _ in range(3):
        os.write(stage.stderr, b"\xff" + b"x" * 5000 + b"end\xff")
    await asyncio.sleep(0.01)
    tail = stage.server.stderr_tail()
    assert len(tail) == 4096
    assert tail.endswith("xend\ufffd")
    stage.close()
