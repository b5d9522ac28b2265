"""Scenes on the Mac in memory: who started whom, with files that are really signed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
