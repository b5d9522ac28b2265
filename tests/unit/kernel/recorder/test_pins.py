"""Where the recorder is pinned; directories of a plain file system behave alike."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from attestd.kernel.linux.recorder import pins
from attestd.kernel.linux.recorder.failures import RecorderError


def made(root: Path, name: str) -> None:
    (root / name).mkdir()
    (root / name / "map").write_text(name)


def test_the_first_set(tmp_path: Path):
    """Where nothing is current the new set becomes it."""
    made(tmp_path, "new")
    pins.swap(str(tmp_path), "new")
    assert os.listdir(tmp_path) == ["current"]


def test_a_set_takes_the_place_of_another(tmp_path: Path):
    """The two exchange their names in one step; then the old one can be removed."""
    made(tmp_path, "current")
    made(tmp_path, "new")
    pins.swap(str(tmp_path), "new")
    assert (tmp_path / "current" / "map").read_text() == "new"
    assert (tmp_path / "new" / "map").read_text() == "current"
    assert pins.leftovers(str(tmp_path)) == [str(tmp_path / "new")]
    pins.remove(str(tmp_path / "new"))
    pins.remove(str(tmp_path / "new"))
    assert os.listdir(tmp_path) == ["current"]


def test_a_directory_that_cannot_be_locked(tmp_path: Path):
    """It is named."""
    with pytest.raises(RecorderError, match="no such file"), pins.locked(str(tmp_path / "none")):
        pytest.fail("was locked")


def test_the_root_of_the_control_groups():
    """If there is one it is a directory whose inode is that of the hierarchy's root."""
    found = pins.cgroup_root()
    assert found is None or os.stat(found).st_ino == 1


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_directory_that_others_can_write(tmp_path: Path, mode: int):
    """Somebody else could have put a false recorder there."""
    directory = tmp_path / "attestd"
    directory.mkdir()
    pins.verify_owner(str(directory))
    directory.chmod(mode)
    with pytest.raises(RecorderError, match="nobody else can write"):
        pins.verify_owner(str(directory))


def test_a_link_instead_of_a_directory(tmp_path: Path):
    """It is not followed."""
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(RecorderError, match="mode l"):
        pins.verify_owner(str(tmp_path / "link"))


@pytest.mark.root
def test_a_directory_of_somebody_else(tmp_path: Path):
    """Its owner could replace what is in it."""
    directory = tmp_path / "attestd"
    directory.mkdir()
    os.chown(directory, 60001, -1)
    with pytest.raises(RecorderError, match="owner 60001"):
        pins.verify_owner(str(directory))
