"""The file that is written to."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from attestd.audit.files import open_directory
from attestd.audit.segment import Segment
from attestd.errors import AuditUnavailableError


@pytest.fixture
def segment(tmp_path: Path):
    """A segment that holds ``head``."""
    directory = open_directory(tmp_path / "log", create=True)
    made = Segment.create(directory, 0, b"head")
    yield made
    made.close()
    os.close(directory)


def content(tmp_path: Path):
    return (tmp_path / "log" / "00000000.seg").read_bytes()


def test_what_is_written_is_there_at_once_and_synced_later(segment: Segment, tmp_path: Path):
    """The kernel has the frame when ``write`` returns; ``sync`` then moves the mark of what is safe."""
    segment.write(b"one")
    assert content(tmp_path) == b"headone"
    assert (segment.size, segment.synced, segment.dirty) == (7, 4, True)
    segment.sync()
    assert (segment.synced, segment.dirty) == (7, False)


def test_after_a_failed_sync_the_frames_are_written_again(
    segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Pages that a failed sync dropped are restored from memory by the next one."""
    segment.write(b"one")
    segment.write(b"two")

    def fail(_: object) -> Any:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr("attestd.audit.segment.sync_data", fail)
    with pytest.raises(AuditUnavailableError, match="cannot sync"):
        segment.sync()
    monkeypatch.undo()
    (tmp_path / "log" / "00000000.seg").write_bytes(b"head")
    segment.sync()
    segment.write(b"three")
    assert content(tmp_path) == b"headonetwothree"


def test_a_torn_tail_is_replaced_by_the_frame_that_notes_it(segment: Segment, tmp_path: Path):
    """Longer or shorter than the note, nothing of the tail stays."""
    end = segment.size
    for tail in (b"x", b"x" * 50):
        with (tmp_path / "log" / "00000000.seg").open("r+b") as file:
            file.seek(segment.size)
            file.write(tail)
        segment.replace_tail(b"note", segment.size + len(tail))
        end += 4
        assert (segment.size, segment.synced) == (end, end)
    segment.write(b"!")
    assert content(tmp_path) == b"headnotenote!"


def test_a_sync_after_closing_does_nothing(segment: Segment):
    """A thread that is late with its sync meets a segment that was synced and closed: no error, no foreign file."""
    segment.close()
    segment.sync()
