"""Who could change a file, by ownership, mode and access control list."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from attestd.kernel.darwin.access import Access

ME = os.getuid()
OTHER = frozenset({4242})


@pytest.fixture(name="file")
def _file(tmp_path: Path) -> Path:
    file = Path(os.path.realpath(tmp_path)) / "prog"
    file.write_bytes(b"x")
    file.chmod(0o755)
    for directory in (file.parent, file.parent.parent, file.parent.parent.parent):
        directory.chmod(0o755)
    return file


def writable(file: Path, uids: frozenset[int], allowed: frozenset[str] = frozenset()) -> bool:
    """As a collection asks."""
    return Access(lambda path: path in allowed).writable(str(file), file.stat(), uids)


def test_the_owner_can_write(file: Path):
    """Whatever the mode, for the owner can change it; root by ownership alone cannot be told from it."""
    file.chmod(0o555)
    assert writable(file, frozenset({ME})) is (ME != 0)


@pytest.mark.root
def test_another_user_cannot(file: Path):
    """Neither file nor directories have a bit or an entry for others."""
    assert not writable(file, OTHER)


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o775, 0o757])
def test_any_group_counts(file: Path, mode: int):
    """Membership is nested and kept elsewhere, so a group's bit is everybody's."""
    file.chmod(mode)
    assert writable(file, OTHER)


@pytest.mark.root
def test_a_directory_counts(file: Path):
    """Who can write a directory can put another file there."""
    file.parent.chmod(0o775)
    assert writable(file, OTHER)


@pytest.mark.root
def test_a_list_that_allows_counts(file: Path):
    """On the file or on a directory above it."""
    assert writable(file, OTHER, frozenset({str(file)}))
    assert writable(file, OTHER, frozenset({str(file.parent)}))
    assert writable(file, frozenset({0}), frozenset({str(file.parent)}))


def test_another_file_at_the_path_counts(file: Path):
    """Nothing is known of a file that the path does not lead to."""
    found = file.stat()
    file.unlink()
    assert Access(lambda _: False).writable(str(file), found, OTHER)
    file.symlink_to("/bin/sh")
    assert Access(lambda _: False).writable(str(file), found, OTHER)


@pytest.mark.root
def test_roots_sticky_directory_is_no_way_in(file: Path):
    """There only the owner of an entry can replace it."""
    file.parent.chmod(0o1777)
    assert not writable(file, OTHER)
