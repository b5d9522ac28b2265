"""Kernel features, probed by using them, never by version; distributions port features back."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable

from attestd.evidence.protocol import Feature
from attestd.kernel.linux import mappings
from attestd.kernel.linux.abi import PIDFS_MAGIC, SO_PEERPIDFD, fs_magic, pidfd_info

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

_CAP_SYS_PTRACE = 19
_CAP_DAC_READ_SEARCH = 2
_HASHED_AGAIN = "digests are not remembered: executables are hashed with every connection"


def probe() -> tuple[Feature, ...]:
    """Every feature that evidence depends on. Starts no program other than a copy of one that is on this machine."""
    return (
        _probed("so_peerpidfd", _peer_pidfd, "peers are proved by sock_diag instead", "use Linux 6.5 or later"),
        _probed("pidfd_get_info", _pidfd_get_info, "parents are read from /proc instead", "use Linux 6.13 or later"),
        _probed("pidfs_inode", _pidfs, "instances are named by pid and start time", "use Linux 6.9 or later"),
        _probed("procmap_query", _procmap_query, "mappings are read as text", "use Linux 6.11 or later"),
        _executable_frozen(),
        _exe_not_forgeable(),
        _ptrace_scope(),
        capability("cap_sys_ptrace", _CAP_SYS_PTRACE, "executables and namespaces of other users are unreadable"),
        capability(
            "cap_dac_read_search", _CAP_DAC_READ_SEARCH, "environment and pagemap of other users are unreadable"
        ),
    )


def _probed(name: str, use: Callable[[], None], cost: str, remedy: str) -> Feature:
    try:
        use()
    except OSError as error:
        detail = (error.strerror or str(error)).lower()
        return Feature(name=name, present=False, detail=detail, cost=cost, remedy=remedy)
    return Feature(name=name, present=True, detail="works", cost=cost)


def _peer_pidfd() -> None:
    left, right = socket.socketpair()
    with left, right:
        os.close(left.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD))


def _pidfd_get_info() -> None:
    pidfd = os.pidfd_open(os.getpid())
    try:
        pidfd_info(pidfd)
    finally:
        os.close(pidfd)


def _pidfs() -> None:
    pidfd = os.pidfd_open(os.getpid())
    try:
        if fs_magic(pidfd) != PIDFS_MAGIC:
            raise OSError(errno.EOPNOTSUPP, "pidfds have no inode of their own")
    finally:
        os.close(pidfd)


def _procmap_query() -> None:
    fd = os.open("/proc/self/maps", os.O_RDONLY | os.O_CLOEXEC)
    try:
        next(mappings.queried(fd))
    finally:
        os.close(fd)


def _executable_frozen() -> Feature:
    """Whether a running executable cannot be opened for writing; kernels 6.11 and early 6.12 allowed it."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            frozen = _write_while_running(os.path.join(directory, "probe"))
        except OSError as error:
            return Feature(
                name="executable_frozen",
                present=False,
                detail=f"cannot be probed, {error.strerror or error}".lower(),
                cost=_HASHED_AGAIN,
                remedy="make the temporary directory executable",
                known=False,
            )
    if frozen:
        return Feature(name="executable_frozen", present=True, detail="running executables cannot be written")
    return Feature(
        name="executable_frozen",
        present=False,
        detail="running executables can be written",
        cost=_HASHED_AGAIN,
        remedy="use Linux 6.13 or later, or a 6.12 with the stable fix",
    )


def _write_while_running(path: str) -> bool:
    source = os.path.realpath("/bin/cat")
    with open(source, "rb") as original, open(path, "wb") as copy:
        copy.write(original.read())
    os.chmod(path, 0o700)
    command = [path]  # our own copy, in a directory that nobody else can write
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:  # noqa: S603 - see above
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            return error.errno == errno.ETXTBSY
        finally:
            child.kill()
    return False


def _exe_not_forgeable() -> Feature:
    name = "exe_not_forgeable"
    blocked = unprivileged_userns_blocked()
    if blocked:
        return Feature(name=name, present=True, detail=f"{blocked}: /proc/PID/exe cannot be forged without privileges")
    return Feature(
        name=name,
        present=False,
        detail="unprivileged user namespaces are allowed: /proc/PID/exe can be forged",
        cost="at most level 1 for processes that the kernel recorder does not confirm",
        remedy="load the kernel recorder, or set user.max_user_namespaces=0 (kernel.unprivileged_userns_clone=0 "
        "where this kernel has it)",
    )


def unprivileged_userns_blocked() -> str:
    """What keeps an unprivileged process from making a user namespace, in words; empty if nothing is known to."""
    if setting("/proc/sys/user/max_user_namespaces") == "0" or not os.path.exists("/proc/self/ns/user"):
        return "there are no user namespaces"
    if setting("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return "kernel.unprivileged_userns_clone is 0"
    return ""


def _ptrace_scope() -> Feature:
    scope = setting("/proc/sys/kernel/yama/ptrace_scope")
    present = scope not in {None, "0"}
    return Feature(
        name="ptrace_restricted",
        present=present,
        detail=f"kernel.yama.ptrace_scope is {scope}" if scope else "yama is not part of this kernel",
        cost="a program of the same user can trace a granted client between two messages and act as it",
        remedy=""
        if present
        else "set kernel.yama.ptrace_scope=1, so that a program cannot trace programs it did not start",
    )


def capability(name: str, bit: int, cost: str, remedy: str = "", group: str = "kernel") -> Feature:
    """Whether this process holds a capability; ``cost`` is what cannot be done without it."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        effective = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    present = bool(effective >> bit & 1)
    return Feature(
        name=name,
        present=present,
        detail="held" if present else "not held by this daemon",
        cost=cost,
        remedy="" if present else remedy or f"run as the system service, which has {name.upper()}",
        group=group,
    )


def setting(path: str) -> str | None:
    """What a file of /proc/sys says; None if it is not there."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None
