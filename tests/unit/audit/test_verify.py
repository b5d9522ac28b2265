"""Attacks on the files of a log: each is found, at the right record (attack C4)."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attestd.audit import chain, notes
from attestd.audit.files import FIRST_KEY_NAME, segment_name
from attestd.audit.highwater import read_high_water
from attestd.audit.log import LogLimits
from attestd.audit.model import Head
from attestd.audit.protocol import Entry
from attestd.audit.verify import verify
from attestd.errors import ConfigurationError, IntegrityError
from tests.support.audit import (
    START_NS,
    entry,
    flip,
    frames,
    make_log,
    open_log,
    record_frame,
    relink,
    reseal,
    wait_for,
)

pytestmark = pytest.mark.attack("C4")


@pytest.fixture
def segment(tmp_path: Path):
    """Segment 0 of a log of 30 records with a checkpoint after every ten."""
    return make_log(tmp_path / "log", (10, 10, 10), high_water=tmp_path / "mark")


def problems(segment: Path, **options: Any):
    return [(problem.seq, problem.what) for problem in verify(segment.parent, **options).problems]


def rewrite(segment: Path, change: Callable[..., Any]):
    parts = [frame.raw for frame in frames(segment)]
    changed = change(parts)
    segment.write_bytes(b"".join(parts if changed is None else changed))


def test_an_untouched_log_is_whole(segment: Path):
    """Nothing is found where nothing was done, and the report counts everything."""
    seen = []
    report = verify(segment.parent, progress=seen.append)
    assert (report.ok, report.records, report.segments, report.checkpoints, report.unsealed) == (True, 30, 1, 3, 0)
    assert report.problems == ()
    assert report.head.size == 30
    assert report.first_key == (segment.parent / FIRST_KEY_NAME).read_text().strip()


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The caller hears how many records were read."""
    monkeypatch.setattr("attestd.audit.verify._PROGRESS_RECORDS", 4)
    segment = make_log(tmp_path / "log", (10,))
    seen = []
    verify(segment.parent, progress=seen.append)
    assert seen == [4, 8]


def test_a_flipped_bit_in_any_byte_of_a_record_names_that_record(segment: Path):
    """Whatever byte of record 17 is hit, header, chain, payload or checksum, record 17 is named and no other."""
    frame = record_frame(segment, 17)
    for offset in range(frame.offset, frame.end):
        flip(segment, offset, offset % 8)
        found = problems(segment)
        assert [seq for seq, _ in found] == [17], (offset - frame.offset, found)
        assert "damaged" in found[0][1]
        flip(segment, offset, offset % 8)
    assert verify(segment.parent).ok


def test_random_flips_never_pass(segment: Path):
    """400 single bit flips anywhere in the file: every one is found."""
    chance = random.Random(1)
    size = segment.stat().st_size
    for _ in range(400):
        offset, bit = chance.randrange(size), chance.randrange(8)
        flip(segment, offset, bit)
        assert not verify(segment.parent).ok, (offset, bit)
        flip(segment, offset, bit)


def test_a_flip_in_a_record_that_no_checkpoint_covers_yet_is_named(tmp_path: Path):
    """The tail of a log that was not closed: a flip looks torn, and the report still names the record."""
    directory = tmp_path / "log"
    log = open_log(directory)
    for number in range(5):
        log.append(entry(number), START_NS + number)
    log.sync_now()
    copy = shutil.copytree(directory, tmp_path / "copy")
    log.close()
    segment = copy / segment_name(0)
    flip(segment, record_frame(segment, 3).offset + 60)
    assert [seq for seq, _ in problems(segment)] == [3]


def test_a_changed_record_with_its_checksum_put_right_is_named(segment: Path):
    """A change that the checksum does not show breaks the chain at the next frame; the changed record is named."""
    frame = record_frame(segment, 17)
    position = frame.raw.index(b"get_current_time")
    forged = reseal(frame.raw[:position] + b"rm" + frame.raw[position + 2 :])
    data = segment.read_bytes()
    segment.write_bytes(data[: frame.offset] + forged + data[frame.end :])
    found = problems(segment)
    assert [seq for seq, _ in found] == [17]
    assert "changed after it was written" in found[0][1]


def test_a_changed_link_with_its_checksum_put_right_names_the_record_that_carries_it(segment: Path):
    """Not the record before is to blame when the ``prev`` of a record was changed."""
    frame = record_frame(segment, 17)
    forged = reseal(frame.raw[:10] + bytes([frame.raw[10] ^ 1]) + frame.raw[11:])
    data = segment.read_bytes()
    segment.write_bytes(data[: frame.offset] + forged + data[frame.end :])
    assert [seq for seq, _ in problems(segment)] == [17]


def test_a_rebuilt_chain_is_found_by_the_next_checkpoint(segment: Path):
    """Whoever changes a record and computes every link anew cannot sign: the ten records there are named."""
    frame = record_frame(segment, 17)
    position = frame.raw.index(b"get_current_time")

    def change(parts: list[bytes]) -> Any:
        at = parts.index(frame.raw)
        parts[at] = parts[at][:position] + b"rm" + parts[at][position + 2 :]
        return [relink(parts)]

    rewrite(segment, change)
    found = problems(segment)
    assert found[0] == (10, "records 10 to 19: not what was signed, the chain was rebuilt over a change")


def test_a_dropped_record_is_named(segment: Path):
    """A record that was taken out is missing by its number."""
    raw = record_frame(segment, 17).raw
    rewrite(segment, lambda parts: parts.remove(raw))
    assert problems(segment) == [(17, "record 17: missing")]


def test_dropped_records_are_named_as_a_range(segment: Path):
    """Neighbours that were taken out are told in one line."""
    gone = [record_frame(segment, seq).raw for seq in (12, 13, 14)]
    rewrite(segment, lambda parts: [raw for raw in parts if raw not in gone])
    assert problems(segment) == [(12, "records 12 to 14: missing")]


def test_the_last_record_before_a_checkpoint_dropped_is_named(segment: Path):
    """The checkpoint behind it says how many there were."""
    raw = record_frame(segment, 19).raw
    rewrite(segment, lambda parts: parts.remove(raw))
    assert problems(segment)[0] == (19, "record 19: missing")


def test_reordered_records_are_named(segment: Path):
    """Of two records that changed places, the one that stands too late is named."""
    first, second = record_frame(segment, 16).raw, record_frame(segment, 17).raw

    def change(parts: list[bytes]) -> Any:
        at = parts.index(first)
        parts[at : at + 2] = [second, first]

    rewrite(segment, change)
    assert problems(segment) == [(16, "record 16: moved, it stands behind record 17")]


def test_a_record_that_was_copied_in_is_named(segment: Path):
    """A true record at a second place is not the log that was written."""
    raw = record_frame(segment, 4).raw
    rewrite(segment, lambda parts: [*parts[:20], raw, *parts[20:]])
    assert (4, "record 4: stands here a second time") in problems(segment)


def test_a_removed_checkpoint_is_found(segment: Path):
    """Without the checkpoint, the chain breaks between the records beside it."""
    signed = [frame.raw for frame in frames(segment) if frame.kind == chain.CHECKPOINT]
    rewrite(segment, lambda parts: parts.remove(signed[1]))
    found = problems(segment)
    assert [seq for seq, _ in found] == [19]
    assert "a checkpoint behind it removed" in found[0][1]


def test_a_cut_tail_is_found_against_the_high_water_mark(segment: Path, tmp_path: Path):
    """Cut at a checkpoint, the log itself looks whole; the mark kept elsewhere says what is gone."""
    third = [frame for frame in frames(segment) if frame.kind == chain.CHECKPOINT][1]
    os.truncate(segment, third.end)
    assert verify(segment.parent).ok
    found = problems(segment, external_head=read_high_water(tmp_path / "mark"))
    assert [seq for seq, _ in found] == [20]
    assert "10 records are cut off" in found[0][1]


def test_a_tail_cut_within_a_record_is_a_problem_when_nobody_writes(segment: Path):
    """Half a frame at the end is a crash or a cut; offline it is a problem that names the record."""
    os.truncate(segment, record_frame(segment, 25).end - 3)
    assert [seq for seq, _ in problems(segment)] == [25]


def test_half_a_frame_of_a_running_writer_is_tolerated(tmp_path: Path):
    """Beside a daemon that is just writing, an incomplete last frame is told as that and is no problem."""
    with open_log(tmp_path / "log") as log:
        log.append(entry(), START_NS)
        with (tmp_path / "log" / segment_name(0)).open("ab") as file:
            file.write(chain.encode(chain.RECORD, bytes(32), b"x" * 50)[:30])
        report = verify(tmp_path / "log")
        assert (report.ok, report.records, report.incomplete_tail) == (True, 1, 30)


def test_an_old_log_put_back_is_found(tmp_path: Path):
    """A true copy of an hour ago verifies by itself and fails against the mark."""
    directory = tmp_path / "log"
    make_log(directory, (10,), high_water=tmp_path / "mark")
    shutil.copytree(directory, tmp_path / "old")
    with open_log(directory, high_water=tmp_path / "mark") as log:
        log.append(entry(), START_NS)
    mark = read_high_water(tmp_path / "mark")
    assert verify(tmp_path / "old").ok
    assert not verify(tmp_path / "old", external_head=mark).ok
    assert verify(directory, external_head=mark).ok


def test_another_log_of_the_same_length_is_found(tmp_path: Path):
    """A log that was replaced whole has another key and another root."""
    make_log(tmp_path / "log", (10,), high_water=tmp_path / "mark")
    key = verify(tmp_path / "log").first_key
    segment = make_log(tmp_path / "forged", (10,))
    flip(segment, 0, 0)
    flip(segment, 0, 0)
    assert verify(segment.parent).ok
    assert problems(segment, expected_key=key)[0][1].startswith("wrong key: the log begins with")
    with open_log(tmp_path / "third") as log:
        for number in range(10):
            log.append(entry(number + 1), START_NS + number)
    found = verify(tmp_path / "third", external_head=read_high_water(tmp_path / "mark")).problems
    assert [problem.seq for problem in found] == [9]
    assert "another log stands here" in found[0].what


def test_the_right_expected_key_is_accepted(segment: Path):
    """Who noted the first public key can hold the log against it."""
    key = (segment.parent / FIRST_KEY_NAME).read_text().strip()
    assert verify(segment.parent, expected_key=key).ok
    assert verify(segment.parent, expected_key=[key]).ok
    with pytest.raises(IntegrityError):
        verify(segment.parent, expected_key="nonsense")


def test_a_missing_first_key_is_a_problem_only_without_an_expected_one(segment: Path):
    """The key beside the log is believed only for want of a better one."""
    key = (segment.parent / FIRST_KEY_NAME).read_text().strip()
    (segment.parent / FIRST_KEY_NAME).unlink()
    assert "missing or is no key" in problems(segment)[0][1]
    assert verify(segment.parent, expected_key=key).ok


def test_a_history_signed_again_with_todays_key_is_refused(tmp_path: Path):
    """The thief of the current key rewrites epoch 0: the first old checkpoint does not bear its key's signature."""
    directory = tmp_path / "log"
    limits = LogLimits(checkpoint_records=5, epoch_records=5, sync_seconds=0.001)
    for _ in range(3):
        with open_log(directory, limits=limits) as log:
            for number in range(5):
                log.append(entry(number), START_NS)
            wait_for(lambda log=log: not log._writer.unsealed)
    segment = directory / segment_name(0)
    assert verify(directory).ok
    [stolen] = [
        notes.Ed25519PrivateKey.from_private_bytes(path.read_bytes()) for path in (directory / "keys").iterdir()
    ]

    def change(parts: list[bytes]) -> Any:
        forged = []
        for raw in parts:
            if raw[1] == chain.CHECKPOINT:
                text = raw[38:-4].decode().rpartition("\n\n")[0] + "\n"
                note = notes.sign(text, "attestd.test/audit", stolen)
                forged.append(chain.encode(chain.CHECKPOINT, bytes(32), note.encode()))
            else:
                forged.append(raw)
        return [relink(forged)]

    rewrite(segment, change)
    found = problems(segment)
    assert found
    assert any("signed by" in what for _, what in found)


def test_checkpoints_stripped_from_a_long_log_are_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A chain rebuilt without any checkpoint is not taken for a tail that waits for one."""
    monkeypatch.setattr("attestd.audit.verify.MAX_UNSEALED", 20)
    segment = make_log(tmp_path / "log", (15, 15))
    rewrite(segment, lambda parts: [relink([raw for raw in parts if raw[1] != chain.CHECKPOINT])])
    assert "records without a checkpoint" in problems(segment)[0][1]


def test_a_header_taken_out_or_put_in_is_found(segment: Path):
    """A segment begins with its header and holds no other."""
    rewrite(segment, lambda parts: [relink(parts[1:])])
    assert "must begin with its header" in problems(segment)[0][1]


def test_a_second_header_is_found(segment: Path):
    """A header in the middle is not the log that was written."""
    rewrite(segment, lambda parts: [relink([*parts[:5], parts[0], *parts[5:]])])
    assert any("hold no other" in what for _, what in problems(segment))


def test_a_damaged_checkpoint_is_told_as_that(segment: Path):
    """A flip in a checkpoint names it by the record that follows, and blames no record."""
    signed = [frame for frame in frames(segment) if frame.kind == chain.CHECKPOINT][1]
    flip(segment, signed.offset + 60)
    found = problems(segment)
    assert [seq for seq, _ in found] == [20]
    assert "checkpoint or header before record 20" in found[0][1]


def test_a_checkpoint_that_does_not_parse_is_found(segment: Path):
    """A checkpoint frame with other content and a right chain is a problem."""

    def change(parts: list[bytes]) -> Any:
        at = next(index for index, raw in enumerate(parts) if raw[1] == chain.CHECKPOINT)
        parts[at] = chain.encode(chain.CHECKPOINT, bytes(32), b"hello")
        return [relink(parts)]

    rewrite(segment, change)
    assert any("expected text, an empty line" in what for _, what in problems(segment))


def segments_log(directory: Path):
    limits = LogLimits(checkpoint_records=5, segment_bytes=2000, sync_seconds=0.001, epoch_records=12)
    with open_log(directory, limits=limits) as log:
        for number in range(60):
            log.append(entry(number), START_NS + number)
            wait_for(lambda: log._writer.segment.size < 2000)
    return directory


def test_a_log_of_many_segments_is_whole(tmp_path: Path):
    """Chain, tree and keys go on from segment to segment."""
    report = verify(segments_log(tmp_path / "log"))
    assert report.ok, report.problems
    assert report.segments > 3
    assert report.records == 60


@pytest.mark.parametrize("gone", [0, 3])
def test_a_missing_segment_is_named(tmp_path: Path, gone: int):
    """A segment file that is gone is named with the record where the gap begins."""
    directory = segments_log(tmp_path / "log")
    (directory / segment_name(gone)).unlink()
    found = verify(directory).problems
    assert any(problem.what == f"segments {gone} to {gone}: missing" and problem.segment == gone for problem in found)


def test_behind_a_damaged_record_later_segments_are_verified_again(tmp_path: Path):
    """One damaged record does not blind the rest: a change two segments on is still named."""
    directory = segments_log(tmp_path / "log")
    first = [frame for frame in frames(directory / segment_name(0)) if frame.kind == chain.RECORD][1]
    flip(directory / segment_name(0), first.offset + 50)
    third = directory / segment_name(2)
    records = [frame for frame in frames(third) if frame.kind == chain.RECORD]
    seq = chain.decode_header(frames(third)[0]).first_seq
    flip(third, records[1].offset + 50)
    assert [problem.seq for problem in verify(directory).problems] == [1, seq + 1]


def test_an_emptied_segment_is_found(tmp_path: Path):
    """A segment without a byte is a problem."""
    directory = segments_log(tmp_path / "log")
    os.truncate(directory / segment_name(2), 0)
    assert any(problem.what == "segment 2: empty" for problem in verify(directory).problems)


def test_a_log_that_is_gone_is_a_problem(tmp_path: Path):
    """An empty directory is not a log."""
    (tmp_path / "log").mkdir()
    report = verify(tmp_path / "log", external_head=Head(size=5, chain="", root=""))
    assert report.problems[0].what.startswith("segment 0: missing")
    assert not report.ok


def test_no_directory_is_an_error(tmp_path: Path):
    """A path that is not there is the caller's mistake, not a finding."""
    with pytest.raises(ConfigurationError, match="cannot open the audit directory"):
        verify(tmp_path / "nothing")


def test_a_lost_key_is_a_problem_until_it_is_expected(tmp_path: Path):
    """An epoch that no signature connects is named; who expects its key accepts it."""
    directory = tmp_path / "log"
    make_log(directory, (5,))
    first = (directory / FIRST_KEY_NAME).read_text().strip()
    for path in (directory / "keys").iterdir():
        path.unlink()
    with open_log(directory) as log:
        log.append(entry(), START_NS)
    found = verify(directory).problems
    assert [problem.seq for problem in found] == [5]
    second = found[0].what.split("lost and ")[1].split(" began")[0]
    assert verify(directory, expected_key=[first, second]).ok


def test_a_log_of_a_newer_format_is_a_problem(tmp_path: Path):
    """What we may not understand is not called whole."""
    directory = tmp_path / "log"
    make_log(directory, (1,))
    segment = directory / segment_name(0)
    rewrite(segment, lambda parts: [relink([parts[0].replace(b"\x99\x01", b"\x99\x02", 1), *parts[1:]])])
    assert any("got format version 2, expected 1" in what for _, what in problems(segment))


@pytest.mark.parametrize(
    ("kind", "at", "payload", "what"),
    [
        (chain.RECORD, 4, b"\x91\xa1x", "record 3: does not decode"),
        (chain.RECORD, 4, b"\x93\x03\xcf\x7f\xff\xff\xff\xff\xff\xff\xff\xa3log", "record 3 does not decode"),
        (chain.RECORD, 4, b"\x93\x03\x00\xa8decision", "record 3: older than the record before it"),
        (chain.HEADER, 0, b"\x90", "the segment header does not decode"),
    ],
)
def test_whole_frames_with_foreign_payloads_are_named(segment: Path, kind: int, at: int, payload: bytes, what: str):
    """Who can write the file but not sign puts something else into a frame: it is named whatever it is."""
    rewrite(segment, lambda parts: [relink([*parts[:at], chain.encode(kind, bytes(32), payload), *parts[at + 1 :]])])
    assert any(what in found for _, found in problems(segment))


def test_a_lost_key_without_a_key_is_named(tmp_path: Path):
    """A forged loss that names no key is a problem too."""
    with open_log(tmp_path / "log") as log:
        log.append(Entry(kind="log", id="key_lost", detail={"key": "none"}), START_NS)
    assert any(
        seq == 0 and "cannot verify the key" in what for seq, what in problems(tmp_path / "log" / segment_name(0))
    )
