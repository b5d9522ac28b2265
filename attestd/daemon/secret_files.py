"""Secrets for back ends, from files: read when they are needed, kept nowhere, shown nowhere.

The file is the daemon's own or root's, nobody else can read it, and it holds one line that can stand in a header. What
is wrong is said with the file's name, never with its content.
"""

from __future__ import annotations

import os
import re
import stat

from attestd.errors import ConfigurationError

LIMIT_BYTES = 8192
_VALUE = re.compile(rb"[!-~](?:[ -~]*[!-~])?\Z")


def read_secret(path: str) -> str:
    """The one line of a file. Raises ConfigurationError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigurationError(f"cannot read the secret {path}: {(error.strerror or 'error').lower()}") from error
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise ConfigurationError(f"cannot use the secret {path}: it is not a regular file")
        if facts.st_uid not in {os.geteuid(), 0} or facts.st_mode & 0o077:
            raise ConfigurationError(
                f"cannot use the secret {path}: it belongs to uid {facts.st_uid} with mode "
                f"{stat.S_IMODE(facts.st_mode):04o}, expected uid {os.geteuid()} and mode 0600",
                hint=f"run: chmod 0600 {path}",
            )
        content = os.read(fd, LIMIT_BYTES + 1)
    finally:
        os.close(fd)
    value = content.removesuffix(b"\n").removesuffix(b"\r")
    if len(content) > LIMIT_BYTES or not _VALUE.match(value):
        raise ConfigurationError(
            f"cannot use the secret {path}: expected one line of printable ASCII of at most {LIMIT_BYTES} bytes"
        )
    return value.decode("ascii")
