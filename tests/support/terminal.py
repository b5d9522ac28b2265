"""attestctl on a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios

from tests.support.control_instance import Installation


def on_terminal(
    installation: Installation, *words: str, answer: str = "", columns: int = 100, env: dict[str, str] | None = None
) -> tuple[int, str]:
    """Run attestctl with all three streams on a terminal, type ``answer``; return exit code and what was seen."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 50, columns, 0, 0))
    process = subprocess.Popen(
        [str(installation.attestctl), *words],
        env=installation.environment(TERM="xterm-256color", **(env or {})),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, answer.encode())
    seen = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # EIO: the other end has closed
            break
        if not data:
            break
        seen += data
    os.close(ours)
    return process.wait(30), seen.decode(errors="replace").replace("\r\n", "\n")
