"""Who listens on a Unix socket that we connected to, and whether that is the program ``attestd``.

For the command line, and on macOS for the shim, which is started once per client: standard library only, and little.
The executable of a process is the kernel's word; its arguments and directory are its own (``daemon_proof`` says what
that leaves open). On macOS LOCAL_PEERCRED is of whoever listened; LOCAL_PEERTOKEN is made, at every call, of whoever
has the pid that used the other end last: so the same token before and after the look means one image of one process.
libSystem is asked through ctypes: ``proc_pidpath``, ``KERN_PROCARGS2``, ``PROC_PIDVNODEPATHINFO``.
"""
# ruff: noqa: PLC0415, PTH113, PTH116, PTH118, PTH123 - each import costs more than the rest

from __future__ import annotations

import os
import sys

SOL_SOCKET = 1
SO_PEERCRED = 17
SOL_LOCAL = 0
LOCAL_PEERCRED = 1
LOCAL_PEERTOKEN = 6
XUCRED_BYTES = 76
TOKEN_BYTES = 32
CTL_KERN = 1
KERN_PROCARGS2 = 49
PROC_PIDVNODEPATHINFO = 9
PATH_BYTES = 4096
VNODE_PATH_BYTES = 1176
VNODE_STAT_BYTES = 152
ARGUMENTS_BYTES = 1 << 20
ALIGN = 8
INTERPRETER_FLAGS = frozenset({b"-I", b"-E", b"-P", b"-s", b"-B", b"-u"})
"""Options without a value that a console script's interpreter may carry; the package's carry the first."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    class Options(Protocol):
        """A socket of either module."""

        def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
            """The raw value of an option."""


def _number(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


if sys.platform == "darwin":

    def listener_of(sock: Options) -> tuple[int, int, int]:
        """Uid, pid and pid version of the listener of a connected socket. Raises OSError: the kernel does not say."""
        credentials = sock.getsockopt(SOL_LOCAL, LOCAL_PEERCRED, XUCRED_BYTES)
        token = sock.getsockopt(SOL_LOCAL, LOCAL_PEERTOKEN, TOKEN_BYTES)
        if len(credentials) != XUCRED_BYTES or _number(credentials[:4]) != 0 or len(token) != TOKEN_BYTES:
            raise OSError(0, "the kernel answers with other structures than are known")
        return _number(credentials[4:8]), _number(token[20:24]), _number(token[28:32])

    def _program_of(pid: int) -> tuple[str, list[bytes], str]:
        import ctypes

        library = ctypes.CDLL("/usr/lib/libSystem.B.dylib", use_errno=True)

        def failed() -> OSError:
            return OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

        path = ctypes.create_string_buffer(PATH_BYTES)
        if library.proc_pidpath(pid, path, PATH_BYTES) <= 0:
            raise failed()
        both = ctypes.create_string_buffer(2 * VNODE_PATH_BYTES)
        if library.proc_pidinfo(pid, PROC_PIDVNODEPATHINFO, ctypes.c_uint64(0), both, len(both)) != len(both):
            raise failed()
        name = (ctypes.c_int * 3)(CTL_KERN, KERN_PROCARGS2, pid)
        raw, length = ctypes.create_string_buffer(ARGUMENTS_BYTES), ctypes.c_size_t(ARGUMENTS_BYTES)
        if library.sysctl(name, 3, raw, ctypes.byref(length), None, ctypes.c_size_t(0)) != 0:
            raise failed()
        cwd = both.raw[VNODE_STAT_BYTES:VNODE_PATH_BYTES].partition(b"\0")[0]
        return os.fsdecode(path.value), _words(raw.raw[: length.value]), os.fsdecode(cwd)

    def _words(raw: bytes) -> list[bytes]:
        count, end = _number(raw[:4]), raw.find(b"\0", 4)
        start = 4 + (end - 4 + 1 + ALIGN - 1) // ALIGN * ALIGN
        *words, _ = raw[start:].split(b"\0", count)
        if end < 0 or not 1 <= count == len(words) or not words[0] or any(raw[end:start]):
            raise OSError(0, "its arguments cannot be told apart")
        return words

else:

    def listener_of(sock: Options) -> tuple[int, int, int]:
        """Uid and pid of the listener of a connected socket, as they were when it listened, and 0. Raises OSError."""
        credentials = sock.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)
        return _number(credentials[4:8]), _number(credentials[:4]), 0

    def _program_of(pid: int) -> tuple[str, list[bytes], str]:
        process = f"/proc/{pid}"
        with open(f"{process}/cmdline", "rb") as file:
            words = file.read().split(b"\0")[:-1]
        return f"{process}/exe", words, f"{process}/cwd"


def program_of(pid: int) -> tuple[str, list[bytes], str]:
    """Paths that lead to executable and working directory, and the arguments between, the program's own name first.

    Raises OSError: the process has gone, or is another user's.
    """
    return _program_of(pid)


def runs_attestd(pid: int, directories: Iterable[str], interpreter: str = "") -> bool:
    """Whether a process is the script ``attestd`` of one of these directories, run by ``interpreter`` (empty: by ours).

    Raises OSError: it cannot be seen.
    """
    exe, words, cwd = program_of(pid)
    interpreter = interpreter or program_of(os.getpid())[0]
    if not os.path.samestat(os.stat(exe), os.stat(interpreter)):
        return False
    del words[0:1]
    while words and words[0] in INTERPRETER_FLAGS:
        del words[0]
    script = os.path.join(cwd, os.fsdecode(words[0])) if words and words[0] else ""
    expected = [path for path in (os.path.join(each, "attestd") for each in directories) if os.path.isfile(path)]
    return os.path.isfile(script) and any(os.path.samestat(os.stat(script), os.stat(path)) for path in expected)


def objection(sock: Options, path: str, uids: Iterable[int], directory: str) -> str:
    """Why whoever listens at ``path`` is not to be trusted; empty: nothing speaks against it.

    It must run as one of ``uids`` and, if ``directory`` is not empty, be its ``attestd``, run by our interpreter.
    """
    try:
        listener = uid, pid, _ = listener_of(sock)
        if uid not in uids:
            expected = " or ".join(str(each) for each in sorted(set(uids)))
            return f"the listener on {path} runs as uid {uid}, expected {expected}"
        if directory and not runs_attestd(pid, (directory,)):
            return f"pid {pid} listens and is not {directory}/attestd, run by {sys.executable}"
        if directory and listener_of(sock) != listener:
            return f"it is not pid {pid} any more that uses {path}"
    except OSError as error:
        return f"cannot see which program listens: {error.strerror}"
    return ""
