"""Logs to attack: made by the real writer, taken apart and put together again frame by frame."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

from attestd.audit import chain
from attestd.audit.chain import Frame
from attestd.audit.files import segment_name
from attestd.audit.log import AuditLogFile, LogLimits
from attestd.audit.protocol import Entry
from attestd.audit.reader import walk

ORIGIN = "attestd.test/audit"
START_NS = 1_800_000_000_000_000_000
QUIET = LogLimits(checkpoint_records=10_000, checkpoint_seconds=3600.0)


def entry(number: int = 0) -> Entry:
    """A decision that differs with ``number``."""
    return Entry(
        kind="decision",
        id=f"d{number:08d}",
        session="s1",
        server="time",
        method="tools/call",
        name="get_current_time",
        verdict="permit" if number % 3 else "deny",
        cause="" if number % 3 else "no_grant",
        policies=("baseline",),
        uid=1000,
        pid=4242,
    )


def open_log(directory: Path, *, high_water: Path | None = None, limits: LogLimits = QUIET) -> AuditLogFile:
    """A log whose own clock stands still, so that only tests move time."""
    return AuditLogFile(directory, ORIGIN, high_water=high_water, limits=limits, clock=lambda: START_NS)


def make_log(directory: Path, groups: tuple[int, ...], *, high_water: Path | None = None) -> Path:
    """A closed log with a checkpoint after each group of records; the path of its only segment."""
    with open_log(directory, high_water=high_water) as log:
        for count in groups:
            for _ in range(count):
                number = log.head().size
                log.append(entry(number), START_NS + number)
            log.checkpoint_now()
    return directory / segment_name(0)


def wait_for(condition: Callable[[], object]) -> None:
    """Return when the condition holds; fail after 20 s."""
    end = time.monotonic() + 20
    while not condition():
        if time.monotonic() > end:
            pytest.fail("it did not come to pass within 20 s")
        time.sleep(0.001)


def frames(segment: Path) -> list[Frame]:
    """Every frame of an undamaged segment."""
    with segment.open("rb") as file:
        found = list(walk(file.fileno()))
    return [frame for frame in found if isinstance(frame, Frame)]


def record_frame(segment: Path, seq: int) -> Frame:
    """The frame of record ``seq`` of a log of one segment."""
    return [frame for frame in frames(segment) if frame.kind == chain.RECORD][seq]


def flip(segment: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit."""
    data = bytearray(segment.read_bytes())
    data[offset] ^= 1 << bit
    segment.write_bytes(data)


def reseal(raw: bytes) -> bytes:
    """A frame with its checksum put right."""
    return raw[:-4] + struct.pack("<I", crc32(raw[:-4]))


def relink(parts: list[bytes]) -> bytes:
    """Frames with every ``prev`` and checksum computed anew, as who can write the file but not sign would do it."""
    prev, out = chain.GENESIS, []
    for raw in parts:
        frame = chain.encode(raw[1], prev, raw[chain.HEAD_BYTES + 32 : -4])
        out.append(frame)
        prev = chain.link(frame)
    return b"".join(out)
