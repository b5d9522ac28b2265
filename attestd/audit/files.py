"""Files of the audit log: who may own and read them, how they are replaced, what a sync is.

1. The directory is 0700, every file 0600, owned by the user of the daemon. Anything wider is refused, not repaired:
   what was open may have been changed.
2. Names are resolved under the directory's descriptor and never through a symbolic link.
3. A small file is replaced whole: written beside, synced, renamed, and the directory synced.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import sys
from pathlib import Path

from attestd.errors import AuditUnavailableError, ConfigurationError

_SEGMENT = re.compile(r"([0-9]{8})\.seg")
LOCK_NAME = "lock"
FIRST_KEY_NAME = "first.vkey"
SALT_NAME = "salt"


def open_directory(path: str | os.PathLike[str], *, create: bool) -> int:
    """A descriptor of the log's directory. Raises ConfigurationError when it is missing or not ours alone."""
    try:
        if create:
            Path(path).mkdir(mode=0o700, exist_ok=True)
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise ConfigurationError(
            f"cannot open the audit directory {os.fspath(path)}: {error.strerror}",
            hint="name an existing directory of the user who runs attestd",
        ) from error
    return directory


def require_private(fd: int, what: str) -> None:
    """Raise ConfigurationError unless ``fd`` belongs to us and no one else may touch it."""
    info = os.fstat(fd)
    mode = stat.S_IMODE(info.st_mode)
    if info.st_uid != os.geteuid() or mode & 0o077:
        expected = 0o700 if stat.S_ISDIR(info.st_mode) else 0o600
        raise ConfigurationError(
            f"cannot use {what}: owner {info.st_uid} and mode {mode:04o}, expected {os.geteuid()} and {expected:04o}",
            hint=f"look who could change it, then chown it to uid {os.geteuid()} and chmod {expected:o}",
        )


def lock_directory(directory: int, path: str | os.PathLike[str]) -> int:
    """The descriptor that holds the writer's lock until it is closed. Raises ConfigurationError if another holds it."""
    fd = os.open(LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    try:
        require_private(fd, f"{os.fspath(path)}/{LOCK_NAME}")
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise ConfigurationError(
            f"cannot open the audit log {os.fspath(path)}: process {holder} is writing to it",
            hint="stop that daemon, or give this one its own audit directory",
        ) from None
    except ConfigurationError:
        os.close(fd)
        raise
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def is_locked(directory: int) -> bool:
    """Whether a writer holds the log just now."""
    try:
        fd = os.open(LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def names_in(directory: int) -> list[str]:
    """Names in the directory that ``directory`` is a descriptor of."""
    return os.listdir(directory)


def segment_name(number: int) -> str:
    """File name of a segment."""
    return f"{number:08d}.seg"


def segment_numbers(directory: int) -> list[int]:
    """Numbers of the segments that are there, ascending."""
    return sorted(int(match[1]) for name in names_in(directory) if (match := _SEGMENT.fullmatch(name)))


def sync_data(fd: int) -> None:
    """Return when the file's data is on the disk."""
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(fd)


def write_whole(directory: int, name: str, data: bytes) -> None:
    """Replace or create a small file atomically and durably, mode 0600. Raises OSError."""
    temporary = f"{name}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    try:
        written = os.write(fd, data)
        if written != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def read_whole(directory: int, name: str, limit: int = 64 * 1024) -> bytes | None:
    """A small file's bytes, or None if it is not there. Raises OSError, ConfigurationError when over ``limit``."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
    except FileNotFoundError:
        return None
    try:
        data = os.read(fd, limit + 1)
    finally:
        os.close(fd)
    if len(data) > limit:
        raise ConfigurationError(f"cannot read {name}: more than {limit} bytes", hint="restore the file from a backup")
    return data


def unavailable(doing: str, error: OSError) -> AuditUnavailableError:
    """The error for a failed write or sync."""
    return AuditUnavailableError(
        f"cannot {doing} the audit log: {error.strerror}",
        hint="free space on the audit directory's file system, or look for disk errors; calls are refused until then",
    )
