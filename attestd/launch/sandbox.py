"""What a server's process gives up before it executes its program: limits, network, writing to files, capabilities.

Standard library only: this runs in isolated interpreters, between fork and execute.

Rules
- Everything here only takes away, and is kept by every descendant. What cannot be taken away is an error of the start.
- ``read_only`` is a Landlock domain: nothing may be written, made, removed, renamed or truncated but below
  ``writable``, and ``/dev/null`` and its like. It needs no privilege. Reading, modes, owners and times of files, and
  sockets of other programs are not covered.
- ``network = false`` is a network namespace without any interface that is up, loopback included. Who may not make one
  makes a user namespace around it, in which its uid is the same and it keeps no capability.
- A limit is soft and hard alike.
"""
# ruff: noqa: PTH123 - as in ``tree``

import ctypes
import errno
import os
import resource
import stat
import sys
from collections.abc import Callable, Iterable
from functools import partial

from attestd.launch.tree import prctl

if sys.platform != "linux":
    sys.exit("error: cannot launch servers on this platform: the launcher needs Linux")

Step = tuple[bytes, Callable[[], None]]
"""What is being done, as it follows "cannot", and how."""

MIB = 1 << 20
RLIMITS = {
    b"open_files": (resource.RLIMIT_NOFILE, 1),
    b"processes": (resource.RLIMIT_NPROC, 1),
    b"address_space_mib": (resource.RLIMIT_AS, MIB),
    b"file_mib": (resource.RLIMIT_FSIZE, MIB),
}
"""Limits of a process: kernel's number and unit in bytes."""
CGROUP_LIMITS = {b"memory_mib"}
"""Limits that need a cgroup of the server's own."""

PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_DUMPABLE = 4
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
SYS_LANDLOCK_CREATE_RULESET = 444
SYS_LANDLOCK_ADD_RULE = 445
SYS_LANDLOCK_RESTRICT_SELF = 446
LANDLOCK_VERSION = 1
LANDLOCK_PATH_BENEATH = 1
LANDLOCK_ABI = 3
"""Linux 6.2: the first that can forbid truncating."""
FILE_WRITES = 1 << 1 | 1 << 14  # write, truncate
WRITES = FILE_WRITES | 0b11_1111_1111 << 4  # remove, make of every kind, move between directories
DEVICES = (b"/dev/null", b"/dev/zero", b"/dev/full")
CAPABILITY_VERSION = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class Sandbox:
    """What the registry says that one server has to do without."""

    def __init__(self, words: Iterable[bytes] = ()) -> None:
        """``words``: ``no_network``, ``read_only``, ``writable=PATH``, ``LIMIT=NUMBER``. Raises ValueError."""
        self.network = True
        self.read_only = False
        self.writable: list[bytes] = []
        self.limits: dict[bytes, int] = {}
        for word in words:
            key, _, value = word.partition(b"=")
            if word == b"no_network":
                self.network = False
            elif word == b"read_only":
                self.read_only = True
            elif key == b"writable":
                self.writable.append(value)
            elif key in RLIMITS or key in CGROUP_LIMITS:
                self.limits[key] = int(value)
            else:
                raise ValueError(f"cannot understand a sandbox word: got {word!r}")

    def limited(self) -> list[Step]:
        """Its limits, while the process may still be anybody."""
        return [
            (b"limit %s to %d" % (key, number), _limiting(key, number))
            for key, number in self.limits.items()
            if key in RLIMITS
        ]

    def confined(self) -> list[Step]:
        """Network and files, as the user that the server runs as."""
        steps: list[Step] = []
        if not self.network:
            steps.append((b"take the network away (it needs a user namespace)", leave_network))
        if self.read_only:
            domain = Landlock()
            steps.append((b"make files read-only (it needs Landlock of Linux 6.2)", domain.begin))
            steps += [(b"make %s writable" % path, partial(domain.allow, path)) for path in (*DEVICES, *self.writable)]
            steps.append((b"make files read-only", domain.enter))
        return steps


class Landlock:
    """A domain without the right to write, but where it is allowed."""

    def __init__(self) -> None:
        self._ruleset = -1

    def begin(self) -> None:
        """Make the rules. Raises OSError: this kernel cannot."""
        if landlock_abi() < LANDLOCK_ABI:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        handled = ctypes.c_uint64(WRITES)
        self._ruleset = _syscall(
            SYS_LANDLOCK_CREATE_RULESET, ctypes.byref(handled), ctypes.c_size_t(8), ctypes.c_uint32(0)
        )

    def allow(self, path: bytes) -> None:
        """Except ``path`` and what is below it. Raises OSError."""
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            writes = WRITES if stat.S_ISDIR(os.fstat(fd).st_mode) else FILE_WRITES
            rule = writes.to_bytes(8, sys.byteorder) + fd.to_bytes(4, sys.byteorder)
            _syscall(
                SYS_LANDLOCK_ADD_RULE,
                ctypes.c_int(self._ruleset),
                ctypes.c_int(LANDLOCK_PATH_BENEATH),
                ctypes.c_char_p(rule),
                ctypes.c_uint32(0),
            )
        finally:
            os.close(fd)

    def enter(self) -> None:
        """From now on, and for every descendant. Raises OSError."""
        try:
            _syscall(SYS_LANDLOCK_RESTRICT_SELF, ctypes.c_int(self._ruleset), ctypes.c_uint32(0))
        finally:
            os.close(self._ruleset)


def landlock_abi() -> int:
    """Version of the kernel's Landlock; 0: it has none, or it is switched off."""
    try:
        return _syscall(
            SYS_LANDLOCK_CREATE_RULESET, ctypes.c_void_p(None), ctypes.c_size_t(0), ctypes.c_uint32(LANDLOCK_VERSION)
        )
    except OSError:
        return 0


def _limiting(key: bytes, number: int) -> Callable[[], None]:
    limit, unit = RLIMITS[key]

    def lower() -> None:
        try:
            resource.setrlimit(limit, (number * unit, number * unit))
        except ValueError as error:
            raise OSError(errno.EPERM, str(error)) from error

    return lower


def leave_network() -> None:
    """Enter a network namespace of our own, in a user namespace of our own if need be. Raises OSError."""
    if _libc.unshare(CLONE_NEWNET) == 0:
        return
    uid, gid = os.geteuid(), os.getegid()
    prctl(PR_SET_DUMPABLE, 1)  # a change of uid gave our files in /proc to root; the maps must be ours
    if _libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        raise _error()
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    drop_bounding()
    clear_capabilities()


def drop_bounding() -> None:
    """Empty the set of capabilities that any program could ever gain. Raises OSError."""
    for number in range(64):
        if _libc.prctl(PR_CAPBSET_READ, *(ctypes.c_ulong(value) for value in (number, 0, 0, 0))) == 1:
            prctl(PR_CAPBSET_DROP, number)


def clear_capabilities() -> None:
    """Give up every capability that we have. Raises OSError."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    if _libc.capset(ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)())) != 0:
        raise _error()


def _syscall(number: int, *words: object) -> int:
    found = int(_libc.syscall(ctypes.c_long(number), *words))
    if found < 0:
        raise _error()
    return found


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
