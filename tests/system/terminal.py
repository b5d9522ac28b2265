"""A person at a terminal of the system: logs in with a password, types, reads what is shown."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time

from tests.system.machine import Machine
from tests.system.report import until


class Terminal:
    """A login session on a pseudo-terminal; ends with ``close``."""

    def __init__(self, machine: Machine, user: str, password: str) -> None:
        """Log in by login(1), as on a console."""
        self._ours, theirs = pty.openpty()
        self.seen = ""
        unit = ("systemd-run", "--quiet", "--wait", "--pty", "--collect", "--service-type=exec", "--setenv=TERM=dumb")
        command = machine.enter(*unit, "--", "/bin/login", user)
        self._process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        self.expect(r"[Pp]assword: ")
        self.type(password)
        self.expect(r"\$ ")
        self._machine = machine
        self.type("tty")
        self._tty = re.findall(r"/dev/pts/\d+", self.expect(r"/dev/pts/\d+\s[^$]*\$ "))[0]

    def type(self, text: str) -> None:
        """One line."""
        os.write(self._ours, text.encode() + b"\r")

    def expect(self, pattern: str, seconds: float = 60) -> str:
        """What is shown up to the pattern, which is then behind us. Raises AssertionError."""
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self.seen)) is None:
            ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise AssertionError(f"not shown within {seconds:g} s: {pattern!r}; shown: {self.seen[-800:]!r}")
            try:
                self.seen += os.read(self._ours, 4096).decode(errors="replace")
            except OSError as error:
                raise AssertionError(f"the terminal has ended; shown: {self.seen[-800:]!r}") from error
        shown, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return shown

    def run(self, command: str, *, password: str = "") -> tuple[int, str]:
        """Type a command, and the password when it is asked for; exit code and what was shown."""
        self.type(f"{command}; echo exit=$?=")
        ended = r"exit=\d+="
        shown = self.expect(f"[Pp]assword: |{ended}" if password else ended)
        if not re.search(ended, shown):
            # The agent prompts first, then stops the echo and drops what was typed: a person is slower than that.
            until(self._hidden, "what is typed is not shown")
            self.type(password)
            shown += self.expect(ended)
        code = re.findall(r"exit=(\d+)=", shown)[-1]
        self.expect(r"\$ ")
        return int(code), shown

    def _hidden(self) -> bool:
        """Whether the terminal does not echo."""
        command = self._machine.enter("stty", f"--file={self._tty}", "--all")
        shown = subprocess.run(command, check=False, capture_output=True, text=True).stdout
        return " -echo " in shown

    def close(self) -> None:
        """Log out."""
        self.type("exit")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._ours)
