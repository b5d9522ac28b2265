from __future__ import annotations

import os
from pathlib import Path

import pytest

from attestd.kernel.linux.access import Access
from tests.support.children import needs_root

STRANGER = 54321
STRANGERS = (54321,)


@pytest.fixture(name="tree")
def _tree() -> Path:
    """``/var/tmp``-free tree below root-owned directories, so that only what a test changes is writable."""
    needs_root()
    import shutil
    import tempfile

    root = Path(tempfile.mkdtemp(dir="/usr/local"))
    root.chmod(0o755)
    (root / "d").mkdir(mode=0o755)
    (root / "d" / "f").write_text("x")
    (root / "d" / "f").chmod(0o644)
    yield root
    shutil.rmtree(root)


def asked(path: Path, uid: int = STRANGER, gids: tuple[int, ...] = STRANGERS) -> bool:
    return Access().writable(str(path), path.stat(), uid, gids)


@pytest.mark.root
def test_root_owned_files_are_not_writable_by_others(tree: Path):
    """Root's file below root's directories is nobody else's, and by mode not root's either."""
    assert not asked(tree / "d" / "f")
    assert not asked(tree / "d" / "f", 0, (0,))


@pytest.mark.root
@pytest.mark.parametrize("mode", [0o646, 0o664, 0o666])
def test_mode_bits_count(tree: Path, mode: int):
    """Write bits for group or others count for whom they concern, and always for uid 0."""
    file = tree / "d" / "f"
    os.chown(file, 0, STRANGER)
    file.chmod(mode)
    assert asked(file)
    assert asked(file, 0, (0,))


@pytest.mark.root
def test_a_group_of_others_does_not_count(tree: Path):
    """Group write of a group that the user is not in is no power of that user."""
    file = tree / "d" / "f"
    os.chown(file, 0, 777)
    file.chmod(0o664)
    assert not asked(file)


@pytest.mark.root
def test_the_owner_counts_whatever_the_mode(tree: Path):
    """An owner can change the mode; for uid 0 a file of someone else is not safe."""
    file = tree / "d" / "f"
    os.chown(file, STRANGER, 0)
    file.chmod(0o444)
    assert asked(file)
    assert asked(file, 0, (0,))
    assert not asked(file, 999, (999,))


@pytest.mark.root
def test_every_directory_up_to_the_root_counts(tree: Path):
    """Who owns a directory above can replace what is below."""
    os.chown(tree, STRANGER, 0)
    assert asked(tree / "d" / "f")


@pytest.mark.root
def test_a_sticky_directory_protects_what_is_not_the_users(tree: Path):
    """In a sticky directory of root a stranger cannot replace root's file, but can replace its own directory."""
    tree.chmod(0o1777)
    assert not asked(tree / "d" / "f")
    assert not asked(tree / "d" / "f", 0, (0,))
    os.chown(tree / "d", STRANGER, 0)
    assert asked(tree / "d" / "f")


@pytest.mark.root
def test_an_acl_counts_when_its_mask_lets_it(tree: Path):
    """A named entry with write permission shows as a group write bit plus an ACL."""
    import struct

    file = tree / "d" / "f"
    entries = [(1, 6, 0xFFFFFFFF), (2, 7, STRANGER), (4, 4, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(file, "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"no ACLs here: {error}")
    assert asked(file)
    assert asked(file, 999, (999,))


def test_a_path_that_leads_elsewhere_is_writable(tmp_path: Path):
    """Nothing is known of a file that the path does not lead to."""
    one, other = tmp_path / "1", tmp_path / "2"
    one.write_text("1")
    other.write_text("2")
    assert Access().writable(str(one), other.stat(), STRANGER, STRANGERS)
    assert Access().writable(str(tmp_path / "none"), one.stat(), STRANGER, STRANGERS)
    assert Access().writable("usr/bin/env", os.stat("/usr/bin/env"), STRANGER, STRANGERS)


def test_system_programs_are_not_writable_by_a_stranger():
    """The real case: a distribution's program."""
    path = Path("/usr/bin/env").resolve()
    assert not asked(path)


def test_own_files_are_writable(tmp_path: Path):
    """A user can write what lies in its own directory."""
    file = tmp_path / "f"
    file.write_text("x")
    if os.getuid():
        assert asked(file, os.getuid(), (os.getgid(),))
    else:
        file.chmod(0o666)
        assert asked(file, 0, (0,))
