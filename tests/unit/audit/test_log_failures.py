"""What the log does when the disk, the kernel or the committer fails (attack C7)."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from attestd.audit import chain
from attestd.audit.files import segment_name
from attestd.audit.log import AuditLogFile, LogLimits
from attestd.audit.verify import verify
from attestd.errors import AuditUnavailableError
from tests.support.audit import START_NS, entry, frames, open_log, wait_for


def fill(log: AuditLogFile) -> None:
    while True:
        log.append(entry(log.head().size), START_NS)


def test_a_failed_write_at_any_boundary_leaves_nothing_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whether the write fails at once or after any number of bytes: refused, and the file is as before."""
    directory = tmp_path / "log"
    segment = directory / segment_name(0)
    with open_log(directory, limits=LogLimits(sync_seconds=0.1)) as log:
        log.append(entry(), START_NS)
        log.sync_now()
        whole, size = segment.read_bytes(), len(frames(segment)[1].raw)
        true_write = os.write
        for done in range(-1, size):

            def write(fd: int, data: Any, done: int = done) -> Any:
                if done < 0:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return true_write(fd, data[:done])

            monkeypatch.setattr(os, "write", write)
            head = log.head()
            with pytest.raises(AuditUnavailableError, match="cannot write the audit log"):
                log.append(entry(), START_NS)
            monkeypatch.undo()
            assert segment.read_bytes() == whole
            assert log.head() == head
        assert log.append(entry(1), START_NS) == 1
    assert verify(directory).records == 2
    assert verify(directory).ok


def test_a_torn_record_that_cannot_be_cut_is_cut_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """If even the cutting fails, nothing is written until it succeeds."""
    directory = tmp_path / "log"
    with open_log(directory, limits=LogLimits(sync_seconds=0.1)) as log:
        log.append(entry(), START_NS)
        true_write = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: true_write(fd, data[:20]))

        def fail(*_: object) -> Any:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "ftruncate", fail)
        for _ in range(2):
            with pytest.raises(AuditUnavailableError, match="cannot cut a torn record"):
                log.append(entry(1), START_NS)
        monkeypatch.undo()
        assert log.append(entry(1), START_NS) == 1
    assert verify(directory).ok


def test_a_failed_sync_refuses_appends_until_one_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Records that may not reach the disk stop everything; when the disk is back, it goes on."""
    directory = tmp_path / "log"
    with open_log(directory, limits=LogLimits(sync_seconds=0.001, retry_seconds=0.01)) as log:
        log.append(entry(), START_NS)
        log.sync_now()
        broken = threading.Event()
        broken.set()
        true_sync = os.fdatasync

        def sync(fd: int) -> Any:
            if broken.is_set():
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return true_sync(fd)

        monkeypatch.setattr(os, "fdatasync", sync)
        log.append(entry(1), START_NS)
        wait_for(lambda: log.last_error is not None)
        with pytest.raises(AuditUnavailableError, match="cannot sync the audit log"):
            log.append(entry(2), START_NS)
        with pytest.raises(AuditUnavailableError):
            log.sync_now()
        broken.clear()
        wait_for(lambda: log.last_error is None)
        assert log.append(entry(2), START_NS) == 2
    assert verify(directory).ok


def test_a_checkpoint_that_cannot_be_written_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No key can be stored: records go on, the error is known, and later the epoch ends."""
    directory = tmp_path / "log"
    limits = LogLimits(checkpoint_records=2, epoch_records=2, sync_seconds=0.001, retry_seconds=0.01)
    with open_log(directory, limits=limits) as log:

        def fail(*_: object) -> Any:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("attestd.audit.keys.write_whole", fail)
        for number in range(4):
            log.append(entry(number), START_NS)
        wait_for(lambda: log.last_error is not None)
        assert "cannot store the next key" in log.last_error.message
        log.append(entry(4), START_NS)
        monkeypatch.undo()
        wait_for(lambda: log.last_error is None and log._writer.position.epoch == 1)
    assert verify(directory).ok


def test_a_writer_that_outruns_the_committer_signs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """At the limit an append signs a checkpoint first; if that fails it is refused, so the log fails closed."""
    for module in ("log", "writer"):
        monkeypatch.setattr(f"attestd.audit.{module}.MAX_UNSEALED", 3)
    with open_log(tmp_path / "log") as log:
        for number in range(7):
            log.append(entry(number), START_NS)
        assert log._writer.position.checkpoint_size == 6
        monkeypatch.setattr(log, "_catch_up", lambda: None)
        log.append(entry(7), START_NS)
        log.append(entry(8), START_NS)
        with pytest.raises(AuditUnavailableError, match="wait for a checkpoint"):
            log.append(entry(9), START_NS)
    assert verify(tmp_path / "log").ok


def test_a_mark_that_cannot_be_moved_is_moved_later(tmp_path: Path):
    """A missing directory for the mark is an error that is known, and no loss of records."""
    place = tmp_path / "elsewhere"
    place.mkdir()
    with open_log(
        tmp_path / "log", high_water=place / "mark", limits=LogLimits(checkpoint_records=1, retry_seconds=0.01)
    ) as log:
        place.rename(tmp_path / "away")
        log.append(entry(), START_NS)
        wait_for(lambda: log.last_error is not None)
        (tmp_path / "away").rename(place)
        wait_for((place / "mark").exists)
        wait_for(lambda: log.last_error is None)


def test_too_large_a_record_is_refused(tmp_path: Path):
    """A body that no reader would accept is refused before it is written."""
    with open_log(tmp_path / "log") as log:
        with pytest.raises(AuditUnavailableError, match="cannot append record 0"):
            log.caller(bytes(chain.MAX_BODY_BYTES), START_NS)
        assert log.append(entry(), START_NS) == 0


def test_a_dead_committer_refuses_appends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """If the thread that syncs ever ends by a bug of ours, nothing is appended any more."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with open_log(tmp_path / "log", limits=LogLimits(sync_seconds=0.001)) as log:
        monkeypatch.setattr(log, "_commit", lambda: 1 / 0)
        log.append(entry(), START_NS)
        wait_for(lambda: not log._alive)
        with pytest.raises(AuditUnavailableError):
            log.append(entry(), START_NS)


FILE_LIMIT = """
import resource, sys, time
from pathlib import Path
from attestd.audit.log import AuditLogFile
from attestd.audit.protocol import Entry
from attestd.errors import AuditUnavailableError
log = AuditLogFile(Path(sys.argv[1]), "attestd.test/audit")
resource.setrlimit(resource.RLIMIT_FSIZE, (20_001, resource.RLIM_INFINITY))
count = 0
try:
    while True:
        log.append(Entry(kind="decision"), time.time_ns()); count += 1
except AuditUnavailableError as error:
    print(error.message)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.append(Entry(kind="decision"), time.time_ns())
log.close()
print(count + 1)
"""


@pytest.mark.attack("C7")
def test_a_file_size_limit_refuses_and_recovers(tmp_path: Path):
    """A real limit of the kernel cuts a write short: refused, nothing torn; lifted, the same log goes on."""
    done = subprocess.run(
        [sys.executable, "-c", FILE_LIMIT, str(tmp_path / "log")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    message, count = done.stdout.splitlines()
    assert message.startswith("cannot write the audit log")
    report = verify(tmp_path / "log")
    assert (report.ok, report.records) == (True, int(count))
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


@pytest.mark.root
@pytest.mark.attack("C7")
@pytest.mark.root
def test_a_full_disk_refuses_and_recovers(tmp_path: Path):
    """A file system of 256 KiB fills up: refused, nothing torn; with space again the log goes on by itself."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "attestd-test", str(place)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.decode().strip()}")
    try:
        ballast = place / "ballast"
        ballast.write_bytes(bytes(100_000))
        with open_log(place / "log", limits=LogLimits(retry_seconds=0.01)) as log:
            with pytest.raises(AuditUnavailableError, match="cannot write the audit log"):
                fill(log)
            count = log.head().size
            with pytest.raises(AuditUnavailableError):
                log.append(entry(count), START_NS)
            assert log.head().size == count > 100
            ballast.unlink()
            assert log.append(entry(count), START_NS) == count
            wait_for(lambda: log.last_error is None)
        report = verify(place / "log")
        assert (report.ok, report.records) == (True, count + 1), report.problems
    finally:
        subprocess.run(["umount", str(place)], check=True)
