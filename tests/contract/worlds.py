"""The machines that the recorder contract runs on: a simulated one, and this one with each recorder."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from collections.abc import Iterator
from typing import Protocol

from attestd.evidence.recorder import ProcessKey, Recorder
from tests.fakes.recorder import FakeRecorder
from tests.support.puppets import Puppet, Stage

SMALL_BUFFER = 16384
"""Bytes: room for about fifty events."""
RECEIVE_BYTES = 8 << 20
_names = itertools.count()


class World(Protocol):
    """A machine and its recorder. Keys are as /proc shows them: start times are cut to the tick."""

    name: str
    words: bool
    """Words, proven images and connections are recorded."""

    @property
    def recorder(self) -> Recorder:
        """The recorder under test."""

    def enter(self) -> ProcessKey:
        """A new process, younger than the recorder, whose parent is older."""

    def fork(self, parent: ProcessKey) -> ProcessKey:
        """A child of a living process."""

    def thread(self, key: ProcessKey) -> None:
        """A thread of a process starts and ends."""

    def execute(self, key: ProcessKey) -> None:
        """A living process executes a program."""

    def exit(self, key: ProcessKey) -> None:
        """A living process ends and is reaped."""

    def connect(self, key: ProcessKey) -> int:
        """A living process connects a TCP socket; the socket's cookie."""

    def reuse(self, key: ProcessKey, parent: ProcessKey) -> ProcessKey:
        """A child of ``parent`` with the pid of the ended process ``key``."""

    def lose(self, parent: ProcessKey) -> ProcessKey:
        """Events are lost; meanwhile ``parent`` gets a child, which lives."""

    def close(self) -> None:
        """End what was started."""


class SimulatedWorld:
    """The fake recorder on its own machine."""

    def __init__(self, *, fallback: bool) -> None:
        self.name = "fake fallback" if fallback else "fake"
        self.words = not fallback
        self.recorder = FakeRecorder(fallback=fallback)
        self._init = self.recorder.boot()

    def enter(self) -> ProcessKey:
        return self.recorder.fork(self._init)

    def fork(self, parent: ProcessKey) -> ProcessKey:
        return self.recorder.fork(parent)

    def thread(self, key: ProcessKey) -> None:
        del key

    def execute(self, key: ProcessKey) -> None:
        self.recorder.execute(key, "/usr/bin/python3", "-I", "-S")

    def exit(self, key: ProcessKey) -> None:
        self.recorder.exit(key)

    def connect(self, key: ProcessKey) -> int:
        return self.recorder.connect(key)

    def reuse(self, key: ProcessKey, parent: ProcessKey) -> ProcessKey:
        return self.recorder.fork(parent, pid=key.pid)

    def lose(self, parent: ProcessKey) -> ProcessKey:
        with self.recorder.losing():
            return self.recorder.fork(parent)

    def close(self) -> None:
        self.recorder.close()


class RealWorld:
    """Real processes and a recorder of this machine."""

    words = False

    def __init__(self) -> None:
        self._stage = Stage()
        self._puppets: dict[ProcessKey, Puppet] = {}
        self._server = socket.create_server(("127.0.0.1", 0))

    def enter(self) -> ProcessKey:
        return self._known(self._stage.enter())

    def fork(self, parent: ProcessKey) -> ProcessKey:
        return self._known(self._puppets[parent].fork())

    def thread(self, key: ProcessKey) -> None:
        self._puppets[key].tell("thread")

    def execute(self, key: ProcessKey) -> None:
        self._puppets[key].execute()

    def exit(self, key: ProcessKey) -> None:
        self._puppets[key].exit()

    def connect(self, key: ProcessKey) -> int:
        from attestd.kernel.linux.tcp.diag import Diag

        host, port = self._server.getsockname()
        self._puppets[key].tell(f"connect {host} {port}")
        accepted, _ = self._server.accept()
        with accepted, contextlib.closing(Diag()) as diag:
            return diag.client(accepted).cookie

    def reuse(self, key: ProcessKey, parent: ProcessKey) -> ProcessKey:
        for _ in range(20):
            new = self._known(self._puppets[parent].fork(key.pid))
            if new.pid == key.pid:
                return new
            self.exit(new)
        raise TimeoutError(f"pid {key.pid} could not be had again")

    def _known(self, puppet: Puppet) -> ProcessKey:
        key = ProcessKey(puppet.pid, puppet.start_ns)
        self._puppets[key] = puppet
        return key

    def _end(self) -> None:
        self._stage.__exit__()
        self._server.close()


class ConnectorWorld(RealWorld):
    """The proc connector."""

    name = "connector"

    def __init__(self) -> None:
        from attestd.kernel.linux.connector.recorder import ConnectorRecorder

        super().__init__()
        try:
            self.recorder = ConnectorRecorder()
        except BaseException:
            self._end()
            raise

    def lose(self, parent: ProcessKey) -> ProcessKey:
        feed = self.recorder._feed
        with self.recorder._lock:  # the reading thread waits for it
            feed._enlarge(SMALL_BUFFER)
            try:
                self._puppets[parent].tell("forks 200")
                return self.fork(parent)
            finally:
                feed._enlarge(RECEIVE_BYTES)

    def close(self) -> None:
        self.recorder.close()
        self._end()


class BpfWorld(RealWorld):
    """The BPF recorder, loaded for this test under a name of its own."""

    name = "bpf"
    words = True

    def __init__(self) -> None:
        from attestd.kernel.linux.recorder import pins
        from attestd.kernel.linux.recorder.load import load
        from attestd.kernel.linux.recorder.reader import BpfRecorder
        from attestd.kernel.linux.recorder.unload import unload

        super().__init__()
        self._root = f"{pins.BPF_FS}/attestd-contract-{os.getpid()}-{next(_names)}"
        self._unload = unload
        try:
            load(self._root)
            self.recorder = BpfRecorder.open(self._root)
        except BaseException:
            self._end()
            raise

    def lose(self, parent: ProcessKey) -> ProcessKey:
        raise NotImplementedError("its process table loses only what has no room")

    def close(self) -> None:
        self.recorder.close()
        self._unload(self._root)
        self._end()


@contextlib.contextmanager
def world(name: str) -> Iterator[World]:
    """The world of that name."""
    makers = {
        "fake": lambda: SimulatedWorld(fallback=False),
        "fake-fallback": lambda: SimulatedWorld(fallback=True),
        "connector": ConnectorWorld,
        "bpf": BpfWorld,
    }
    made: World = makers[name]()
    try:
        yield made
    finally:
        made.close()
