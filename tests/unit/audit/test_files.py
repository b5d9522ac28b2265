"""Files of the log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from attestd.audit import files
from attestd.errors import ConfigurationError


@pytest.fixture
def directory(tmp_path: Path):
    """A descriptor of a fresh private directory."""
    fd = files.open_directory(tmp_path / "log", create=True)
    yield fd
    os.close(fd)


def test_a_small_file_is_replaced_whole(directory: int, tmp_path: Path):
    """Old or new content, never a mixture, and mode 0600."""
    for data in (b"first", b"2"):
        files.write_whole(directory, "name", data)
        assert files.read_whole(directory, "name") == data
    assert (tmp_path / "log" / "name").stat().st_mode & 0o777 == 0o600
    assert files.names_in(directory) == ["name"]


def test_a_missing_file_is_none_and_a_huge_one_an_error(directory: int):
    """What is not there is told from what cannot be right."""
    assert files.read_whole(directory, "name") is None
    files.write_whole(directory, "name", bytes(100))
    with pytest.raises(ConfigurationError, match="more than 99 bytes"):
        files.read_whole(directory, "name", 99)


def test_links_are_not_followed(directory: int, tmp_path: Path):
    """A symbolic link in the place of a file or of the directory is an error."""
    (tmp_path / "target").write_bytes(b"secret")
    (tmp_path / "log" / "name").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic"):
        files.read_whole(directory, "name")
    (tmp_path / "link").symlink_to(tmp_path / "log")
    with pytest.raises(ConfigurationError, match="cannot open the audit directory"):
        files.open_directory(tmp_path / "link", create=True)


def test_only_segment_names_count(directory: int, tmp_path: Path):
    """Other files are not taken for segments."""
    for name in ("00000002.seg", "00000000.seg", "00000001.seg.new", "1.seg", "lock"):
        (tmp_path / "log" / name).touch()
    assert files.segment_numbers(directory) == [0, 2]
    assert files.segment_name(2) == "00000002.seg"


def test_the_lock_is_seen_by_others(directory: int, tmp_path: Path):
    """A held lock is known without taking it; a free one, or none, too."""
    assert not files.is_locked(directory)
    fd = files.lock_directory(directory, tmp_path / "log")
    assert files.is_locked(directory)
    os.close(fd)
    assert not files.is_locked(directory)


def test_a_short_write_of_a_small_file_is_an_error(directory: int, monkeypatch: pytest.MonkeyPatch):
    """A full disk does not leave half a key behind the right name."""
    true_write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: true_write(fd, data[:1]))
    with pytest.raises(OSError, match="space"):
        files.write_whole(directory, "name", b"data")
    monkeypatch.undo()
    assert files.read_whole(directory, "name") is None
