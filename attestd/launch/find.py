"""Finding a server's program with the search path of its own environment, and saying exactly why it cannot run."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from attestd.launch.protocol import Command, LaunchError

SANDBOX_HINTS = {
    "take the network away": "allow unprivileged user namespaces here, or leave network = false out",
    "make files read-only (": "use Linux 6.2 or later with landlock among its security modules, or leave read_only out",
    "make /": "make that directory, or leave it out of writable",
    "limit ": "the limit may not be above the launcher's own",
}
"""What helps where a server could not be confined, by the beginning of the stage."""


def find_program(command: Command) -> str:
    """The file to execute; only ``PATH`` of the command's environment counts. Raises LaunchError."""
    name = command.argv[0] if command.argv else ""
    if not name:
        raise LaunchError("cannot start a server: its command is empty", hint='set command = ["program", …]')
    if "/" in name:
        return name
    search = dict(command.env).get("PATH", "")
    for directory in search.split(":"):
        file = Path(directory, name)
        if file.is_absolute() and _executable(file):
            return str(file)
    raise LaunchError(
        f"cannot start {name}: no such program in PATH, got PATH={search or '(not set)'}",
        hint="give its full path, or set PATH in the server's env",
    )


def _executable(file: Path) -> bool:
    """Whether this is a regular file that may be executed."""
    try:
        return stat.S_ISREG(file.stat().st_mode) and os.access(file, os.X_OK)
    except OSError:
        return False


def explain(file: str, number: int, stage: str) -> LaunchError:
    """The launcher's report of a failed start, for a person. ``stage`` is what was being done."""
    reason = os.strerror(number)
    hint = next((text for begin, text in SANDBOX_HINTS.items() if stage.startswith(begin)), "")
    if stage.startswith("execute"):
        if number == errno.ENOENT and Path(file).exists():
            reason = f"its interpreter {_interpreter(file)} does not exist"
        elif number == errno.ENOENT:
            reason = "no such file"
        elif number == errno.ENOEXEC:
            reason = "it is neither a binary for this machine nor a script that begins with #!"
        elif number == errno.EACCES and Path(file).is_dir():
            reason = "it is a directory"
        elif number == errno.EACCES:
            hint = f"make it executable for this user: chmod +x {file}"
    return LaunchError(f"cannot start {file}: cannot {stage}: {reason}", hint=hint)


def _interpreter(file: str) -> str:
    """What the first line of a script names, or the dynamic loader in general."""
    try:
        with Path(file).open("rb") as opened:
            line = opened.readline(256)
    except OSError:
        line = b""
    words = line[2:].split()
    return os.fsdecode(words[0]) if line.startswith(b"#!") and words else "or dynamic loader"
