"""The log as the daemon holds it: appends, group commit, checkpoints, epochs, segments."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from attestd.audit import chain, merkle, notes
from attestd.audit.files import FIRST_KEY_NAME, segment_name, segment_numbers
from attestd.audit.highwater import read_high_water
from attestd.audit.log import AuditLogFile, LogLimits
from attestd.audit.protocol import AuditLog, Entry
from attestd.audit.query import Filters, query
from attestd.audit.verify import verify
from attestd.errors import AuditUnavailableError, ConfigurationError
from tests.support.audit import ORIGIN, START_NS, entry, frames, open_log, wait_for


def records(directory: Path):
    return [row.record for row in query(directory, Filters())]


def test_it_is_the_door_that_others_use(tmp_path: Path):
    """The file log fits the protocol, and gives sequence numbers from 0."""
    with open_log(tmp_path / "log") as log:
        door: AuditLog = log
        assert [door.append(entry(number), START_NS + number) for number in range(3)] == [0, 1, 2]
        door.sync_now()
    assert [record.id for record in records(tmp_path / "log")] == ["d00000000", "d00000001", "d00000002"]


def test_every_field_of_an_entry_is_written(tmp_path: Path):
    """What goes in comes out, with sequence number and time."""
    given = Entry(
        kind="decision",
        id="i",
        session="s",
        server="v",
        method="m",
        name="n",
        caller="c",
        verdict="permit",
        cause="x",
        policies=("p", "q"),
        generation=4,
        mode="monitor",
        args_sha256="a",
        latency_ns=5,
        uid=6,
        pid=7,
        detail={"text": "t", "number": 8, "flag": True},
        body=b"b",
    )
    with open_log(tmp_path / "log") as log:
        log.append(given, START_NS + 1)
    [record] = records(tmp_path / "log")
    assert (record.seq, record.time_ns) == (0, START_NS + 1)
    for field in given.__struct_fields__:
        assert getattr(record, field) == getattr(given, field)


def test_a_record_is_one_write_in_the_callers_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``append`` makes one write of just the frame, and no sync."""
    with open_log(tmp_path / "log", limits=LogLimits(sync_seconds=0.1)) as log:
        calls = []
        true_write, thread = os.write, threading.get_ident()

        def write(fd: int, data: Any) -> Any:
            if threading.get_ident() == thread:
                calls.append(len(data))
            return true_write(fd, data)

        monkeypatch.setattr(os, "write", write)
        sync = lambda _: thread == threading.get_ident() and calls.append("sync")  # noqa: E731 - one line
        monkeypatch.setattr("attestd.audit.segment.sync_data", sync)
        log.append(entry(), START_NS)
        monkeypatch.undo()
    assert calls == [len(frames(tmp_path / "log" / segment_name(0))[1].raw)]


def test_many_records_share_one_sync_within_100_ms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A thousand records written at once reach the disk with one sync for each 50 ms at most, the first one soon."""
    syncs = []
    true_sync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (syncs.append(time.monotonic()), true_sync(fd))[1])
    with open_log(tmp_path / "log") as log:
        begin = time.monotonic()
        for number in range(1000):
            log.append(entry(number), START_NS)
        wait_for(lambda: not log._writer.segment.dirty)
        assert 1 <= len(syncs) <= 2 + (time.monotonic() - begin) / 0.05
        assert syncs[0] - begin < 0.5  # the window is 50 ms; the rest is for a busy machine


def test_sync_now_returns_after_the_sync(tmp_path: Path):
    """Nothing is left to sync when it returns."""
    with open_log(tmp_path / "log", limits=LogLimits(sync_seconds=0.1)) as log:
        log.append(entry(), START_NS)
        log.sync_now()
        assert log._writer.segment.synced == log._writer.segment.size


def test_time_never_decreases_and_a_clock_set_back_is_noted(tmp_path: Path):
    """A record at a clock set back has the last time, and the clock's in its detail; below a second it is none."""
    with open_log(tmp_path / "log") as log:
        log.append(entry(), START_NS + 10_000_000_000)
        log.append(entry(), START_NS)
        log.append(entry(), START_NS + 9_500_000_000)
        log.append(entry(), START_NS + 11_000_000_000)
    with open_log(tmp_path / "log") as log:
        log.append(entry(), START_NS)
    found = records(tmp_path / "log")
    assert [record.time_ns - START_NS for record in found] == [10_000_000_000] * 3 + [11_000_000_000] * 2
    assert [record.detail.get("clock") for record in found] == [None, START_NS, None, None, START_NS]
    assert verify(tmp_path / "log").ok


def test_a_callers_body_is_written_once_per_segment(tmp_path: Path):
    """The same body gives the same digest and one record; in a new segment it is written again."""
    directory = tmp_path / "log"
    with open_log(directory, limits=LogLimits(checkpoint_records=5, segment_bytes=1500, sync_seconds=0.001)) as log:
        digests = {log.caller(b'{"result":{}}', START_NS) for _ in range(3)}
        assert digests == {sha256(b'{"result":{}}').hexdigest()}
        assert log.head().size == 1
        for number in range(10):
            log.append(entry(number), START_NS)
        wait_for(lambda: log._writer.segment.number > 0)
        size = log.head().size
        log.caller(b'{"result":{}}', START_NS)
        assert log.head().size == size + 1
    with open_log(directory) as log:
        log.caller(b'{"result":{}}', START_NS)  # it may have been the last record of its segment
    with open_log(directory) as log:
        size = log.head().size
        log.caller(b'{"result":{}}', START_NS)
        assert log.head().size == size


def test_arguments_are_digested_with_a_salt_of_this_log(tmp_path: Path):
    """The digest is stable across restarts, differs between logs, and is not the plain hash."""
    with open_log(tmp_path / "a") as log:
        first = log.digest_arguments(b"{}")
    with open_log(tmp_path / "a") as log:
        assert log.digest_arguments(b"{}") == first
    with open_log(tmp_path / "b") as log:
        assert log.digest_arguments(b"{}") != first
    assert len(first) == 64
    assert first != sha256(b"{}").hexdigest()


def test_a_lost_salt_is_noted(tmp_path: Path):
    """Digests from here on do not compare with those before; a record says so."""
    open_log(tmp_path / "log").close()
    (tmp_path / "log" / "salt").unlink()
    open_log(tmp_path / "log").close()
    assert [record.id for record in records(tmp_path / "log")] == ["salt_lost"]


def test_a_checkpoint_follows_enough_records(tmp_path: Path):
    """After the set number of records a signed checkpoint is written and the mark moves, without anyone asking."""
    with open_log(tmp_path / "log", high_water=tmp_path / "mark", limits=LogLimits(checkpoint_records=50)) as log:
        for number in range(50):
            log.append(entry(number), START_NS)
        wait_for((tmp_path / "mark").exists)
        mark = read_high_water(tmp_path / "mark")
        assert (mark.size, mark.root) == (50, log.head().root)


def test_a_checkpoint_follows_enough_time(tmp_path: Path):
    """A single record is signed after the set time."""
    limits = LogLimits(checkpoint_seconds=0.05, sync_seconds=0.001)
    with open_log(tmp_path / "log", high_water=tmp_path / "mark", limits=limits) as log:
        log.append(entry(), START_NS)
        wait_for((tmp_path / "mark").exists)


def test_closing_signs_what_is_left_and_twice_is_no_harm(tmp_path: Path):
    """A closed log ends with a checkpoint over everything; a second close does nothing, an append is refused."""
    log = open_log(tmp_path / "log", high_water=tmp_path / "mark")
    log.append(entry(), START_NS)
    log.close()
    log.close()
    assert verify(tmp_path / "log", external_head=read_high_water(tmp_path / "mark")).unsealed == 0
    for refused in (lambda: log.append(entry(), START_NS), log.sync_now, lambda: log.caller(b"", START_NS)):
        with pytest.raises(AuditUnavailableError, match="it is closed"):
            refused()


def test_an_epoch_ends_with_a_new_key_and_the_old_one_destroyed(tmp_path: Path):
    """After the set number of records the checkpoint names a new key, and only that key's file stays."""
    directory = tmp_path / "log"
    first = None
    with open_log(directory, limits=LogLimits(checkpoint_records=5, epoch_records=10, sync_seconds=0.001)) as log:
        first = [path.name for path in (directory / "keys").iterdir()]
        for number in range(30):
            log.append(entry(number), START_NS)
            wait_for(lambda: log._writer.unsealed < 5 and log._unpublished is None)
        wait_for(lambda: len(list((directory / "keys").iterdir())) == 1)
        assert [path.name for path in (directory / "keys").iterdir()] != first
    checkpoints = [
        notes.read_checkpoint(frame.payload.decode())
        for frame in frames(directory / segment_name(0))
        if frame.kind == chain.CHECKPOINT
    ]
    assert sum(checkpoint.next_key is not None for checkpoint in checkpoints) == 3
    assert verify(directory).ok


def test_an_epoch_ends_after_enough_time(tmp_path: Path):
    """The clock, too, ends an epoch."""
    now = [START_NS]
    limits = LogLimits(checkpoint_records=1, sync_seconds=0.001)
    with AuditLogFile(tmp_path / "log", ORIGIN, limits=limits, clock=lambda: now[0]) as log:
        now[0] += 3_600_000_000_001
        log.append(entry(), now[0])
        wait_for(lambda: log._writer.position.epoch == 1)


def test_a_lost_key_begins_a_new_epoch_with_a_record(tmp_path: Path):
    """The loss is said in the log, and the log goes on."""
    directory = tmp_path / "log"
    with open_log(directory) as log:
        log.append(entry(), START_NS)
    [key] = (directory / "keys").iterdir()
    key.write_bytes(b"short")
    key.chmod(0o600)
    for _ in range(2):
        with open_log(directory) as log:
            log.append(entry(), START_NS)
    assert [record.id for record in records(directory)] == ["d00000000", "key_lost", "d00000000", "d00000000"]
    assert [problem.seq for problem in verify(directory).problems] == [1]


def test_segments_begin_with_the_root_so_far(tmp_path: Path):
    """A full segment ends signed; the next one's header carries its number, first record, the root so far and the key."""
    directory = tmp_path / "log"
    limits = LogLimits(checkpoint_records=5, segment_bytes=1500, sync_seconds=0.001)
    with open_log(directory, limits=limits) as log:
        for number in range(10):  # at which of them the segment is full is the committer's to find out
            log.append(entry(number), START_NS)
        wait_for(lambda: log._writer.segment.number > 0)
        assert log.append(entry(10), START_NS) == 10
    with open_log(directory) as log:
        assert log.append(entry(11), START_NS) == 11
    full, begun = frames(directory / segment_name(0)), frames(directory / segment_name(1))
    before = [frame for frame in full if frame.kind == chain.RECORD]
    root = merkle.root_of([merkle.leaf_hash(frame.raw) for frame in before])
    assert full[-1].end >= limits.segment_bytes
    signed = notes.read_checkpoint(full[-1].payload.decode())
    assert (signed.size, signed.root) == (len(before), root)
    header = chain.decode_header(begun[0])
    assert (header.number, header.first_seq, header.origin) == (1, len(before), ORIGIN)
    assert (header.root, begun[0].prev) == (root, chain.link(full[-1].raw))
    assert header.key == (directory / FIRST_KEY_NAME).read_text().strip()
    assert chain.decode_record(begun[1], header.first_seq).id == f"d{header.first_seq:08d}"
    assert verify(directory).ok


def test_files_are_for_the_owner_only(tmp_path: Path):
    """The directories are 0700 and every file is 0600, whatever the umask."""
    before = os.umask(0)
    try:
        with open_log(tmp_path / "log", high_water=tmp_path / "mark") as log:
            log.append(entry(), START_NS)
    finally:
        os.umask(before)
    for path in [tmp_path / "log", tmp_path / "mark", *(tmp_path / "log").rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_a_second_writer_is_refused_by_name(tmp_path: Path):
    """While one holds the log, another is told which process that is; afterwards it may."""
    with open_log(tmp_path / "log") as log:
        log.append(entry(), START_NS)
        with pytest.raises(ConfigurationError, match=f"process {os.getpid()} is writing to it"):
            open_log(tmp_path / "log")
    open_log(tmp_path / "log").close()


def test_a_refused_open_leaves_nothing_locked(tmp_path: Path):
    """After an error at opening, the lock is free again."""
    directory = tmp_path / "log"
    open_log(directory).close()
    (directory / segment_name(0)).write_bytes(b"nonsense")
    for _ in range(2):
        with pytest.raises(Exception, match="no whole header"):
            open_log(directory)
    fd = os.open(directory / "lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


@pytest.mark.parametrize("origin", ["", "two words", "a+b"])
def test_a_name_that_no_key_can_have_is_refused(tmp_path: Path, origin: str):
    """The origin is also the name of the keys."""
    with pytest.raises(ConfigurationError, match="cannot name the audit log"):
        AuditLogFile(tmp_path / "log", origin)


def test_an_open_directory_is_refused(tmp_path: Path):
    """A directory or file that others may touch is not repaired but refused."""
    directory = tmp_path / "log"
    open_log(directory).close()
    for path in (directory, directory / "lock", directory / "keys", directory / segment_name(0)):
        mode = path.stat().st_mode & 0o777
        path.chmod(mode | 0o020)
        with pytest.raises(ConfigurationError, match="expected"):
            open_log(directory)
        path.chmod(mode)
    fd = os.open(directory, os.O_RDONLY)
    assert segment_numbers(fd) == [0]
    os.close(fd)
    assert (directory / FIRST_KEY_NAME).exists()


def test_two_threads_may_append(tmp_path: Path):
    """Numbers are given once each, and the log is whole."""
    directory = tmp_path / "log"
    seen: list[int] = []
    with open_log(directory, limits=LogLimits(checkpoint_records=20, segment_bytes=9000, sync_seconds=0.001)) as log:

        def work() -> Any:
            for number in range(200):
                seen.append(log.append(entry(number), START_NS))
                if not number % 50:
                    log.sync_now()
                    log.checkpoint_now()

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(seen) == list(range(600))
    assert verify(directory).ok
