"""One look at a living process through /proc, for what the events do not say: start time, name, real uid, image.

Everything is read through one descriptor of ``/proc/PID``, so all of it is of one process even if the pid is reused.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from attestd.evidence.recorder import ImageFacts
from attestd.kernel.linux.status import parse_stat, parse_status

if sys.platform != "linux":
    raise ImportError(f"cannot use Linux interfaces on {sys.platform}")

TICK_NS = 10_000_000
"""USER_HZ is 100 on every architecture that we run on."""
UNKNOWN_UID = 0xFFFFFFFF


class Glance(NamedTuple):
    """What /proc says now."""

    pid: int
    start_ns: int
    """Cut to the tick."""
    comm: str
    uid: int
    """Real; UNKNOWN_UID if it could not be read or was not asked for."""
    alive: bool
    """False: a zombie, none of its threads runs."""


def look(pid: int, *, with_uid: bool = True) -> Glance | None:
    """The process that has this pid now; None: there is none, or it is hidden from us."""
    try:
        directory = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        raw = _read(directory, "stat", 1024)
        stat = parse_stat(raw)
        uid = parse_status(_read(directory, "status", 8192)).uids[0] if with_uid else UNKNOWN_UID
    except (OSError, ValueError):
        return None
    finally:
        os.close(directory)
    threads = int(raw[raw.rfind(b")") + 2 :].split(b" ", 18)[17])
    return Glance(
        pid=pid,
        start_ns=stat.start_ticks * TICK_NS,
        comm=raw[raw.find(b"(") + 1 : raw.rfind(b")")].decode("utf-8", "replace"),
        uid=uid,
        alive=stat.state not in "ZX" or threads > 1,
    )


def image(pid: int) -> ImageFacts | None:
    """The executable that /proc shows now: a claim, for it can be forged and may be of a later exec."""
    try:
        facts = os.stat(f"/proc/{pid}/exe")
    except OSError:
        return None
    return ImageFacts(dev=facts.st_dev, ino=facts.st_ino, generation=0, size=facts.st_size, ctime_ns=facts.st_ctime_ns)


def pids() -> list[int]:
    """Every process there is now."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _read(directory: int, name: str, limit: int) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.read(fd, limit)
    finally:
        os.close(fd)
