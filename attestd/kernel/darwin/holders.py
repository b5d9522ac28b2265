"""Who can write to the standard input of a process on macOS: the holders of the other end of its pipe or socket pair.

Rules: proc_pidfdinfo gives both ends of a pipe, and a Unix socket and the one it is connected to, as opaque numbers
that are equal in every process. All processes are looked at, then the ones that were found once more. A lower bound:
a descriptor in flight between two processes has no holder. A process of another user may not be looked at, which
makes the answer incomplete, except one that is root's alone: root can write into any process anyway.
"""

from __future__ import annotations

import os
import stat

from attestd.evidence.model import InputHolders
from attestd.kernel.darwin import abi
from attestd.kernel.darwin.libsystem import System
from attestd.kernel.darwin.reading import gone

_UNKNOWN = InputHolders(kind="unknown", pids=(), complete=False)
_KINDS = {abi.FDTYPE_PIPE: "pipe", abi.FDTYPE_SOCKET: "socket"}


def input_holders(system: System, pid: int) -> InputHolders:
    """Holders of the write side of the standard input of ``pid``, that process left out.

    Raises:
        EvidenceError: PEER_GONE - no such process.
    """
    try:
        kind = dict(system.descriptors(pid)).get(0)
        if kind is None:
            return InputHolders(kind="none", pids=(), complete=True)
        if kind == abi.FDTYPE_VNODE:
            return _of_vnode(system.vnode_stat(pid, 0))
        other = _other_end(system, pid, kind)
    except ProcessLookupError as error:
        raise gone(pid) from error
    except OSError:
        return _UNKNOWN
    return _scan(system, pid, kind, other) if other else _UNKNOWN


def _of_vnode(found: abi.VnodeStat) -> InputHolders:
    if not stat.S_ISCHR(found.vst_mode):
        kind = "file" if stat.S_ISREG(found.vst_mode) else "unknown"
        return InputHolders(kind=kind, pids=(), complete=kind == "file")
    null = os.stat("/dev/null").st_rdev
    return InputHolders(kind="none" if found.vst_rdev == null else "tty", pids=(), complete=True)


def _other_end(system: System, pid: int, kind: int) -> int:
    if kind == abi.FDTYPE_PIPE:
        return system.pipe(pid, 0).pipe_peerhandle
    if kind == abi.FDTYPE_SOCKET:
        found = system.socket(pid, 0)
        return found.unsi_conn_so if found.soi_kind == abi.SOCKINFO_UN else 0
    return 0


def _scan(system: System, relay: int, kind: int, other: int) -> InputHolders:
    complete = True
    found: list[int] = []
    for pid in system.pids():
        if pid in (0, relay):
            continue
        holds = _holds(system, pid, kind, other)
        if holds is None:
            complete = complete and _is_root(system, pid)
        elif holds:
            found.append(pid)
    confirmed = tuple(sorted(pid for pid in found if _holds(system, pid, kind, other)))
    return InputHolders(kind=_KINDS[kind], pids=confirmed, complete=complete)


def _holds(system: System, pid: int, kind: int, other: int) -> bool | None:
    """None: may not be looked at. A process or descriptor that has gone holds nothing."""
    try:
        numbers = [number for number, each in system.descriptors(pid) if each == kind]
    except ProcessLookupError:
        return False
    except OSError:
        return None
    return any(_handle(system, pid, number, kind) == other for number in numbers)


def _handle(system: System, pid: int, number: int, kind: int) -> int:
    try:
        return system.pipe(pid, number).pipe_handle if kind == abi.FDTYPE_PIPE else system.socket(pid, number).soi_so
    except OSError:
        return 0


def _is_root(system: System, pid: int) -> bool:
    try:
        short = system.short(pid)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return (short.pbsi_ruid, short.pbsi_uid, short.pbsi_svuid) == (0, 0, 0)
