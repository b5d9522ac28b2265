"""Putting the control socket where only its owner could have put it, and taking away no one else's."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from attestd.enforcement.writers import name_writers
from attestd.errors import ConfigurationError


def bind(path: Path, mode: int) -> socket.socket:
    """Return a listening, non-blocking socket at ``path`` whose connections tell who writes there.

    What lies there is replaced only if it is our own socket and nobody listens on it. Raises ConfigurationError.
    """
    _require_safe_directory(path)
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        name_writers(sock)
        sock.bind(str(path))
        path.chmod(mode)  # before listen: until then every connect is refused
        sock.listen(64)
    except OSError as error:
        sock.close()
        raise ConfigurationError(f"cannot open the control socket {path}: {error.strerror or error}") from error
    return sock


def unlink_own(path: Path, inode: tuple[int, int]) -> None:
    """Remove the socket file with that device and inode, not one that another daemon has put there since."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if (found.st_dev, found.st_ino) == inode:
            path.unlink()


def _require_safe_directory(path: Path) -> None:
    try:
        found = path.parent.lstat()
    except OSError as error:
        raise ConfigurationError(
            f"cannot open the control socket in {path.parent}: {error.strerror}", hint=f"mkdir -m 700 {path.parent}"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.geteuid(), 0) or found.st_mode & 0o022:
        raise ConfigurationError(
            f"cannot open the control socket in {path.parent}: got owner {found.st_uid} and mode "
            f"{stat.S_IMODE(found.st_mode):o}, expected a directory that nobody but uid {os.geteuid()} can write",
            hint=f"chmod go-w {path.parent}",
        )


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigurationError(
            f"cannot open the control socket {path}: got a file of uid {found.st_uid}, expected nothing or our socket",
            hint="find out who made it; attestd does not remove it",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise ConfigurationError(f"cannot open the control socket {path}: {error.strerror or error}") from error
    raise ConfigurationError(
        f"cannot open the control socket {path}: another attestd serves it", hint="ask it: attestctl status"
    )
