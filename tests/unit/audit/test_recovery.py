"""Crashes and tampering, told apart when the log is opened (attacks C4 and C5)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from attestd.audit import chain
from attestd.audit.files import segment_name
from attestd.audit.log import AuditLogFile, LogLimits
from attestd.audit.query import Filters, query
from attestd.audit.verify import verify
from attestd.errors import ConfigurationError, ExitCode, IntegrityError
from tests.support.audit import START_NS, entry, flip, frames, make_log, open_log, record_frame, relink, reseal


@pytest.fixture
def crashed(tmp_path: Path):
    """A log as SIGKILL leaves it: 10 records under a checkpoint, 10 behind it."""
    directory = tmp_path / "log"
    with open_log(directory) as log:
        for number in range(10):
            log.append(entry(number), START_NS + number)
        log.checkpoint_now()
        for number in range(10, 20):
            log.append(entry(number), START_NS + number)
        log.sync_now()
        copy = shutil.copytree(directory, tmp_path / "crashed")
    return copy / segment_name(0)


def recovered(segment: Path):
    return [row.record for row in query(segment.parent, Filters(kinds=("log",)))]


def test_a_log_without_a_torn_tail_is_opened_without_a_word(crashed: Path):
    """After a kill between two records nothing is lost and nothing is noted."""
    with open_log(crashed.parent) as log:
        assert log.head().size == 20
        assert log.append(entry(20), START_NS + 20) == 20
    assert recovered(crashed) == []
    assert verify(crashed.parent).ok


@pytest.mark.attack("C5")
def test_a_tail_torn_at_any_byte_is_cut_and_noted(crashed: Path):
    """For every length that a crash can leave: whole records stay, the torn one is noted."""
    data = crashed.read_bytes()
    ends = [frame.end for frame in frames(crashed)]
    start = next(frame.end for frame in frames(crashed) if frame.kind == chain.CHECKPOINT)
    sizes = {frame.end: seq for seq, frame in enumerate(f for f in frames(crashed) if f.kind == chain.RECORD)}
    for length in range(start, len(data)):
        crashed.write_bytes(data[:length])
        good = max(end for end in ends if end <= length)
        kept = sizes.get(good, 9) + 1
        with open_log(crashed.parent) as log:
            assert log.head().size == kept + (good != length)
        if good != length:
            [record] = recovered(crashed)
            assert record.id == "recovered"
            assert record.detail == {
                "dropped_bytes": length - good,
                "dropped_sha256": sha256(data[good:length]).hexdigest(),
                "last_seq": kept - 1,
            }
        report = verify(crashed.parent)
        assert report.ok, (length, report.problems)


@pytest.mark.attack("C5")
@pytest.mark.parametrize("zeros", [1, 5, 31, 4096, 200_000])
def test_a_tail_of_zeros_is_cut(crashed: Path, zeros: int):
    """A file system that gave the length before the data leaves zeros: torn, whatever was lost."""
    data = crashed.read_bytes()
    for length in (len(data), len(data) - 40, record_frame(crashed, 15).offset):
        crashed.write_bytes(data[:length] + bytes(zeros))
        with open_log(crashed.parent) as log:
            assert log.head().size >= 16
        assert recovered(crashed)[-1].detail["dropped_bytes"] >= zeros
        assert verify(crashed.parent).ok


def test_a_flip_behind_the_last_checkpoint_looks_torn_and_is_noted(crashed: Path):
    """What no checkpoint covers may be a crash: the rest is dropped, and the log says how much and its hash."""
    frame = record_frame(crashed, 14)
    dropped = crashed.stat().st_size - frame.offset
    flip(crashed, frame.offset + 50)
    with open_log(crashed.parent) as log:
        assert log.head().size == 15
    [record] = recovered(crashed)
    assert (record.seq, record.detail["dropped_bytes"], record.detail["last_seq"]) == (14, dropped, 13)


@pytest.mark.attack("C4")
def test_a_flip_before_a_checkpoint_is_tampering_and_names_the_record(tmp_path: Path):
    """Before a whole checkpoint a damaged frame cannot come from a crash: the log is refused with exit code 7."""
    segment = make_log(tmp_path / "log", (10, 10))
    before = segment.read_bytes()
    for seq in (0, 9, 10, 19):
        frame = record_frame(segment, seq)
        for offset in (frame.offset, frame.offset + 3, frame.offset + 20, frame.end - 1):
            flip(segment, offset)
            with pytest.raises(IntegrityError, match=f"cannot trust the audit log at record {seq} ") as caught:
                open_log(segment.parent)
            assert caught.value.exit_code == ExitCode.INTEGRITY_BROKEN
            assert "move the audit directory" in caught.value.hint
            flip(segment, offset)
    assert segment.read_bytes() == before
    open_log(segment.parent).close()


@pytest.mark.attack("C4")
def test_a_changed_record_with_its_checksum_put_right_is_refused(crashed: Path):
    """A whole frame that does not continue the chain is never a crash, checkpoint or not."""
    frame = record_frame(crashed, 14)
    position = frame.raw.index(b"get_current_time")
    forged = reseal(frame.raw[:position] + b"rm" + frame.raw[position + 2 :])
    data = crashed.read_bytes()
    crashed.write_bytes(data[: frame.offset] + forged + data[frame.end :])
    with pytest.raises(IntegrityError, match="at record 14 "):
        open_log(crashed.parent)


@pytest.mark.attack("C4")
@pytest.mark.parametrize(
    "change",
    [
        lambda parts: parts.pop(5),
        lambda parts: parts.insert(6, parts.pop(5)),
        lambda parts: parts.insert(6, parts[5]),
        lambda parts: parts.insert(6, parts[0]),
    ],
)
def test_dropped_moved_or_copied_frames_are_refused_though_relinked(tmp_path: Path, change: Callable[..., Any]):
    """Order is refused by sequence number and by the signed tree, even if every link was computed anew."""
    segment = make_log(tmp_path / "log", (10,))
    parts = [frame.raw for frame in frames(segment)]
    change(parts)
    segment.write_bytes(relink(parts))
    with pytest.raises(IntegrityError):
        open_log(segment.parent)


@pytest.mark.attack("C4")
def test_a_rebuilt_chain_is_refused_by_the_checkpoint(tmp_path: Path):
    """The signature covers other records than those that stand there now."""
    segment = make_log(tmp_path / "log", (10,))
    parts = [frame.raw.replace(b"get_current_time", b"set_current_time") for frame in frames(segment)]
    segment.write_bytes(relink(parts))
    with pytest.raises(IntegrityError, match="states other records"):
        open_log(segment.parent)


def test_a_log_behind_its_high_water_mark_is_refused(tmp_path: Path):
    """A cut at a checkpoint, an old copy put back and a log that is gone: the mark tells all three."""
    directory, mark = tmp_path / "log", tmp_path / "mark"
    make_log(directory, (10,), high_water=mark)
    shutil.copytree(directory, tmp_path / "old")
    with open_log(directory, high_water=mark) as log:
        log.append(entry(), START_NS + 50)
    with pytest.raises(IntegrityError, match="the high-water mark says 11 records"):
        open_log(tmp_path / "old", high_water=mark)
    with pytest.raises(IntegrityError, match="there is none, and the high-water mark says 11"):
        open_log(tmp_path / "new", high_water=mark)
    open_log(directory, high_water=mark).close()


def test_another_log_than_the_marked_one_is_refused(tmp_path: Path):
    """As many records, but others."""
    make_log(tmp_path / "log", (10,), high_water=tmp_path / "mark")
    with open_log(tmp_path / "other") as log:
        for number in range(12):
            log.append(entry(number + 5), START_NS)
    with pytest.raises(IntegrityError, match="another log stands here"):
        open_log(tmp_path / "other", high_water=tmp_path / "mark")


def test_a_torn_tail_below_the_mark_is_tampering(tmp_path: Path):
    """Records under a marked checkpoint were on the disk; if they are torn now, it was no crash."""
    segment = make_log(tmp_path / "log", (10,), high_water=tmp_path / "mark")
    os.truncate(segment, record_frame(segment, 7).offset + 20)
    with pytest.raises(IntegrityError, match="at record 7 "):
        open_log(segment.parent, high_water=tmp_path / "mark")


def test_a_missing_segment_or_header_is_refused(tmp_path: Path):
    """A segment file never exists without its header, and numbers have no holes."""
    directory = tmp_path / "log"
    segment = make_log(directory, (3,))
    os.truncate(segment, 10)
    with pytest.raises(IntegrityError, match="no whole header"):
        open_log(directory)
    segment.rename(directory / segment_name(1))
    with pytest.raises(IntegrityError, match="segment 0 is missing"):
        open_log(directory)


def test_a_segment_under_another_number_is_refused(tmp_path: Path):
    """A copy of segment 0 does not pass for segment 1."""
    segment = make_log(tmp_path / "log", (3,))
    shutil.copy(segment, segment.parent / segment_name(1))
    with pytest.raises(IntegrityError, match="the header is of segment 0"):
        open_log(segment.parent)


def test_a_log_of_another_origin_is_refused(tmp_path: Path):
    """Two daemons do not continue each other's logs."""
    make_log(tmp_path / "log", (3,))
    with pytest.raises(ConfigurationError, match=r"expected other\.test"):
        AuditLogFile(tmp_path / "log", "other.test")


def test_an_unsigned_forged_checkpoint_behind_damage_refuses_rather_than_drops(crashed: Path):
    """Refusing too much is safe: a checkpoint of this log behind the damage is tampering whoever signed it."""
    checkpoint = next(frame.raw for frame in frames(crashed) if frame.kind == chain.CHECKPOINT)
    note = checkpoint[38:-4].replace(b"\n10\n", b"\n18\n")
    data = crashed.read_bytes()
    crashed.write_bytes(data + b"garbage" + chain.encode(chain.CHECKPOINT, bytes(32), note))
    with pytest.raises(IntegrityError, match="a checkpoint over 18 records stands behind it"):
        open_log(crashed.parent)
    crashed.write_bytes(data + b"garbage" + checkpoint)
    open_log(crashed.parent).close()


WRITER = """
import sys, time
from pathlib import Path
from attestd.audit.log import AuditLogFile, LogLimits
from attestd.audit.protocol import Entry
limits = LogLimits(checkpoint_records=50, epoch_records=120, segment_bytes=60_000, sync_seconds=0.002)
log = AuditLogFile(Path(sys.argv[1]), "attestd.test/audit", high_water=Path(sys.argv[2]), limits=limits)
while True:
    print(log.append(Entry(kind="decision", id="x" * 40), time.time_ns()), flush=True)
"""


@pytest.mark.attack("C5")
def test_no_acknowledged_record_is_lost_when_the_writer_is_killed(tmp_path: Path):
    """A real writer is killed again and again, at any moment; every record it had acknowledged is in the log."""
    directory, mark = tmp_path / "log", tmp_path / "mark"
    acknowledged, second = -1, directory / segment_name(1)
    for round_number in range(12):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(directory), str(mark)], stdout=subprocess.PIPE, text=True
        ) as writer:
            for _ in range(37 * round_number + 1):
                acknowledged = int(writer.stdout.readline())
            while round_number == 11 and not second.exists():  # the committer turns the page when it gets to run
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            lines = writer.stdout.read().split("\n")
            acknowledged = max([acknowledged, *(int(line) for line in lines[:-1])])
        assert verify(directory).records > acknowledged
    limits = LogLimits(segment_bytes=60_000)
    with open_log(directory, high_water=mark, limits=limits) as log:
        assert log.head().size > acknowledged
    report = verify(directory)
    assert report.ok, report.problems
    assert report.segments > 1
    assert len(list((directory / "keys").iterdir())) == 1
