"""Scenes on the Mac in memory: who started whom, with files that are really signed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attestd.errors import Cause
from attestd.evidence.model import Evidence, Peer
from attestd.evidence.protocol import Collected, Watch
from attestd.kernel.darwin.files import FileReader
from attestd.kernel.darwin.kernel import DarwinKernel
from attestd.kernel.darwin.libsystem import System
from tests.fakes.libsystem import AD_HOC, HARDENED, PLATFORM_STATUS, Code, Mac, Proc
from tests.support import mach

TEAM = "Q6L2SF6YDW"
TTY = 0x10000003


class Scene:
    """A Mac with a terminal: launchd, Terminal, login, zsh; ``directory`` holds the files."""

    def __init__(self, directory: Path, daemon_uid: int = 501) -> None:
        self.directory = directory
        self.mac = Mac(daemon_uid)
        self.system = System(self.mac)
        self.files = FileReader(self.system)
        self.terminal = self.mac.spawn(1, self.apple("Terminal", "com.apple.Terminal"), uids=(501, 501, 501))
        self.login = self.mac.spawn(self.terminal.pid, self.apple("login", "com.apple.login"), uids=(0, 0, 0))
        self.zsh = self.mac.spawn(
            self.login.pid, self.apple("zsh", "com.apple.zsh"), "-zsh", uids=(501, 501, 501), tty=TTY
        )
        self.zsh.session = self.zsh.pid

    def apple(self, name: str, identity: str) -> Code:
        """A program of Apple's."""
        return self.code(name, identity, status=PLATFORM_STATUS, category=1)

    def signed(self, name: str, identity: str = "com.example.agent", **facts: Any) -> Code:
        """A Developer ID program with the hardened runtime."""
        return self.code(name, identity, **({"status": HARDENED, "team": TEAM, "category": 6} | facts))

    def code(self, name: str, identity: str = "prog", **facts: Any) -> Code:
        """A program with a file of its own; ad hoc unless it says otherwise."""
        path = self.directory / name
        return Code(str(path), mach.write(path, identity), **({"status": AD_HOC, "identity": identity} | facts))

    def kernel(self) -> DarwinKernel:
        """The room on this Mac."""
        return DarwinKernel(self.mac)

    def agent(self, **facts: Any) -> Proc:
        """A signed program that the shell started."""
        return self.mac.spawn(self.zsh.pid, self.signed("agent"), "agent", **facts)


@contextlib.contextmanager
def scene(daemon_uid: int = 501) -> Iterator[Scene]:
    """A scene in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="mac-") as directory:
        made = Scene(Path(os.path.realpath(directory)), daemon_uid)
        yield made
        made.mac.close()


class MacWatch:
    """A watch of the room that tells when it is closed, and can make true what it is to find."""

    def __init__(self, kernel: MacKernel, watch: Watch) -> None:
        self._kernel, self._watch = kernel, watch
        self._open = True

    @property
    def found(self) -> Cause | None:
        """What it says now."""
        return self._watch.verify(0)

    @found.setter
    def found(self, cause: Cause) -> None:
        assert cause is Cause.IMAGE_CHANGED, "nothing else can be made true here"
        self._kernel.mac.execute(os.getpid(), self._kernel.scene.code("other"))

    def verify(self, writer_pid: int) -> Cause | None:
        """As the room says."""
        return self._watch.verify(writer_pid)

    def exit_fds(self) -> tuple[int, ...]:
        """As the room says."""
        return self._watch.exit_fds()

    def pin_accountable(self, index: int) -> None:
        """As the room does."""
        self._watch.pin_accountable(index)

    def leave_connection(self) -> None:
        """As the room does."""
        self._watch.leave_connection()

    def close(self) -> None:
        """One watch less."""
        self._kernel.open -= self._open
        self._open = False
        self._watch.close()


class MacKernel(DarwinKernel):
    """The room on a Mac where every connection comes from the test's own process, a program in a terminal.

    It can be told what ``tests.fakes.kernel.OneProcess`` can be told, so that the same tests run on both.
    """

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="mac-")
        self.scene = Scene(Path(os.path.realpath(self._directory.name)), os.geteuid())
        self.mac = self.scene.mac
        us = self.mac.processes[os.getpid()]
        us.code = self.scene.signed("agent")
        us.status, us.argv = us.code.status, ("python3", "client.py")
        super().__init__(self.mac)
        self.open = 0
        self.watches: list[MacWatch] = []
        self.failure: Exception | None = None
        self.evidence: Evidence | None = None

    def collect(self, sock_fd: int, peer: Peer) -> Collected:
        """As the room does, or as it was told to fail."""
        if self.failure is not None:
            raise self.failure
        return self._kept(super().collect(sock_fd, peer))

    def collect_pid(self, pid: int) -> Collected:
        """As the room does; a pid that this Mac does not have yet is a server that the daemon has started."""
        if self.failure is not None:
            raise self.failure
        if pid not in self.mac.processes:
            self.mac.spawn(os.getpid(), self.scene.code("server"), pid=pid)
        return self._kept(super().collect_pid(pid))

    def end(self) -> None:
        """The Mac is switched off."""
        self.mac.close()
        self._directory.cleanup()

    def _kept(self, found: Collected) -> Collected:
        self.open += 1
        self.evidence = found.evidence
        self.watches.append(MacWatch(self, found.watch))
        return Collected(evidence=found.evidence, watch=self.watches[-1])
