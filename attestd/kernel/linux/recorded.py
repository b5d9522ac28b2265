"""What the kernel recorder says about one living process: is its image the one that was executed, and with which words.

Rules: the image is *confirmed* if device, inode and, where both know it, generation equal those of the exec record; the
ctime may change with the link count and is not compared. It is *refuted* if they differ: ``/proc/PID/exe`` was forged.
On file systems whose stat(2) may name another device than the inode has (btrfs, overlay, bcachefs) an image is never
refuted, and confirmed only in one case: overlay, mounted in our own mount namespace (so that root chose its layers and
nobody else its inode numbers), device and inode equal, and the ctime too, for such inodes have no generation and a
number may have been used again. btrfs repeats inode numbers in every subvolume, which the record does not name. A
record that was copied from what the process showed (``pre_attach``, ``image_claimed``) confirms nothing. Words count
only where they were recorded whole; a cut environment is kept beside what the process shows.
"""

from __future__ import annotations

import os
import sys

import msgspec

from attestd.evidence.recorder import ExecEvent, ProcessKey, ProcessRecord, Recorder
from attestd.kernel.linux.abi import fs_name, generation

if sys.platform != "linux":
    raise ImportError("cannot load this module: it needs Linux")

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_OTHER_DEVICE = frozenset({"btrfs", "overlay", "bcachefs"})


def key_of(pid: int, start_ticks: int) -> ProcessKey:
    """The key of a process as /proc shows it."""
    return ProcessKey(pid, start_ticks * TICK_NS)


def same_process(key: ProcessKey, pid: int, start_ticks: int) -> bool:
    """Whether a record's exact key is that of this process."""
    return (key.pid, key.start_ns // TICK_NS) == (pid, start_ticks)


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """Where a process was when it executed its image, and with which environment. None: not recorded whole."""

    cwd: str | None
    cwd_dev: int
    cwd_ino: int
    environ: tuple[tuple[str, str], ...] | None
    dead: bool = False
    """The process has exited: nothing can be asked of it."""

    def is_in(self, found: os.stat_result, fs: str) -> bool:
        """Whether this directory is the recorded one."""
        return found.st_ino == self.cwd_ino and (found.st_dev == self.cwd_dev or fs in _OTHER_DEVICE)


class Recorded:
    """The record of one process and the words of its last exec, as of now."""

    __slots__ = ("event", "record")

    def __init__(self, recorder: Recorder, pid: int, start_ticks: int) -> None:
        self.record: ProcessRecord | None = recorder.process(key_of(pid, start_ticks))
        self.event: ExecEvent | None = None
        if self.record is not None and self.record.counter_exact:
            self.event = recorder.exec_event(self.record.key, self.record.exec_counter)

    @property
    def argv(self) -> tuple[str, ...] | None:
        """The whole command line; None if it was not recorded whole."""
        event = self.event
        if event is None or event.argv_truncated or not event.argv:
            return None
        return tuple(word.decode("utf-8", "replace") for word in event.argv)

    @property
    def environ(self) -> tuple[tuple[str, str], ...]:
        """What was recorded of the environment, in order, doubled names too."""
        pairs = (entry.partition(b"=") for entry in (self.event.environ if self.event else ()) if b"=" in entry)
        return tuple((name.decode("utf-8", "replace"), value.decode("utf-8", "replace")) for name, _, value in pairs)

    @property
    def environ_whole(self) -> bool:
        """Whether that is all of it."""
        return self.event is not None and not self.event.environ_truncated

    @property
    def start(self) -> Start | None:
        """For resolving scripts; None without words."""
        event = self.event
        if event is None:
            return None
        return Start(
            cwd=event.cwd or None,
            cwd_dev=event.cwd_dev,
            cwd_ino=event.cwd_ino,
            environ=self.environ if self.environ_whole else None,
        )

    def objection(self) -> str:
        """Why the record cannot confirm an image; empty if it can."""
        record = self.record
        if record is None:
            return "the process is not known"
        if record.pre_attach:
            return "the process is older than the recorder"
        if record.image is None or record.image_claimed:
            return "the image is older than the recorder"
        if record.gap:
            return "events were lost when the process began"
        return ""

    def image_is(self, fd: int) -> bool | None:
        """Whether the open file is what was executed. None: it cannot be said."""
        image = self.record.image if self.record is not None else None
        if image is None or self.record is None or self.record.pre_attach or self.record.image_claimed:
            return None
        found = os.fstat(fd)
        same = (found.st_dev, found.st_ino) == (image.dev, image.ino)
        fs = fs_name(fd)
        if fs in _OTHER_DEVICE:
            certain = fs == "overlay" and same and found.st_ctime_ns == image.ctime_ns and _mounted_here(found.st_dev)
            return True if certain else None
        here = generation(fd)
        return same and (not here or not image.generation or here == image.generation)


def _mounted_here(device: int) -> bool:
    """Whether an overlay with this device is mounted in our own mount namespace."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            _, _, number, rest = line.split(" ", 3)
            if number == wanted and " - overlay " in rest:
                return True
    return False
