"""Makes a Mac of this process before it runs attestd: the programs of ``mac_instance`` begin with ``become``.

``sys.platform`` is ``darwin`` before anything of attestd is imported, so every choice of platform in it is macOS's.
libSystem is a ``Mirror``: whoever loads it by its path gets that, with C's signatures. Options of level SOL_LOCAL are
answered by it as well. What only Linux has is taken away: names of ``os``, ``socket``, ``select`` and ``fcntl``, the
credentials of its sockets, and /proc, which may be opened by the Mirror alone.
"""

from __future__ import annotations

import _socket
import ctypes
import errno
import fcntl
import importlib
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from tests.fakes import mirror
from tests.fakes.libsystem import F_GETPATH
from tests.fakes.mirror import Mirror

LIBRARY = "/usr/lib/libSystem.B.dylib"
_CTL = ("subprocess", "click", "msgspec")
OTHERS = {
    "attestd": (*_CTL, "asyncio", "ssl", "cedarpy", "cryptography", "httptools", "sqlite3", "uvloop"),
    "attestctl": _CTL,
    "attestd-connect": (),
}
"""What each program imports of others: imported before the platform changes, as what it does is not under test."""
SOL_LOCAL = 0
F_FULLFSYNC = 51
LINUX_ONLY = (
    (
        os,
        ("pidfd_open", "pipe2", "memfd_create", "eventfd", "unshare", "setns", "RWF_NOWAIT", "getresuid", "setresuid"),
    ),
    (socket, ("SO_PEERCRED", "SO_PASSCRED", "SCM_CREDENTIALS", "MSG_CMSG_CLOEXEC", "SO_PEERSEC", "AF_NETLINK")),
    (select, ("epoll",)),
    (fcntl, ("F_SETPIPE_SZ",)),
    (signal, ("pidfd_send_signal",)),
)
_UCRED_BYTES = 12
_LINUXES = frozenset({16, 17, 77})
"""SO_PASSCRED, SO_PEERCRED, SO_PEERPIDFD."""


class _Function:
    """A function of the library: typed by whoever loads it."""

    def __init__(self, call: Any) -> None:
        self.argtypes: Any = None
        self.restype: Any = None
        self._call = call

    def __call__(self, *words: Any) -> Any:
        return self._call(*(word.value if isinstance(word, ctypes.c_uint64) else word for word in words))


class _Library:
    """libSystem as ctypes shows it."""

    def __init__(self, mac: Mirror) -> None:
        self._mac = mac

    def __getattr__(self, name: str) -> _Function:
        found = _Function(getattr(self._mac, name))
        setattr(self, name, found)
        return found


def become(images: str, activated: dict[str, list[int]], program: str) -> None:
    """From here on this process is one of a Mac, which is to run ``program``."""
    for name in OTHERS[program]:
        importlib.import_module(name)
    mac = Mirror(Path(images), activated)
    real = ctypes.CDLL

    def load(name: Any, *words: Any, **options: Any) -> Any:
        return _Library(mac) if name == LIBRARY else real(name, *words, **options)

    ctypes.CDLL = load  # type: ignore[misc, assignment]
    _dress_sockets(mac)
    for module, names in LINUX_ONLY:
        for each in names:
            if hasattr(module, each):
                delattr(module, each)
    _dress_files()
    sys.addaudithook(_no_proc)
    sys.platform = "darwin"


def _dress_sockets(mac: Mirror) -> None:
    plain, receive, listen = _socket.socket.getsockopt, _socket.socket.recvmsg, _socket.socket.listen

    def getsockopt(self: Any, level: int, option: int, size: int = 0) -> Any:
        if level == SOL_LOCAL and self.family == socket.AF_UNIX:
            raw = mac.option(self.fileno(), option)
            return raw[:size] if size else int.from_bytes(raw, sys.byteorder)
        if level == socket.SOL_SOCKET and option in _LINUXES:
            raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
        return plain(self, level, option, size) if size else plain(self, level, option)

    def recvmsg(self: Any, size: int, space: int = 0, flags: int = 0) -> Any:
        data, ancillary, got, address = receive(self, size, space + socket.CMSG_SPACE(_UCRED_BYTES), flags)
        named = [value for level, kind, value in ancillary if (level, kind) == (socket.SOL_SOCKET, 2)]
        if named and data:
            mac.record(self, int.from_bytes(named[0][:4], sys.byteorder))
        rest = [each for each in ancillary if each[:2] != (socket.SOL_SOCKET, 2)]
        return data, rest, got, address

    def listening(self: Any, *words: Any) -> None:
        if self.family == socket.AF_UNIX:
            self.setsockopt(socket.SOL_SOCKET, 16, 1)  # so that what is read can be recorded with its writer
        listen(self, *words)

    methods = {"getsockopt": getsockopt, "recvmsg": recvmsg, "listen": listening}
    for name, method in methods.items():
        setattr(socket.socket, name, method)
    _socket.socket = type("socket", (_socket.socket,), methods)  # type: ignore[misc]


def _dress_files() -> None:
    plain = fcntl.fcntl

    def control(fd: Any, command: int, word: Any = 0) -> Any:
        if command == F_FULLFSYNC:
            os.fsync(fd)
            return 0
        return mirror.path_of(fd).ljust(1024, b"\0") if command == F_GETPATH else plain(fd, command, word)

    fcntl.F_FULLFSYNC, fcntl.fcntl = F_FULLFSYNC, control  # type: ignore[assignment]


def _no_proc(event: str, words: tuple[Any, ...]) -> None:
    if event not in ("open", "os.listdir", "os.scandir") or not str(words[0]).startswith("/proc"):
        return
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == mirror.__file__:
            return
        frame = frame.f_back  # type: ignore[assignment]
    raise FileNotFoundError(errno.ENOENT, "a Mac has no such file", str(words[0]))
