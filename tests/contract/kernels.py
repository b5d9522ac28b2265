"""The machines that the kernel contract runs on: this one with real processes, and a Mac in memory."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from attestd.evidence.protocol import Kernel
from attestd.kernel.darwin.kernel import DarwinKernel
from tests.fakes.libsystem import AD_HOC, Code, Mac
from tests.support import mach
from tests.support.puppets import Puppet, Stage


class World(Protocol):
    """A machine. Processes are named by their pids."""

    name: str

    @property
    def kernel(self) -> Kernel:
        """The kernel under test."""

    def child(self) -> int:
        """A new process, our own child, that is connected to us."""

    def fork(self, pid: int) -> int:
        """A child of a living process, with a connection of its own."""

    def connection(self, pid: int) -> socket.socket:
        """Our end of the connection of a process."""

    def execute(self, pid: int) -> None:
        """A living process executes a program, and keeps its connection."""

    def exit(self, pid: int) -> None:
        """A living process ends and is reaped."""


class Linux:
    """This machine."""

    name = "linux"

    def __init__(self, stage: Stage) -> None:
        from attestd.kernel.linux.kernel import LinuxKernel

        self.kernel = LinuxKernel()
        self._stage = stage
        self._puppets: dict[int, Puppet] = {}
        self._doors: dict[int, socket.socket] = {}

    def child(self) -> int:
        """A puppet."""
        return self._known(self._stage.enter())

    def fork(self, pid: int) -> int:
        """Its child."""
        return self._known(self._puppets[pid].fork())

    def connection(self, pid: int) -> socket.socket:
        """Its door, which stays open when the puppet has ended."""
        return self._doors[pid]

    def execute(self, pid: int) -> None:
        """Python again."""
        self._puppets[pid].execute()

    def exit(self, pid: int) -> None:
        """As told."""
        self._puppets[pid].exit()

    def _known(self, puppet: Puppet) -> int:
        self._puppets[puppet.pid] = puppet
        self._doors[puppet.pid] = puppet._door.dup()
        return puppet.pid

    def close(self) -> None:
        """Close every door."""
        for door in self._doors.values():
            door.close()
        self.kernel.close()


class InMemory:
    """A Mac."""

    name = "darwin"

    def __init__(self, directory: Path) -> None:
        self.mac = Mac()
        self._code = [
            Code(str(directory / name), mach.write(directory / name, name), AD_HOC, name) for name in ("one", "two")
        ]
        self.kernel = DarwinKernel(self.mac)
        self._ends: dict[int, tuple[socket.socket, socket.socket]] = {}

    def child(self) -> int:
        """A process of ours."""
        return self._connected(self.mac.spawn(os.getpid(), self._code[0]).pid)

    def fork(self, pid: int) -> int:
        """Its child."""
        return self._connected(self.mac.fork(pid).pid)

    def connection(self, pid: int) -> socket.socket:
        """A socket pair of the test's."""
        return self._ends[pid][0]

    def execute(self, pid: int) -> None:
        """The other program."""
        self.mac.execute(pid, self._code[1])

    def exit(self, pid: int) -> None:
        """As told; its end of the connection goes with it."""
        self.mac.exit(pid)
        self._ends[pid][1].close()

    def close(self) -> None:
        """Close every socket."""
        for pair in self._ends.values():
            for end in pair:
                end.close()
        self.mac.close()

    def _connected(self, pid: int) -> int:
        self._ends[pid] = self.mac.connect(pid)
        return pid


@contextlib.contextmanager
def world(name: str) -> Iterator[World]:
    """The machine of that name."""
    if name == "linux":
        if sys.platform != "linux":
            pytest.skip("needs Linux")
        with Stage() as stage:
            made = Linux(stage)
            yield made
            made.close()
        return
    with tempfile.TemporaryDirectory() as directory:
        mac = InMemory(Path(os.path.realpath(directory)))
        yield mac
        mac.close()
