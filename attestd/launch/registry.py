"""The registry as the launcher of system mode reads it: by name, for itself, and only where root alone can write.

Standard library only: this runs in an isolated interpreter.

Rules
- The name is 1 to 64 of ``a-z 0-9 . _ -``, the first a letter or digit: it is one file name and cannot be a path.
- Every directory from the root down, and the file, is opened from the one before it, without following links, and must
  belong to root and be writable by nobody else. What was checked is what is read: one descriptor does both.
- Types are checked again here; what the launcher does not understand is refused and not guessed.
"""

import errno
import os
import re
import stat
import sys
import tomllib
from typing import Any

from attestd.launch.refusal import RefusedError
from attestd.launch.sandbox import CGROUP_LIMITS, RLIMITS, Sandbox

if sys.platform != "linux":
    sys.exit("error: cannot launch servers on this platform: the launcher needs Linux")

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
FILE_BYTES = 1 << 16
ORDER_BYTES = 128 << 10
"""Arguments and environment of one server together, as in user mode."""
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Registered:
    """What one file of the registry says about a started server."""

    def __init__(self, name: str, table: dict[str, Any]) -> None:
        """Raises RefusedError: a key has the wrong type or value."""
        read = _Reader(name, table)
        if read.text("name") != name:
            raise RefusedError(f"its file says server.name = {table.get('name')!r}", "name the file like the server")
        if read.text("transport") != "stdio":
            raise RefusedError("it is not one that is started: its transport is not stdio")
        self.name = name
        self.argv = read.texts("command")
        self.env = read.pairs("env")
        self.cwd = read.text("cwd", "/")
        self.run_as = read.text("run_as", "caller")
        self.shared = read.flag("shared", usual=False)
        self.sandbox = Sandbox()
        self.sandbox.network = read.flag("network", usual=True)
        self.sandbox.read_only = read.flag("read_only", usual=False)
        self.sandbox.writable = [os.fsencode(path) for path in read.texts("writable")]
        self.sandbox.limits = read.limits("limits")
        if not self.argv or not self.argv[0]:
            raise RefusedError("its command is empty", 'set command = ["program", …]')
        if sum(map(len, (*self.argv, *self.env, *self.env.values()))) > ORDER_BYTES:
            raise RefusedError(f"its arguments and environment are above {ORDER_BYTES} bytes")


class _Reader:
    """Keys of one table, each of the type that is asked for."""

    def __init__(self, name: str, table: dict[str, Any]) -> None:
        self._name = name
        self._table = table

    def text(self, key: str, usual: str = "") -> str:
        """A string without NUL."""
        found = self._table.get(key, usual)
        if not isinstance(found, str) or "\0" in found:
            raise self._wrong(key, "text without NUL")
        return found

    def flag(self, key: str, *, usual: bool) -> bool:
        """A boolean."""
        found = self._table.get(key, usual)
        if not isinstance(found, bool):
            raise self._wrong(key, "true or false")
        return found

    def texts(self, key: str) -> list[str]:
        """A list of strings without NUL."""
        found = self._table.get(key, [])
        if not isinstance(found, list) or not all(isinstance(each, str) and "\0" not in each for each in found):
            raise self._wrong(key, "a list of text without NUL")
        return found

    def pairs(self, key: str) -> dict[str, str]:
        """Names, each with a string."""
        found = self._table.get(key, {})
        good = isinstance(found, dict) and all(
            name and "=" not in name and isinstance(value, str) and "\0" not in name + value
            for name, value in found.items()
        )
        if not good:
            raise self._wrong(key, "names with text without NUL")
        return dict(found)

    def limits(self, key: str) -> dict[bytes, int]:
        """Limits that are known, those that are not zero."""
        found = self._table.get(key, {})
        known = RLIMITS.keys() | CGROUP_LIMITS
        good = isinstance(found, dict) and all(
            name.encode() in known and type(value) is int and value >= 0 for name, value in found.items()
        )
        if not good:
            raise self._wrong(key, "numbers for " + ", ".join(sorted(each.decode() for each in known)))
        return {name.encode(): value for name, value in found.items() if value}

    def _wrong(self, key: str, expected: str) -> RefusedError:
        return RefusedError(f"its file says server.{key} = {self._table.get(key)!r}", f"expected {expected}")


def read(directory: str, name: str) -> Registered:
    """The server of that name. Raises RefusedError: there is none, or somebody but root may have written it."""
    if not NAME.match(name):
        raise RefusedError("that is no server's name", "1 to 64 of a-z 0-9 . _ -, the first a letter or digit")
    text = read_trusted(f"{directory}/{name}.toml")
    try:
        table = tomllib.loads(text.decode()).get("server")
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"its file is not valid TOML: {error}", "see: attestd check-config") from error
    if not isinstance(table, dict):
        raise RefusedError("its file has no table [server]", "see: attestd check-config")
    return Registered(name, table)


def read_trusted(path: str) -> bytes:
    """A file that only root can have written, whole. ``path`` is absolute. Raises RefusedError."""
    *directories, name = path.strip("/").split("/")
    here = "/"
    fd = os.open(here, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _demand_roots(fd, here)
        for directory in directories:
            here = f"{here.rstrip('/')}/{directory}"
            inner = _opened(directory, os.O_PATH | os.O_DIRECTORY, fd, here)
            os.close(fd)
            fd = inner
            _demand_roots(fd, here)
        file = _opened(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, fd, path)
    finally:
        os.close(fd)
    try:
        _demand_roots(file, path)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise RefusedError(f"{path} is not a regular file")
        with open(file, "rb", closefd=False) as opened:
            text = opened.read(FILE_BYTES + 1)
    finally:
        os.close(file)
    if len(text) > FILE_BYTES:
        raise RefusedError(f"{path} is above {FILE_BYTES} bytes")
    return text


def _opened(name: str, flags: int, directory: int, path: str) -> int:
    try:
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise RefusedError(f"there is no {path}", "see: attestctl servers list") from error
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise RefusedError(f"{path} is a link, or no directory", "put the file itself there") from error
        raise RefusedError(f"cannot read {path}: {error.strerror}", "let the launcher's group read it") from error


def _demand_roots(fd: int, path: str) -> None:
    """Refuse what somebody but root may write."""
    found = os.fstat(fd)
    if found.st_uid != 0:
        raise RefusedError(f"{path} belongs to uid {found.st_uid}, expected root", f"chown root {path}")
    if found.st_mode & OTHERS_MAY_WRITE:
        mode = stat.S_IMODE(found.st_mode)
        raise RefusedError(f"{path} may be written by others, got mode {mode:04o}", f"chmod go-w {path}")
