"""libSystem as attestation uses it: the C functions, and typed calls on top of them.

Rules: ``Functions`` is the surface of C, with C's signatures and errno, so that a fake of it exercises every layout
that the real library would. ``System`` turns it into values and OSError; it believes no answer of another size than
the structure has. No function with variable arguments is called: on Apple silicon ctypes passes them wrongly.
csops_audittoken compares only pid and pid version of its token, so a token of these two alone asks about exactly one
image of one process, and fails with ESRCH once that has gone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from attestd.kernel.darwin import abi

_S = TypeVar("_S", bound=ctypes.Structure)
_MAX_ARGUMENTS_BYTES = 1 << 20
_ALLOWS = ":allow"


class Functions(Protocol):
    """The functions of libSystem. Each sets errno as C does; buffers are ctypes objects."""

    def proc_pidinfo(self, pid: int, flavor: int, arg: int, buffer: Any, size: int, /) -> int:
        """Bytes written; 0 is an error."""

    def proc_pidfdinfo(self, pid: int, fd: int, flavor: int, buffer: Any, size: int, /) -> int:
        """Bytes written; 0 is an error."""

    def proc_pidpath(self, pid: int, buffer: Any, size: int, /) -> int:
        """Length of the path; 0 is an error."""

    def proc_listallpids(self, buffer: Any, size: int, /) -> int:
        """How many pids there are (no buffer) or were written; -1 or 0 is an error."""

    def csops_audittoken(self, pid: int, ops: int, buffer: Any, size: int, token: Any, /) -> int:
        """0, or -1."""

    def sysctl(self, name: Any, count: int, old: Any, size: Any, new: Any, new_size: int, /) -> int:  # noqa: PLR0917 - as in C
        """0, or -1."""

    def sysctlbyname(self, name: bytes, old: Any, size: Any, new: Any, new_size: int, /) -> int:
        """0, or -1."""

    def getsockopt(self, fd: int, level: int, option: int, value: Any, size: Any, /) -> int:
        """0, or -1."""

    def getsid(self, pid: int, /) -> int:
        """The session's leader, or -1."""

    def devname_r(self, device: int, mode: int, buffer: Any, size: int, /) -> Any:
        """NULL is an error."""

    def fstatfs(self, fd: int, buffer: Any, /) -> int:
        """0, or -1."""

    def kqueue(self) -> int:
        """A descriptor, or -1."""

    def kevent(self, kq: int, changes: Any, count: int, events: Any, room: int, timeout: Any, /) -> int:  # noqa: PLR0917 - as in C
        """How many events were written, or -1."""

    def acl_get_link_np(self, path: bytes, kind: int, /) -> Any:
        """An ACL, or NULL; ENOENT: there is none."""

    def acl_to_text(self, acl: Any, size: Any, /) -> Any:
        """A string to be freed, or NULL."""

    def acl_free(self, thing: Any, /) -> int:
        """0, or -1."""

    def launch_activate_socket(self, name: bytes, fds: Any, count: Any, /) -> int:
        """0 or an errno: ESRCH, launchd does not know us; ENOENT, no such socket; EALREADY. To be freed."""

    def free(self, pointer: Any, /) -> None:
        """Give memory back."""

    def gethostuuid(self, uuid: Any, timeout: Any, /) -> int:
        """0, or -1."""


def load() -> Functions:
    """The real library. Raises ImportError anywhere but on macOS."""
    if sys.platform != "darwin":
        raise ImportError("cannot load libSystem: it needs macOS")
    library = ctypes.CDLL("/usr/lib/libSystem.B.dylib", use_errno=True)
    for name, arguments, result in _signatures():
        function = getattr(library, name)
        function.argtypes = arguments
        function.restype = result
    if hasattr(library, "fstatfs$INODE64"):  # Intel: the plain name is the layout with 32-bit inodes
        fstatfs = getattr(library, "fstatfs$INODE64")
        fstatfs.argtypes, fstatfs.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_int
        setattr(library, "fstatfs", fstatfs)  # noqa: B010 - a CDLL has its functions by name only
    return cast("Functions", library)


def _signatures() -> tuple[tuple[str, list[Any], Any], ...]:
    number, unsigned, pointer, size = ctypes.c_int, ctypes.c_uint, ctypes.c_void_p, ctypes.c_size_t
    return (
        ("proc_pidinfo", [number, number, ctypes.c_uint64, pointer, number], number),
        ("proc_pidfdinfo", [number, number, number, pointer, number], number),
        ("proc_pidpath", [number, pointer, ctypes.c_uint32], number),
        ("proc_listallpids", [pointer, number], number),
        ("csops_audittoken", [number, unsigned, pointer, size, pointer], number),
        ("sysctl", [pointer, unsigned, pointer, pointer, pointer, size], number),
        ("sysctlbyname", [ctypes.c_char_p, pointer, pointer, pointer, size], number),
        ("getsockopt", [number, number, number, pointer, pointer], number),
        ("getsid", [number], number),
        ("devname_r", [ctypes.c_int32, ctypes.c_uint16, pointer, number], pointer),
        ("fstatfs", [number, pointer], number),
        ("kqueue", [], number),
        ("kevent", [number, pointer, number, pointer, number, pointer], number),
        ("acl_get_link_np", [ctypes.c_char_p, number], pointer),
        ("acl_to_text", [pointer, pointer], pointer),
        ("acl_free", [pointer], number),
        ("gethostuuid", [pointer, pointer], number),
        ("launch_activate_socket", [ctypes.c_char_p, pointer, pointer], number),
        ("free", [pointer], None),
    )


class Unique(NamedTuple):
    """Flavour 17. ``version`` and ``parent_version`` are as the token has them: unsigned."""

    unique_id: int
    """Never used again in this boot; kept across exec."""
    parent_unique_id: int
    """Of the parent at fork or, if the process executed something since, of the parent at that exec."""
    version: int
    """Another number after every exec."""
    parent_version: int
    """Of the parent at fork; never changes."""


class Token(NamedTuple):
    """What attestation uses of an audit token."""

    euid: int
    pid: int
    version: int


class System:
    """Typed calls. Every failure is an OSError with the errno of the call."""

    def __init__(self, functions: Functions) -> None:
        self._c = functions

    def unique(self, pid: int) -> Unique:
        """The unique ids of a living process. Raises ProcessLookupError."""
        found = self._pidinfo(pid, abi.PROC_PIDUNIQIDENTIFIERINFO, abi.UniqueInfo)
        versions = (found.p_idversion & 0xFFFFFFFF, found.p_orig_ppidversion & 0xFFFFFFFF)
        return Unique(found.p_uniqueid, found.p_puniqueid, *versions)

    def short(self, pid: int) -> abi.ShortBsdInfo:
        """Parent, uids, flags, name. Raises ProcessLookupError."""
        return self._pidinfo(pid, abi.PROC_PIDT_SHORTBSDINFO, abi.ShortBsdInfo)

    def full(self, pid: int) -> abi.BsdInfo:
        """Start time and terminal. Raises PermissionError for another user's process."""
        return self._pidinfo(pid, abi.PROC_PIDTBSDINFO, abi.BsdInfo)

    def directories(self, pid: int) -> tuple[str, str]:
        """Working directory and root directory (empty: the system's). Raises PermissionError, ProcessLookupError."""
        found = self._pidinfo(pid, abi.PROC_PIDVNODEPATHINFO, abi.Directories)
        return os.fsdecode(found.pvi_cdir.vip_path), os.fsdecode(found.pvi_rdir.vip_path)

    def path(self, pid: int) -> str:
        """Where the kernel finds the file of the image now: a label."""
        buffer = ctypes.create_string_buffer(abi.PATH_BYTES)
        if self._c.proc_pidpath(pid, buffer, abi.PATH_BYTES) <= 0:
            raise _failed()
        return os.fsdecode(buffer.value)

    def signed(self, pid: int, version: int, operation: int, size: int) -> bytes:
        """One csops answer about one image. Raises ProcessLookupError once pid and version do not belong together."""
        token = abi.AuditToken()
        token.val[5], token.val[7] = pid, version
        buffer = ctypes.create_string_buffer(size)
        if self._c.csops_audittoken(pid, operation, buffer, size, ctypes.byref(token)) != 0:
            raise _failed()
        return buffer.raw

    def arguments(self, pid: int) -> bytes:
        """KERN_PROCARGS2. Raises OSError(EINVAL) for another user's process and one that has gone."""
        name = (ctypes.c_int * 3)(abi.CTL_KERN, abi.KERN_PROCARGS2, pid)
        buffer = ctypes.create_string_buffer(_MAX_ARGUMENTS_BYTES)
        size = ctypes.c_size_t(_MAX_ARGUMENTS_BYTES)
        if self._c.sysctl(name, 3, buffer, ctypes.byref(size), None, 0) != 0:
            raise _failed()
        return buffer.raw[: size.value]

    def setting(self, name: bytes) -> bytes:
        """A sysctl by name, without its final zero byte."""
        buffer = ctypes.create_string_buffer(1024)
        size = ctypes.c_size_t(1024)
        if self._c.sysctlbyname(name, buffer, ctypes.byref(size), None, 0) != 0:
            raise _failed()
        return buffer.raw[: size.value].rstrip(b"\0")

    def token(self, sock_fd: int) -> Token:
        """Who used the other end last. Raises OSError(EINVAL): that process has gone; ENOTCONN: no other end."""
        found = self._option(sock_fd, abi.LOCAL_PEERTOKEN, abi.AuditToken)
        return Token(euid=found.val[1], pid=found.val[5], version=found.val[7])

    def credentials(self, sock_fd: int) -> abi.Xucred:
        """Who connected: the credentials of that moment."""
        found = self._option(sock_fd, abi.LOCAL_PEERCRED, abi.Xucred)
        if found.cr_version != 0 or not 0 <= found.cr_ngroups <= 16:
            raise OSError(errno.EPROTO, f"got credentials of version {found.cr_version}, expected 0")
        return found

    def session(self, pid: int) -> int:
        """The pid of the session's leader; 0: not known."""
        return max(self._c.getsid(pid), 0)

    def terminal(self, device: int) -> str | None:
        """The name of a character device: ttys003."""
        buffer = ctypes.create_string_buffer(128)
        signed = ctypes.c_int32(device).value
        return os.fsdecode(buffer.value) if self._c.devname_r(signed, 0o020000, buffer, 128) else None

    def file_system(self, fd: int) -> str:
        """apfs, hfs, nfs, …; one of any FUSE begins with ``fuse``."""
        found = abi.Statfs()
        if self._c.fstatfs(fd, ctypes.byref(found)) != 0:
            raise _failed()
        name = found.f_fstypename.decode("ascii", "replace")
        return f"fuse.{name}" if "fuse" in name else name

    def descriptors(self, pid: int) -> tuple[tuple[int, int], ...]:
        """Number and type of every open descriptor. Raises PermissionError, ProcessLookupError."""
        count = 256
        while True:
            buffer = (abi.FdEntry * count)()
            ctypes.set_errno(0)  # a process without descriptors has 0 bytes of them, and that is no error
            size = self._c.proc_pidinfo(pid, abi.PROC_PIDLISTFDS, 0, buffer, ctypes.sizeof(buffer))
            if size < 0 or (size == 0 and ctypes.get_errno()):
                raise _failed()
            if size < ctypes.sizeof(buffer):
                found = buffer[: size // ctypes.sizeof(abi.FdEntry)]
                return tuple((entry.proc_fd, entry.proc_fdtype) for entry in found)
            count *= 4

    def pipe(self, pid: int, fd: int) -> abi.FdPipe:
        """One end of a pipe."""
        return self._fdinfo(pid, fd, abi.PROC_PIDFDPIPEINFO, abi.FdPipe)

    def socket(self, pid: int, fd: int) -> abi.FdSocket:
        """A socket."""
        return self._fdinfo(pid, fd, abi.PROC_PIDFDSOCKETINFO, abi.FdSocket)

    def vnode(self, pid: int, fd: int) -> abi.VnodePath:
        """A file, with the path that the kernel finds for it."""
        return self._fdinfo(pid, fd, abi.PROC_PIDFDVNODEPATHINFO, abi.FdVnodePath).pvip

    def vnode_stat(self, pid: int, fd: int) -> abi.VnodeStat:
        """Mode and device of a file."""
        return self._fdinfo(pid, fd, abi.PROC_PIDFDVNODEINFO, abi.FdVnode).vi_stat

    def pids(self) -> tuple[int, ...]:
        """Every process."""
        room = max(self._c.proc_listallpids(None, 0), 64) * 2
        buffer = (ctypes.c_int32 * room)()
        count = self._c.proc_listallpids(buffer, ctypes.sizeof(buffer))
        if count <= 0 or count >= room:
            raise _failed()
        return tuple(buffer[:count])

    def acl_allows(self, path: str) -> bool:
        """Whether an access control list allows anybody anything here; also if that cannot be told."""
        acl = self._c.acl_get_link_np(os.fsencode(path), abi.ACL_TYPE_EXTENDED)
        if not acl:
            return ctypes.get_errno() != errno.ENOENT
        try:
            text = self._c.acl_to_text(acl, None)
            if not text:
                return True
            try:
                return _ALLOWS.encode() in ctypes.string_at(text)
            finally:
                self._c.acl_free(text)
        finally:
            self._c.acl_free(acl)

    def host_uuid(self) -> bytes:
        """The 16 bytes that name this machine."""
        buffer = ctypes.create_string_buffer(16)
        if self._c.gethostuuid(buffer, ctypes.byref(abi.Timespec(1, 0))) != 0:
            raise _failed()
        return buffer.raw

    def activated(self, name: str) -> tuple[int, ...]:
        """The listening descriptors that launchd made under that name of our job; they are ours now. Raises OSError."""
        array, count = ctypes.c_void_p(), ctypes.c_size_t()
        error = self._c.launch_activate_socket(name.encode(), ctypes.byref(array), ctypes.byref(count))
        if error:
            raise OSError(error, os.strerror(error))
        if not array.value:
            return ()
        try:
            return tuple((ctypes.c_int * count.value).from_address(array.value))
        finally:
            self._c.free(array)

    def events(self) -> int:
        """A new kqueue; the caller closes it."""
        kq = self._c.kqueue()
        if kq < 0:
            raise _failed()
        return kq

    def watch(self, kq: int, pid: int) -> None:
        """Make ``kq`` readable when the process now called ``pid`` executes or exits. Raises ProcessLookupError."""
        wanted = abi.NOTE_EXIT | abi.NOTE_EXEC
        change = abi.Kevent(pid, abi.EVFILT_PROC, abi.EV_ADD | abi.EV_RECEIPT, wanted, 0, None)
        answer = abi.Kevent()
        count = self._c.kevent(kq, ctypes.byref(change), 1, ctypes.byref(answer), 1, None)
        if count < 0:
            raise _failed()
        if count != 1 or not answer.flags & abi.EV_ERROR:
            raise OSError(errno.EPROTO, "got no receipt for a process event")
        if answer.data:
            raise OSError(answer.data, os.strerror(answer.data))

    def _pidinfo(self, pid: int, flavor: int, kind: type[_S]) -> _S:
        found = kind()
        size = self._c.proc_pidinfo(pid, flavor, 0, ctypes.byref(found), ctypes.sizeof(found))
        return _whole(found, size)

    def _fdinfo(self, pid: int, fd: int, flavor: int, kind: type[_S]) -> _S:
        found = kind()
        size = self._c.proc_pidfdinfo(pid, fd, flavor, ctypes.byref(found), ctypes.sizeof(found))
        return _whole(found, size)

    def _option(self, sock_fd: int, option: int, kind: type[_S]) -> _S:
        found = kind()
        size = ctypes.c_uint32(ctypes.sizeof(found))
        if self._c.getsockopt(sock_fd, abi.SOL_LOCAL, option, ctypes.byref(found), ctypes.byref(size)) != 0:
            raise _failed()
        return _whole(found, size.value)


def _whole(found: _S, size: int) -> _S:
    if size <= 0:
        raise _failed()
    if size != ctypes.sizeof(found):
        message = f"got {size} bytes of {type(found).__name__}, expected {ctypes.sizeof(found)}"
        raise OSError(errno.EPROTO, message)
    return found


def _failed() -> OSError:
    number = ctypes.get_errno() or errno.EIO
    return OSError(number, os.strerror(number))
