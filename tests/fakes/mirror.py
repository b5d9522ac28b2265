"""A Mac whose processes are those of this machine: libSystem's functions, answered with the truth of /proc.

It lets the daemon of macOS run here with real clients on real sockets. What a Mac knows and Linux tells is told: who
started whom, with which words, directory, terminal, uids, descriptors, and that a process executed another program or
ended. What Linux does not have is made of what it has:

- An executable is an ELF file. On the Mac it is a signed Mach-O file of the same name in ``images``, one for each
  version of the file; files of equal bytes have one signature, whose identifier is the name under which the bytes were
  first seen. Shells and the like are signed as Apple's, but do not lie where Apple's do.
- A unique id is made of pid and start time, a pid version of that and of the addresses of the image.
- A token is of who wrote last on a socket, of what was read from it (``record``), or of who connected.
- Who forked a process is its parent of when it was first asked about; init starts nothing while this Mac runs, so who
  is init's and younger than the Mac was adopted.
"""
# ruff: noqa: PTH115, PTH116, PTH208 - as in the rooms under test

from __future__ import annotations

import _socket
import contextlib
import ctypes
import errno
import functools
import hashlib
import os
import socket
import stat
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import Any

from attestd.kernel.darwin import abi
from tests.fakes.libsystem import AD_HOC, PLATFORM_STATUS, Code, Mac, Proc, disconnected, token_bytes
from tests.support import mach

TICKS = os.sysconf("SC_CLK_TCK")
PID_BITS = 22
APPLES = frozenset({"bash", "dash", "sh", "zsh", "env", "login"})
LOOK_S = 0.02
FRESH_S = 0.001
"""What is younger is not looked up again: one question to the daemon's room is several to this library."""
_UCRED = struct.Struct("=iII")
_SO_PEERCRED = 17
_of_linux = _socket.socket.getsockopt


class Mirror(Mac):
    """This machine as a Mac. ``images``: where its executables are; ``activated``: launchd's sockets by name."""

    def __init__(self, images: Path, activated: dict[str, list[int]] | None = None) -> None:
        self._images = images
        self._activated = dict(activated or {})
        self._writers: dict[int, int] = {}
        self._first: dict[int, tuple[int, int, int]] = {}
        self._seen: dict[int, tuple[int, int]] = {}
        self._lock = threading.RLock()
        self._looked: dict[int, float] = {}
        self._made = _ticks()
        self._boot_us = (time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) // 1000
        super().__init__(os.geteuid())
        self.processes[1].uids = (0, 0, 0)
        threading.Thread(target=self._look, daemon=True).start()

    # Processes

    def _find(self, pid: int, *, private: bool = False) -> Proc | None:
        with self._lock:
            self._refresh(pid)
            if os.getpid() not in self.processes:
                self._refresh(os.getpid())
            return super()._find(pid, private=private)

    def _refresh(self, pid: int) -> None:
        now = time.monotonic()
        if pid == 1 or now - self._looked.get(pid, 0.0) < FRESH_S:
            return
        self._looked[pid] = now
        try:
            fields = _read(pid, "stat").rpartition(b")")[2].split()
            status = _read(pid, "status")
        except OSError:
            status = b""
        if _field(status, b"Tgid") != [b"%d" % pid]:  # gone, or a thread
            self.processes.pop(pid, None)
            return
        ppid = int(fields[1]) or 1
        unique = _unique(pid, fields)
        image = _link(f"/proc/{pid}/exe")
        version = zlib.crc32(b"%d %s %s %s" % (unique, os.fsencode(image), fields[25], fields[45])) & 0x7FFFFFFF
        real, effective, saved = (int(word) for word in _field(status, b"Uid")[:3])
        known = self.processes.get(pid)
        if known is None or known.unique_id != unique or known.version != version:
            mother, mothers_version = self._mother(unique, ppid)
            code = self._code(pid, image)
            known = Proc(
                pid, ppid, unique, mother, version, mothers_version, code, _words(pid, "cmdline"),
                environ=_words(pid, "environ"), status=code.status,
                start_us=self._boot_us + int(fields[19]) * 1_000_000 // TICKS,
            )  # fmt: skip
            self.processes[pid] = known
        known.ppid, known.uids = ppid, (real, effective, saved)
        known.zombie = fields[0] in b"ZX"
        known.tty, known.session = int(fields[4]), int(fields[3])
        known.traced = _field(status, b"TracerPid") != [b"0"]
        known.cwd, known.root = _link(f"/proc/{pid}/cwd"), ""

    def _mother(self, unique: int, ppid: int) -> tuple[int, int]:
        """Of when the process was first seen: the parent's unique id and version."""
        if unique not in self._first:
            if ppid != 1 and ppid not in self.processes:
                self._refresh(ppid)
            mother = self.processes.get(ppid)
            adopted = ppid == 1 and unique >> PID_BITS > self._made
            gone = mother is None or adopted
            self._first[unique] = (0, 0, 0) if gone else (mother.unique_id, mother.version, ppid)
        return self._first[unique][:2]

    def _code(self, pid: int, image: str) -> Code:
        """The signed stand-in of an executable."""
        try:
            return stand_in(self._images, Path(f"/proc/{pid}/exe"), Path(image).name.removesuffix(" (deleted)"))
        except OSError:
            return Code("", None, 0)

    def proc_listallpids(self, buffer: Any, size: int) -> int:
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            with self._lock:
                self._refresh(pid)
        with self._lock:
            for pid in [pid for pid in self.processes if pid != 1 and not Path(f"/proc/{pid}").exists()]:
                del self.processes[pid]
            return super().proc_listallpids(buffer, size)

    def proc_pidinfo(self, pid: int, flavor: int, arg: int, buffer: Any, size: int) -> int:
        with self._lock:
            if flavor == abi.PROC_PIDLISTFDS:
                self._open_files(pid)
            return super().proc_pidinfo(pid, flavor, arg, buffer, size)

    def proc_pidfdinfo(self, pid: int, fd: int, flavor: int, buffer: Any, size: int) -> int:
        with self._lock:
            self._open_files(pid)
            return super().proc_pidfdinfo(pid, fd, flavor, buffer, size)

    def _open_files(self, pid: int) -> None:
        self._refresh(pid)
        if pid in self.processes:
            self.processes[pid].fds = _descriptors(pid)

    def getsid(self, pid: int) -> int:
        try:
            return os.getsid(pid)
        except OSError as error:
            ctypes.set_errno(error.errno or errno.ESRCH)
            return -1

    # Sockets

    def record(self, sock: socket.socket, pid: int) -> None:
        """That process wrote what was just read."""
        self._writers[os.fstat(sock.fileno()).st_ino] = pid

    def last_user(self, fd: int) -> tuple[int, int]:
        """The pid that used the other end last, and the uid that connected, or listened. Raises OSError."""
        with socket.socket(fileno=os.dup(fd)) as sock:
            if sock.family != socket.AF_UNIX:
                raise OSError(errno.ENOTSOCK, os.strerror(errno.ENOTSOCK))
            raw = _of_linux(sock, socket.SOL_SOCKET, _SO_PEERCRED, _UCRED.size)
            pid, uid, _ = _UCRED.unpack(raw)
        if pid <= 0:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self._writers.get(os.fstat(fd).st_ino, pid), uid

    def option(self, fd: int, option: int) -> bytes:
        """A socket option of level SOL_LOCAL. Raises OSError."""
        pid, uid = self.last_user(fd)
        if option == abi.LOCAL_PEERCRED:
            return struct.pack("<IIh2x16I", 0, uid, 1, os.getegid(), *([0] * 15))
        if disconnected(fd):
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        if option == abi.LOCAL_PEERPID:
            return struct.pack("<i", pid)
        with self._lock:
            found = self._find(pid)
            if found is None:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return token_bytes(found)

    def getsockopt(self, fd: int, level: int, option: int, value: Any, size: Any) -> int:
        assert level == abi.SOL_LOCAL
        try:
            raw = self.option(fd, option)
        except OSError as error:
            ctypes.set_errno(error.errno or errno.EINVAL)
            return -1
        ctypes.memmove(ctypes.addressof(value._obj), raw, len(raw))
        size._obj.value = len(raw)
        return 0

    # Events

    def kevent(self, kq: int, changes: Any, count: int, events: Any, room: int, timeout: Any) -> int:
        with self._lock:
            done = super().kevent(kq, changes, count, events, room, timeout)
            pid = struct.unpack("<Q", ctypes.string_at(ctypes.addressof(changes._obj), 8))[0]
            if pid in self.processes:
                self._seen[pid] = (self.processes[pid].unique_id, self.processes[pid].version)
            return done

    def kqueue(self) -> int:
        with self._lock:
            return super().kqueue()

    def _look(self) -> None:
        """Tell the queues what happened to the processes that they watch."""
        while True:
            time.sleep(LOOK_S)
            with self._lock:
                for pid, (unique, version) in list(self._seen.items()):
                    self._refresh(pid)
                    now = self.processes.get(pid)
                    if now is None or now.zombie or now.unique_id != unique:
                        del self._seen[pid]
                        self._ring(unique, abi.NOTE_EXIT)
                    elif now.version != version:
                        self._seen[pid] = (unique, now.version)
                        self._ring(unique, abi.NOTE_EXEC)

    def _ring(self, unique: int, note: int) -> None:
        for writer, watched in self._queues.values():
            if (unique, note) in watched:
                with contextlib.suppress(BrokenPipeError):  # that queue was closed
                    os.write(writer, b"!")

    # launchd

    def launch_activate_socket(self, name: bytes, fds: Any, count: Any) -> int:
        if not self._activated:
            return errno.ESRCH
        found = self._activated.get(name.decode())
        if found is None:
            return errno.ENOENT
        if not found:
            return errno.EALREADY
        array = (ctypes.c_int * len(found))(*found)
        self._kept.append(array)
        self._activated[name.decode()] = []
        fds._obj.value, count._obj.value = ctypes.addressof(array), len(found)
        return 0

    def free(self, pointer: Any) -> None:
        assert any(ctypes.addressof(each) == pointer.value for each in self._kept)


def stand_in(images: Path, executable: Path, name: str) -> Code:
    """The signed program of the Mac for an executable of this machine. Raises OSError."""
    found = executable.stat()
    facts = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    path = images / "-".join(f"{each:x}" for each in facts) / name
    known = path.with_name(f"{name}.signed")
    if not known.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(executable.read_bytes()).hexdigest()
        apple = name in APPLES and found.st_uid == 0
        identity = _once(images / digest, f"com.apple.{name}" if apple else name)
        made = path.with_name(f".{os.getpid()}-{threading.get_ident()}")
        mach.write(made, identity, digest.encode())
        made.rename(path)
        _once(known, f"{digest} {identity}")
    digest, identity = known.read_text().split(" ", 1)
    status, category = (PLATFORM_STATUS, 1) if identity.startswith("com.apple.") else (AD_HOC, 10)
    return Code(str(path), _cdhash(identity, digest), status, identity, category=category)


@functools.cache
def _cdhash(identity: str, digest: str) -> bytes:
    return mach.cdhash(mach.directory(identity, digest.encode()))


def _once(path: Path, text: str) -> str:
    """What the file says, which is ``text`` if there was none."""
    made = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}")
    made.write_text(text)
    with contextlib.suppress(FileExistsError):
        os.link(made, path)
    made.unlink()
    return path.read_text()


def _ticks() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) * TICKS // 1_000_000_000


def path_of(fd: int) -> bytes:
    """F_GETPATH."""
    return os.fsencode(_link(f"/proc/self/fd/{fd}"))


def _unique(pid: int, fields: list[bytes]) -> int:
    return int(fields[19]) << PID_BITS | pid


def _field(status: bytes, name: bytes) -> list[bytes]:
    return status.partition(b"\n%s:" % name)[2].partition(b"\n")[0].split()


def _read(pid: int, name: str) -> bytes:
    fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(fd, 1 << 16), b""))
    finally:
        os.close(fd)


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _words(pid: int, name: str) -> tuple[str, ...]:
    try:
        raw = _read(pid, name)
    except OSError:
        return ()
    return tuple(os.fsdecode(word) for word in raw.split(b"\0")[:-1])


def _descriptors(pid: int) -> dict[int, tuple[str, Any]]:
    """Pipes by the inode that both ends have and by which end it is; sockets without their other ends."""
    found: dict[int, tuple[str, Any]] = {}
    try:
        numbers = sorted(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return found
    for number in numbers:
        try:
            at = os.stat(f"/proc/{pid}/fd/{number}")
            flags = int(Path(f"/proc/{pid}/fdinfo/{number}").read_text().split("flags:")[1].split()[0], 8)
        except (OSError, IndexError):
            continue
        if stat.S_ISFIFO(at.st_mode):
            ends = at.st_ino * 2, at.st_ino * 2 + 1
            found[number] = ("pipe", ends[::-1] if flags & os.O_WRONLY else ends)
        elif stat.S_ISSOCK(at.st_mode):
            found[number] = ("socket", (at.st_ino, 0))
        else:
            found[number] = ("vnode", (at.st_mode & 0xFFFF, at.st_rdev & 0xFFFFFFFF))
    return found
