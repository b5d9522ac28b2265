"""What the kernel remembers about processes: lineage through dead ancestors, images and words at exec.

Keys are (pid, start time) with the start time in nanoseconds since boot, as the kernel counts it; a pid alone means
nothing. /proc shows the start time in ticks of 10 ms: a key whose time is a multiple of that finds the process born
in that tick, any other key only the process born in that nanosecond. Records carry the exact key. ``exec_counter``
counts the images of a process. None means not known, never "no".
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class ProcessKey(msgspec.Struct, frozen=True):
    """One process for ever."""

    pid: int
    start_ns: int


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The executable's inode when it was executed."""

    dev: int
    ino: int
    generation: int
    size: int
    ctime_ns: int


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One process as the kernel recorded it, dead or alive."""

    key: ProcessKey
    parent: ProcessKey | None
    exec_counter: int
    image: ImageFacts | None
    """None: it has not executed anything since it was forked before the recorder, or the fallback cannot know."""
    uid: int
    cgroup_id: int
    forked_ns: int
    exec_ns: int
    exited_ns: int | None
    comm: str
    pre_attach: bool = False
    """Older than the recorder: its image is what /proc says."""
    gap: bool = False
    """Born while events were lost, or its parent is no longer remembered: its lineage is not known."""
    image_claimed: bool = False
    """The image is what the process claimed when it was first seen (or its parent, before the fork), not what was
    executed: it can be forged (docs/evidence/exe-forgeability.md)."""
    counter_exact: bool = True
    """False: events were lost while it lived, or the source cannot vouch for it: an equal counter proves nothing."""
    parent_exact: bool = True
    """False: ``parent`` is who the kernel held for the parent right after the fork, which its maker could choose
    (CLONE_PARENT: its own parent); that this one did not adopt the process is not proven."""


class ExecEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The words of one exec, copied before the process could change them."""

    key: ProcessKey
    exec_counter: int
    argv: tuple[bytes, ...]
    environ: tuple[bytes, ...]
    cwd: str
    cwd_dev: int
    cwd_ino: int
    filename: str
    interp: str
    truncated: bool
    """Something was too long or could not be read: argv, environ or a path."""
    time_ns: int
    argv_truncated: bool = False
    environ_truncated: bool = False


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """Who connected a socket, at the moment of connect."""

    cookie: int
    key: ProcessKey
    exec_counter: int
    family: int
    time_ns: int
    contested: bool = False
    """Another process, or another image of this one, called connect on the same socket before."""


class Losses(msgspec.Struct, frozen=True, kw_only=True):
    """What was lost, counted exactly."""

    exec_events: int
    fork_events: int
    dirty_epochs: int
    unknown_events: int = 0
    """Lost events of which only the number is known (fallback)."""


class Recorder(Protocol):
    """The recorder, or what stands in for it."""

    def state(self) -> tuple[str, str]:
        """State (absent | on | fallback) and its reason."""

    def process(self, key: ProcessKey) -> ProcessRecord | None:
        """The record of one process."""

    def exec_counter(self, key: ProcessKey) -> int | None:
        """Of a living process; cheap enough to be asked on every message. None: not known, or dead."""

    def lineage(self, key: ProcessKey, limit: int = 32) -> tuple[ProcessRecord, ...]:
        """The process and its ancestors, dead ones too; ends at pid 1, at a pre-attach process or at a gap."""

    def exec_event(self, key: ProcessKey, exec_counter: int) -> ExecEvent | None:
        """The words of one exec, while they are remembered."""

    def connection(self, cookie: int) -> Connection | None:
        """Who connected this socket."""

    def losses(self) -> Losses:
        """Since it was loaded."""

    def close(self) -> None:
        """Give everything back. Idempotent."""
