"""Looking into the log."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from attestd.audit.files import segment_name
from attestd.audit.log import LogLimits
from attestd.audit.protocol import Entry
from attestd.audit.query import Filters, Row, query, tail
from tests.support.audit import QUIET, START_NS, entry, flip, open_log, record_frame, wait_for

CLAUDE = {"result": {"title": "Claude Code 2.1", "display": "node > claude", "program": "fe" * 32, "level": 3}}
PYTHON = {"result": {"title": "client.py", "display": "bash > python", "program": "ab" * 32, "level": 1}}


def fill(directory: Path, limits: LogLimits = QUIET):
    with open_log(directory, limits=limits) as log:
        for number in range(20):
            body = CLAUDE if number % 2 else PYTHON
            caller = log.caller(json.dumps(body).encode(), START_NS + number)
            given = entry(number)
            log.append(
                Entry(
                    kind="admin" if number == 7 else "decision",
                    id=given.id,
                    session=f"s{number % 4}",
                    server="git" if number % 5 == 0 else "time",
                    caller=caller,
                    verdict=given.verdict,
                    cause=given.cause,
                ),
                START_NS + number,
            )
            log.sync_now()
            if limits is not QUIET:
                log.checkpoint_now()
    return directory


def ids(rows: Iterable[Row]):
    return [int(row.record.id[1:]) for row in rows]


def test_the_last_records_come_oldest_first(tmp_path: Path):
    """``tail`` gives the newest records in the order in which they happened, without the bodies of callers."""
    fill(tmp_path / "log")
    assert ids(tail(tmp_path / "log", 3)) == [17, 18, 19]
    assert ids(tail(tmp_path / "log", 99)) == list(range(20))
    assert tail(tmp_path / "log", 0) == []


def test_records_are_joined_with_their_callers(tmp_path: Path):
    """Each row says who called, in the words of the caller's record."""
    fill(tmp_path / "log")
    row = tail(tmp_path / "log", 1)[0]
    assert (row.caller.title, row.caller.display, row.caller.level) == ("Claude Code 2.1", "node > claude", 3)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (Filters(kinds=("admin",)), [7]),
        (Filters(server="git"), [0, 5, 10, 15]),
        (Filters(verdict="deny"), [0, 3, 6, 9, 12, 15, 18]),
        (Filters(cause="no_grant", server="git"), [0, 15]),
        (Filters(session="s3"), [3, 7, 11, 15, 19]),
        (Filters(id="d0000001"), list(range(10, 20))),
        (Filters(since_ns=START_NS + 17), [17, 18, 19]),
        (Filters(until_ns=START_NS + 2), [0, 1, 2]),
        (Filters(since_ns=START_NS + 4, until_ns=START_NS + 6), [4, 5, 6]),
        (Filters(caller="claude"), list(range(1, 20, 2))),
        (Filters(caller="BASH > p"), list(range(0, 20, 2))),
        (Filters(caller="fefe"), list(range(1, 20, 2))),
        (Filters(caller="nobody"), []),
        (Filters(server="nowhere"), []),
    ],
)
def test_filters_select_from_both_ends(tmp_path: Path, filters: Filters, expected: list[int]):
    """Every filter gives the same records from the start and, reversed, from the end, in one segment and in many."""
    for name, limits in (("one", QUIET), ("many", LogLimits(segment_bytes=1200, sync_seconds=0.001))):
        directory = fill(tmp_path / name, limits)
        assert ids(query(directory, filters)) == expected
        assert ids(query(directory, filters, newest_first=True)) == expected[::-1]
        assert ids(tail(directory, 2, filters)) == expected[-2:]


def test_the_bodies_of_callers_are_rows_when_asked_for(tmp_path: Path):
    """The kind ``caller`` can be listed too."""
    fill(tmp_path / "log")
    rows = list(query(tmp_path / "log", Filters(kinds=("caller",))))
    assert [json.loads(row.record.body) for row in rows] == [PYTHON, CLAUDE]


def test_a_caller_of_an_earlier_segment_is_found(tmp_path: Path):
    """A long session's caller was written in a segment that is long full."""
    with open_log(tmp_path / "log", limits=LogLimits(segment_bytes=600, sync_seconds=0.001)) as log:
        caller = log.caller(json.dumps(CLAUDE).encode(), START_NS)
        for number in range(12):
            log.append(Entry(kind="decision", id=f"d{number}", caller=caller), START_NS + number)
            wait_for(lambda: log._writer.segment.size < 600)
    assert tail(tmp_path / "log", 1)[0].caller.title == "Claude Code 2.1"
    [row] = query(tmp_path / "log", Filters(since_ns=START_NS + 11))
    assert row.caller.title == "Claude Code 2.1"


def test_an_unknown_or_unreadable_caller_is_empty(tmp_path: Path):
    """A digest without a body, and a body that is not ours, leave the words empty."""
    with open_log(tmp_path / "log") as log:
        log.append(Entry(kind="decision", id="d1", caller="00" * 32), START_NS)
        log.append(Entry(kind="decision", id="d2", caller=log.caller(b"no json", START_NS)), START_NS)
    assert [row.caller.title for row in query(tmp_path / "log", Filters())] == ["", ""]


def test_a_damaged_place_is_skipped_and_marked(tmp_path: Path):
    """Reading is not verifying: what can be read is shown, and the row after the damage says so."""
    directory = fill(tmp_path / "log")
    flip(directory / segment_name(0), record_frame(directory / segment_name(0), 10).offset + 50)
    rows = list(query(directory, Filters()))
    assert len(rows) == 19
    assert [row.gap for row in rows].count(True) == 1
    assert [row.gap for row in query(directory, Filters(), newest_first=True)].count(True) == 1


def test_reading_beside_a_writer(tmp_path: Path):
    """A log that is being written can be read."""
    with open_log(tmp_path / "log") as log:
        log.append(entry(), START_NS)
        assert ids(tail(tmp_path / "log", 5)) == [0]
