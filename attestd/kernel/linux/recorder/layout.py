"""The bytes that recorder.bpf.c writes into its maps. A test compares them with the object's own types.

Keys of ``alive`` and ``dead`` are (start tick, pid): /proc shows ticks of 10 ms, the record holds the exact start
time.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from attestd.evidence.recorder import Connection, ImageFacts, ProcessKey, ProcessRecord

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

LAYOUT_VERSION = 2
MAGIC = 0x41545245
TICK_NS = 10_000_000

KEY = struct.Struct("<QII")
PROCESS = struct.Struct("<7Q2q6I16s")
WORDS = struct.Struct("<4Q3I6H")
CONNECTION = struct.Struct("<3QIHH")
STATE = struct.Struct("<2I2Q2I32s")
COOKIE = struct.Struct("<Q")
WORDS_BYTES = 3840
"""What is kept of a living process; an event may be twice as long."""

PRE_ATTACH, GAP, IMAGE_CLAIMED, IMAGE_KNOWN = 1, 2, 4, 8
ARGV_CUT, ENVIRON_CUT, PATH_CUT, UNREADABLE = 1, 2, 4, 8
LOST_EXEC, LOST_FORK, LOST_DEAD, LOST_CONNECT, LOST_WORDS = range(5)
LOST_NAMES = ("exec_events", "fork_events", "dead_records", "connections", "words")

FEATURE_WORDS, FEATURE_CONNECT4, FEATURE_CONNECT6, FEATURE_CONNECT_UNIX = 1, 2, 4, 8
FEATURE_NAMES = {
    FEATURE_WORDS: "words_of_all_living",
    FEATURE_CONNECT4: "connect4",
    FEATURE_CONNECT6: "connect6",
    FEATURE_CONNECT_UNIX: "connect_unix",
}


class State(NamedTuple):
    """What the loader says about what is loaded."""

    magic: int
    layout: int
    attached_ns: int
    replaced_ns: int
    features: int
    zero: int
    build: bytes


def map_key(key: ProcessKey) -> bytes:
    """The key of a process in ``alive`` and ``dead``."""
    return KEY.pack(key.start_ns // TICK_NS, key.pid, 0)


def state(data: bytes) -> State:
    """Decode the only value of ``state``."""
    return State._make(STATE.unpack(data))


def process(data: Buffer) -> ProcessRecord:
    """Decode a value of ``alive`` or ``dead``."""
    (
        start_ns,
        parent_start_ns,
        exec_counter,
        exec_ns,
        exited_ns,
        cgroup_id,
        ino,
        size,
        ctime_ns,
        dev,
        generation,
        pid,
        parent_pid,
        uid,
        flags,
        comm,
    ) = PROCESS.unpack_from(data)
    image = None
    if flags & IMAGE_KNOWN:
        image = ImageFacts(dev=device(dev), ino=ino, generation=generation, size=size, ctime_ns=ctime_ns)
    return ProcessRecord(
        key=ProcessKey(pid, start_ns),
        parent=ProcessKey(parent_pid, parent_start_ns) if parent_pid and not flags & GAP else None,
        exec_counter=exec_counter,
        image=image,
        uid=uid,
        cgroup_id=cgroup_id,
        forked_ns=start_ns,
        exec_ns=exec_ns,
        exited_ns=exited_ns or None,
        comm=comm.partition(b"\0")[0].decode("utf-8", "replace"),
        pre_attach=flags & PRE_ATTACH != 0,
        gap=flags & GAP != 0,
        image_claimed=flags & IMAGE_CLAIMED != 0,
    )


def connection(cookie: int, data: Buffer) -> Connection:
    """Decode a value of ``connects``."""
    start_ns, exec_counter, time_ns, pid, family, contested = CONNECTION.unpack_from(data)
    return Connection(
        cookie=cookie,
        key=ProcessKey(pid, start_ns),
        exec_counter=exec_counter,
        family=family,
        time_ns=time_ns,
        contested=bool(contested),
    )


def device(number: int) -> int:
    """The kernel's device number (12 and 20 bits) as ``st_dev`` shows it."""
    major, minor = number >> 20, number & 0xFFFFF
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12
