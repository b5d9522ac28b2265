"""A Mac in memory: processes that fork, execute, exit and are reused; sockets with tokens; kqueues with events.

It implements ``attestd.kernel.darwin.libsystem.Functions``, C's surface, so that what is under test packs and unpacks
the real layouts. Behaviour follows xnu-11417: a unique id lasts for the life of a process and is never used again; a
pid version is new after every fork and exec; orphans go to launchd, keep the pid version of their parent's fork and,
until they execute something, the unique id of that parent; a token is made of whoever used the other end last; csops
answers for one pid version only; what belongs to another user is refused. Descriptors of sockets and files are real
ones of the test's process; whatever of them the Mac is asked is answered from this machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import itertools
import os
import select
import socket
import stat
import struct
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attestd.kernel.darwin import abi

BOOT = "4C6E0B1A-11D2-4C1B-9D35-0123456789AB"
HARDENED = 0x1 | 0x100 | 0x200 | 0x2000 | 0x10000 | 0x20000000
"""VALID HARD KILL REQUIRE_LV RUNTIME SIGNED."""
PLATFORM_STATUS = HARDENED | 0x800 | 0x04000000
WEAKENED = HARDENED & ~0x2000
AD_HOC = 0x1 | 0x2 | 0x20000000
DEBUGGED = 0x10000000
EBADEXEC = 85
F_GETPATH = 50


@dataclass
class Code:
    """What is executed: a file, and the signature that the kernel found on it."""

    path: str
    cdhash: bytes | None = None
    status: int = AD_HOC
    identity: str = ""
    team: str = ""
    category: int | None = 10


@dataclass
class Proc:
    """One process."""

    pid: int
    ppid: int
    unique_id: int
    parent_unique_id: int
    version: int
    parent_version: int
    code: Code
    argv: tuple[str, ...]
    environ: tuple[str, ...] = ()
    uids: tuple[int, int, int] = (501, 501, 501)
    """Real, effective, saved."""
    start_us: int = 1_700_000_000_000_000
    tty: int = 0
    session: int = 1
    cwd: str = "/"
    root: str = ""
    traced: bool = False
    status: int = 0
    """CS flags now."""
    zombie: bool = False
    fds: dict[int, tuple[str, Any]] = field(default_factory=dict)
    """Number to ("pipe", (handle, other)), ("socket", (socket, other)) or ("vnode", mode and device)."""


class Mac:
    """The machine. ``us`` is the process that asks; its pid is that of the test."""

    def __init__(self, daemon_uid: int = 501) -> None:
        self.processes: dict[int, Proc] = {}
        self._versions = itertools.count(1000)
        self._uniques = itertools.count(50_000)
        self._pids = itertools.count(40_000)
        self._times = itertools.count(1_700_000_000_000_000, 1_000)
        self._last: dict[int, int] = {}
        self._connectors: dict[int, int] = {}
        self._queues: dict[int, tuple[int, set[tuple[int, int]]]] = {}
        self._kept: list[Any] = []
        self.denied_acl: set[str] = set()
        self.allowed_acl: set[str] = set()
        self.categories = True
        """False: a macOS that does not know the validation category."""
        self.original_parents = True
        self.queries = 0
        self.on_query: Any = None
        """Called before every question about a process: what happens meanwhile."""
        launchd = Code("/sbin/launchd", os.urandom(20), PLATFORM_STATUS, "com.apple.xpc.launchd", category=1)
        self._add(1, 0, 0, 0, launchd, ("/sbin/launchd",), uids=(0, 0, 0))
        us = Code("/Library/attestd/python", os.urandom(20), AD_HOC, "python")
        self._add(os.getpid(), 1, *self._parent(1), us, ("attestd",), uids=(daemon_uid,) * 3)

    # What happens on it

    def spawn(self, parent: int, code: Code, *argv: str, **facts: Any) -> Proc:
        """posix_spawn: a child that runs ``code``; what is not named it has from its parent."""
        mother = self.processes[parent]
        inherited = {"uids": mother.uids, "tty": mother.tty, "session": mother.session, "cwd": mother.cwd}
        return self._add(
            facts.pop("pid", None) or next(self._pids),
            parent,
            *self._parent(parent),
            code,
            argv or (code.path,),
            **(inherited | {"environ": mother.environ} | facts),
        )

    def fork(self, parent: int) -> Proc:
        """A copy of the parent."""
        mother = self.processes[parent]
        return self.spawn(parent, mother.code, *mother.argv)

    def execute(self, pid: int, code: Code, *argv: str) -> None:
        """Another image in the same process; it carries the unique id of its parent of now."""
        process = self.processes[pid]
        process.code, process.argv, process.status = code, argv or (code.path,), code.status
        process.version = next(self._versions)
        process.parent_unique_id = self.processes[process.ppid].unique_id
        self._tell(pid, abi.NOTE_EXEC)

    def exit(self, pid: int, *, reaped: bool = True) -> None:
        """The end of a process; launchd adopts its children."""
        for child in self.processes.values():
            if child.ppid == pid:
                child.ppid = 1
        self._tell(pid, abi.NOTE_EXIT)
        if reaped:
            del self.processes[pid]
        else:
            self.processes[pid].zombie = True

    def trace(self, pid: int, by: int) -> None:
        """Ptrace attaches: the tracer becomes the parent."""
        self.processes[pid].traced, self.processes[pid].ppid = True, by

    def connect(self, pid: int) -> tuple[socket.socket, socket.socket]:
        """A connection of process ``pid`` to the test: the test's end, and the process's."""
        ours, theirs = socket.socketpair()
        inode = os.fstat(ours.fileno()).st_ino
        self._last[inode], self._connectors[inode] = pid, self.processes[pid].uids[1]
        return ours, theirs

    def use(self, ours: socket.socket, pid: int) -> None:
        """Process ``pid`` reads or writes the other end of ``ours``."""
        self._last[os.fstat(ours.fileno()).st_ino] = pid

    def pipe(self) -> tuple[tuple[str, Any], tuple[str, Any]]:
        """A pipe: what stands in ``fds`` for its reading and its writing end."""
        read, write = next(self._uniques), next(self._uniques)
        return ("pipe", (read, write)), ("pipe", (write, read))

    def _parent(self, pid: int) -> tuple[int, int]:
        mother = self.processes[pid]
        return mother.unique_id, mother.version

    def _add(
        self, pid: int, ppid: int, mother: int, version: int, code: Code, argv: tuple[str, ...], **facts: Any
    ) -> Proc:
        process = Proc(
            pid, ppid, next(self._uniques), mother, next(self._versions), version, code, argv,
            **({"start_us": next(self._times), "status": code.status} | facts),
        )  # fmt: skip
        self.processes[pid] = process
        return process

    def _tell(self, pid: int, note: int) -> None:
        for writer, watched in self._queues.values():
            if (self.processes[pid].unique_id, note) in watched:
                with contextlib.suppress(BrokenPipeError):  # that queue was closed
                    os.write(writer, b"!")

    # The functions of C

    def _find(self, pid: int, *, private: bool = False) -> Proc | None:
        self.queries += 1
        if self.on_query is not None:
            happening, self.on_query = self.on_query, None
            again = happening()
            self.on_query = happening if again else None
        process = self.processes.get(pid)
        if process is None or process.zombie:
            ctypes.set_errno(errno.ESRCH)
            return None
        asker = self.processes[os.getpid()].uids[1]
        if private and asker not in (0, process.uids[1]):
            ctypes.set_errno(errno.EPERM)
            return None
        return process

    def proc_pidinfo(self, pid: int, flavor: int, arg: int, buffer: Any, size: int) -> int:
        del arg
        public = flavor in (abi.PROC_PIDT_SHORTBSDINFO, abi.PROC_PIDUNIQIDENTIFIERINFO)
        process = self._find(pid, private=not public)
        if process is None:
            return 0
        answers = {
            abi.PROC_PIDUNIQIDENTIFIERINFO: self._unique,
            abi.PROC_PIDT_SHORTBSDINFO: _short,
            abi.PROC_PIDTBSDINFO: _full,
            abi.PROC_PIDVNODEPATHINFO: _directories,
            abi.PROC_PIDLISTFDS: _descriptors,
        }
        return _answer(answers[flavor](process), buffer, size, cut=flavor == abi.PROC_PIDLISTFDS)

    def _unique(self, process: Proc) -> bytes:
        original = process.parent_version if self.original_parents else 0
        ids = (process.unique_id, process.parent_unique_id, process.version, original)
        return struct.pack("<16x2Q2i16x", *ids)

    def proc_pidfdinfo(self, pid: int, fd: int, flavor: int, buffer: Any, size: int) -> int:
        if pid == os.getpid() and flavor == abi.PROC_PIDFDVNODEPATHINFO:
            path = _path_of(fd)
            return _answer(bytes(24 + 152) + path.ljust(1024, b"\0"), buffer, size)
        process = self._find(pid, private=True)
        if process is None:
            return 0
        kind, what = process.fds.get(fd, ("", None))
        answers = {
            ("pipe", abi.PROC_PIDFDPIPEINFO): lambda: bytes(160) + struct.pack("<QQ8x", *what),
            ("socket", abi.PROC_PIDFDSOCKETINFO): lambda: (
                bytes(160) + struct.pack("<Q", what[0]) + bytes(88) + struct.pack("<iIQ", 3, 0, what[1]) + bytes(520)
            ),
            ("vnode", abi.PROC_PIDFDVNODEINFO): lambda: bytes(24) + _vnode_stat(*what) + bytes(16),
        }
        if (kind, flavor) not in answers:
            ctypes.set_errno(errno.EBADF)
            return 0
        return _answer(answers[kind, flavor](), buffer, size)

    def proc_pidpath(self, pid: int, buffer: Any, size: int) -> int:
        process = self._find(pid)
        return 0 if process is None else _answer(os.fsencode(process.code.path), buffer, size)

    def proc_listallpids(self, buffer: Any, size: int) -> int:
        alive = [pid for pid, process in self.processes.items() if not process.zombie]
        if buffer is not None:
            _answer(struct.pack(f"<{len(alive)}i", *alive), buffer, size)
        return len(alive)

    def csops_audittoken(self, pid: int, ops: int, buffer: Any, size: int, token: Any) -> int:
        process = self._find(pid)
        if process is None:
            return -1
        words = struct.unpack("<8I", ctypes.string_at(ctypes.addressof(token._obj), 32))
        if (words[5], words[7]) != (process.pid, process.version):
            return _fail(errno.ESRCH)
        return self._signed(process, ops, buffer, size)

    def _signed(self, process: Proc, ops: int, buffer: Any, size: int) -> int:
        code, believed = process.code, process.status & (0x1 | DEBUGGED)
        if ops == abi.CS_OPS_STATUS:
            answer: bytes | None = struct.pack("<I", process.status)
        elif ops == abi.CS_OPS_CDHASH:
            answer = code.cdhash
        elif not believed or (ops == abi.CS_OPS_VALIDATION_CATEGORY and not self.categories):
            return _fail(errno.EINVAL)
        elif ops == abi.CS_OPS_VALIDATION_CATEGORY:
            answer = None if code.category is None else struct.pack("<I", code.category)
        else:
            text = code.identity if ops == abi.CS_OPS_IDENTITY else code.team
            if not text:
                return _fail(errno.ENOENT)
            answer = struct.pack(">II", 0, len(text) + 9) + text.encode() + b"\0"
        if answer is None:
            return _fail(EBADEXEC)
        if len(answer) > size:
            return _fail(errno.ERANGE)
        ctypes.memmove(buffer, answer, len(answer))
        return 0

    def sysctl(self, name: Any, count: int, old: Any, size: Any, new: Any, new_size: int) -> int:
        del new, new_size
        assert (count, name[0], name[1]) == (3, abi.CTL_KERN, abi.KERN_PROCARGS2)
        process = self._find(name[2], private=True)
        if process is None:
            return _fail(errno.EINVAL)
        raw = procargs(process.code.path, process.argv, process.environ)
        ctypes.memmove(old, raw, len(raw))
        size._obj.value = len(raw)
        return 0

    def sysctlbyname(self, name: bytes, old: Any, size: Any, new: Any, new_size: int) -> int:
        del new, new_size
        assert name == b"kern.bootsessionuuid"
        ctypes.memmove(old, BOOT.encode() + b"\0", len(BOOT) + 1)
        size._obj.value = len(BOOT) + 1
        return 0

    def getsockopt(self, fd: int, level: int, option: int, value: Any, size: Any) -> int:
        assert level == abi.SOL_LOCAL
        inode = os.fstat(fd).st_ino
        if inode not in self._last:
            self._last[inode] = os.getpid()  # a pair of our own
        if option == abi.LOCAL_PEERCRED:
            uid = self._connectors.get(inode, self.processes[os.getpid()].uids[1])
            raw = struct.pack("<IIh2x16I", 0, uid, 2, 20, 80, *([0] * 14))
        elif disconnected(fd):
            return _fail(errno.ENOTCONN)
        else:
            process = self.processes.get(self._last[inode])
            if process is None or process.zombie:
                return _fail(errno.EINVAL)
            raw = token_bytes(process)
        size._obj.value = _answer(raw, value, size._obj.value)
        return 0

    def getsid(self, pid: int) -> int:
        process = self._find(pid)
        return -1 if process is None else process.session

    def devname_r(self, device: int, mode: int, buffer: Any, size: int) -> Any:
        assert stat.S_ISCHR(mode)
        _answer(b"ttys%03d\0" % (device & 0xFFFFFF), buffer, size)
        return ctypes.addressof(buffer)

    def fstatfs(self, fd: int, buffer: Any) -> int:
        os.fstat(fd)
        _answer(bytes(72) + b"apfs".ljust(16, b"\0") + bytes(2080), buffer, 2168)
        return 0

    def kqueue(self) -> int:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        if reader in self._queues:  # closed since, or it could not have this number
            os.close(self._queues[reader][0])
        self._queues[reader] = (writer, set())
        return reader

    def kevent(self, kq: int, changes: Any, count: int, events: Any, room: int, timeout: Any) -> int:
        assert (count, room, timeout) == (1, 1, None)
        pid, kind, flags, notes, _, _ = struct.unpack("<QhHIqQ", ctypes.string_at(ctypes.addressof(changes._obj), 32))
        assert (kind, flags) == (abi.EVFILT_PROC, abi.EV_ADD | abi.EV_RECEIPT)
        found = self._find(pid)
        if found is not None:
            wanted = (note for note in (abi.NOTE_EXEC, abi.NOTE_EXIT) if notes & note)
            self._queues[kq][1].update((found.unique_id, note) for note in wanted)
        number = 0 if found is not None else errno.ESRCH
        answer = struct.pack("<QhHIqQ", pid, kind, flags | abi.EV_ERROR, notes, number, 0)
        return _answer(answer, events, 32) and 1

    def acl_get_link_np(self, path: bytes, kind: int) -> Any:
        assert kind == abi.ACL_TYPE_EXTENDED
        lines = [b"!#acl 1"]
        name = os.fsdecode(path)
        if name in self.denied_acl:
            lines.append(b"group:ABCDEFAB-CDEF-ABCD-EFAB-CDEF0000000C:everyone:12:deny:delete")
        if name in self.allowed_acl:
            lines.append(b"user:FFFFEEEE-DDDD-CCCC-BBBB-AAAA000001F5:dev:501:allow,file_inherit:write")
        if len(lines) == 1:
            ctypes.set_errno(errno.ENOENT)
            return None
        text = ctypes.create_string_buffer(b"\n".join(lines) + b"\n")
        self._kept.append(text)
        return ctypes.addressof(text)

    def acl_to_text(self, acl: Any, size: Any) -> Any:
        del size
        return acl

    def acl_free(self, thing: Any) -> int:
        del thing
        return 0

    def gethostuuid(self, uuid: Any, timeout: Any) -> int:
        del timeout
        _answer(bytes(range(16)), uuid, 16)
        return 0

    def close(self) -> None:
        """Close the writing ends of the queues."""
        for writer, _ in self._queues.values():
            os.close(writer)
        self._queues.clear()


def disconnected(fd: int) -> bool:
    """Whether a Unix socket has no other end any more."""
    poll = select.poll()
    poll.register(fd, 0)
    return any(found & select.POLLHUP for _, found in poll.poll(0))


def token_bytes(process: Proc) -> bytes:
    """audit_token_t of a process."""
    real, effective, _ = process.uids
    return struct.pack("<8I", real, effective, 20, real, 20, process.pid, 100_000, process.version)


def procargs(path: str, argv: tuple[str, ...], environ: tuple[str, ...]) -> bytes:
    """KERN_PROCARGS2 as the kernel lays it out."""
    head = os.fsencode(path) + b"\0"
    head += bytes(-len(head) % 8)
    words = b"".join(os.fsencode(word) + b"\0" for word in (*argv, *environ))
    return struct.pack("<i", len(argv)) + head + words + b"\0"


def _path_of(fd: int) -> bytes:
    if sys.platform == "darwin":
        return fcntl.fcntl(fd, F_GETPATH, bytes(1024)).rstrip(b"\0")
    return os.fsencode(Path(f"/proc/self/fd/{fd}").readlink())


def _flags(process: Proc) -> int:
    return 0x10 | (0x2 if process.traced else 0) | (0x80 if process.tty else 0)


def _short(process: Proc) -> bytes:
    real, effective, saved = process.uids
    name = Path(process.code.path).name.encode()[:15]
    return struct.pack(
        "<4I16s8I", process.pid, process.ppid, process.session, 2, name, _flags(process),
        effective, 20, real, 20, saved, 20, 0,
    )  # fmt: skip


def _full(process: Proc) -> bytes:
    real, effective, saved = process.uids
    name = Path(process.code.path).name.encode()
    return struct.pack(
        "<12I16s32s5IiQQ", _flags(process), 2, 0, process.pid, process.ppid, effective, 20, real, 20, saved, 20, 0,
        name[:15], name[:31], 3, process.session, 1, process.tty, 0, 0, *divmod(process.start_us, 1_000_000),
    )  # fmt: skip


def _directories(process: Proc) -> bytes:
    return b"".join(bytes(152) + os.fsencode(path).ljust(1024, b"\0") for path in (process.cwd, process.root))


def _descriptors(process: Proc) -> bytes:
    types = {"vnode": abi.FDTYPE_VNODE, "socket": abi.FDTYPE_SOCKET, "pipe": abi.FDTYPE_PIPE}
    return b"".join(struct.pack("<iI", number, types[kind]) for number, (kind, _) in process.fds.items())


def _vnode_stat(mode: int, device: int) -> bytes:
    return struct.pack("<IHH", 0, mode, 1) + bytes(108) + struct.pack("<I", device) + bytes(16)


def _answer(raw: bytes, buffer: Any, size: int, *, cut: bool = False) -> int:
    if len(raw) > size and not cut:
        ctypes.set_errno(errno.ENOMEM)
        return 0
    target = buffer._obj if hasattr(buffer, "_obj") else buffer
    ctypes.memmove(ctypes.addressof(target), raw, min(len(raw), size))
    return min(len(raw), size)


def _fail(number: int) -> int:
    ctypes.set_errno(number)
    return -1
