"""A person at a terminal of a system installation: a shell under tmux, as that user, with words that are typed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from tests.support.system_instance import SystemInstance

LOOK_S = 0.2
PATIENCE_S = 60.0


class Person:
    """Types, and sees what is on the screen."""

    def __init__(self, instance: SystemInstance, uid: int) -> None:
        self._instance = instance
        self._uid = uid
        directory = instance.root / f"tmux-{uid}"
        directory.mkdir(mode=0o700, exist_ok=True)
        os.chown(directory, uid, uid)
        self._socket = str(directory / "s")
        self._tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", "200", "-y", "50", "bash", "--norc", "--noprofile", "-i"
        )
        self._count = 0

    def _tmux(self, *words: str) -> str:
        done = self._instance.run("tmux", "-S", self._socket, *words, uid=self._uid)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def type(self, text: str) -> None:
        """Type a line."""
        self._tmux("send-keys", "-l", text)
        self._tmux("send-keys", "Enter")

    def press(self, key: str) -> None:
        """Press one key, such as C-c."""
        self._tmux("send-keys", key)

    def begin(self, command: str) -> None:
        """Type a command whose end is marked."""
        self._count += 1
        self.type(f"echo begun no{self._count}; {command}; echo ended $? no{self._count}")

    def screen(self) -> str:
        """What the command that began last has said, in lines that are not cut; empty before it begins."""
        lines = self._tmux("capture-pane", "-p", "-J", "-S", "-500").splitlines()
        begun = f"begun no{self._count}"
        first = next((at for at, line in enumerate(lines) if line.rstrip() == begun), len(lines))
        return "\n".join(lines[first + 1 :]).rstrip()

    def sees(self, text: str) -> str:
        """Wait until this is on the screen."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in (seen := self.screen()):
            assert time.monotonic() < deadline, f"{text!r} does not come: {seen}"
            time.sleep(LOOK_S)
        return seen

    def ended(self) -> tuple[int, str]:
        """Wait for the end of the command: its exit code, and the screen."""
        mark = f" no{self._count}"
        deadline = time.monotonic() + PATIENCE_S
        while True:
            seen = self.screen()
            for line in seen.splitlines():
                if line.startswith("ended ") and line.rstrip().endswith(mark):
                    return int(line.split()[1]), seen
            assert time.monotonic() < deadline, seen
            time.sleep(LOOK_S)

    def leave(self) -> None:
        """End the terminal."""
        self._instance.run("tmux", "-S", self._socket, "kill-server", uid=self._uid)


@contextlib.contextmanager
def at_a_terminal(instance: SystemInstance, uid: int) -> Iterator[Person]:
    """Somebody who sits there."""
    person = Person(instance, uid)
    try:
        yield person
    finally:
        person.leave()
