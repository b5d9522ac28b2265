"""Reading and verifying the log, with the daemon and without it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from attestd.audit.log import AuditLogFile
from attestd.audit.protocol import Entry
from attestd.cli import audit
from attestd.cli.output import console
from tests.support import control_samples
from tests.support.control_instance import Installation
from tests.support.terminal import on_terminal


def written(directory: Path, count: int = 50) -> Path:
    """A real log with so many records."""
    with AuditLogFile(directory, origin="test.example/log") as log:
        for number in range(count):
            log.append(Entry(kind="decision", id=f"d-{number}", verdict="deny", cause="no_grant"), 1_000_000 + number)
    return directory


def test_tail_gives_the_last_records_oldest_first(looking: Installation) -> None:
    """So many lines, in order."""
    assert [each["seq"] for each in looking.json("audit", "tail", "--lines", "3")] == [27, 28, 29]


def test_query_joins_its_filters(looking: Installation) -> None:
    """Every option must hold, and the limit counts matches."""
    found = looking.json("audit", "query", "--verdict", "permit", "--kind", "decision", "--limit", "2")
    assert [each["seq"] for each in found] == [2, 3]
    assert looking.json("audit", "query", "--id", "d-1")[0]["cause"] == "no_grant"


def test_a_query_without_matches_is_no_failure(looking: Installation) -> None:
    """Nothing on standard output, a remark on standard error, exit code 0."""
    result = looking.run("audit", "query", "--cause", "expired")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "no record matches\n")


def test_a_line_says_what_happened(looking: Installation) -> None:
    """Verdict first, then time, record, cause, call, server and caller."""
    first = looking.run("audit", "query", "--id", "d-1").stdout
    assert first.startswith("deny   2026-07-30 14:03:05 #0 decision  no_grant  tools/call get_current_time  on time")


def test_a_name_makes_up_no_fields_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Fields are parted by two spaces; a tool may be called anything."""
    record = control_samples.record(1, "decision", "d-1", verdict="deny")
    hostile = msgspec.structs.replace(record, name="echo  on bank  id d-7  by Claude Code")
    audit._line(console(), hostile)
    (line,) = capsys.readouterr().out.splitlines()
    assert "  tools/call echo [2 spaces] on bank [2 spaces] id d-7 [2 spaces] by Claude Code  on time  " in line


def test_a_whole_log_is_ok(looking: Installation) -> None:
    """The documented keys, and exit code 0."""
    (report,) = looking.json("audit", "verify")
    assert report["ok"]
    assert set(report) >= {"ok", "records", "segments", "head", "problems"}


def test_a_broken_log_is_exit_code_7_and_names_the_record(idle: Installation) -> None:
    """The daemon's report of a changed record reaches people and scripts."""
    with idle.daemon(problems=[{"what": "was changed", "record": 3, "segment": "0", "offset": 99}]):
        told = idle.run("audit", "verify")
        assert told.returncode == 7
        assert "record 3: was changed (segment 0 at byte 99)" in told.stdout
        as_json = idle.run("audit", "verify", "--json")
    assert as_json.returncode == 7
    assert json.loads(as_json.stdout)["problems"][0]["record"] == 3


def test_progress_is_for_terminals(looking: Installation) -> None:
    """On a terminal a bar is drawn and taken away; the report is there either way."""
    code, seen = on_terminal(looking, "audit", "verify")
    assert code == 0
    assert "29 records in 1 segments" in seen


def test_a_directory_is_verified_without_a_daemon(idle: Installation, tmp_path: Path) -> None:
    """A real log is proven from its files alone."""
    result = idle.run("audit", "verify", "--directory", str(written(tmp_path / "log")), "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["ok"], report["problems"]) == (True, [])
    assert report["records"] >= 50


def test_one_changed_byte_is_found_without_a_daemon(idle: Installation, tmp_path: Path) -> None:
    """Exit code 7, and the record is named."""
    directory = written(tmp_path / "log")
    segment = max(directory.iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(segment.read_bytes())
    at = data.index(b"d-20")
    data[at + 2] ^= 1
    segment.write_bytes(data)
    result = idle.run("audit", "verify", "--directory", str(directory), "--json")
    assert result.returncode == 7, result.stderr
    report = json.loads(result.stdout)
    assert not report["ok"]
    assert report["problems"][0]["record"] == 20
    told = idle.run("audit", "verify", "--directory", str(directory))
    assert told.returncode == 7
    assert "record 20" in told.stdout


def test_a_missing_checkpoint_file_is_named(idle: Installation, tmp_path: Path) -> None:
    """``--head`` must be a file."""
    directory = written(tmp_path / "log")
    result = idle.run("audit", "verify", "--directory", str(directory), "--head", str(tmp_path / "none"))
    assert result.returncode == 3
    assert "none" in result.stderr


def test_a_bad_key_is_refused(idle: Installation, tmp_path: Path) -> None:
    """``--key`` must be a key."""
    result = idle.run("audit", "verify", "--directory", str(written(tmp_path / "log")), "--key", "nonsense")
    assert result.returncode == 7
    assert "key" in result.stderr
