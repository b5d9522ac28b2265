"""Facts about files: a digest only where the kernel's cdhash ties the content to the image."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from attestd.evidence.model import FileFacts
from attestd.kernel.darwin import files as module
from attestd.kernel.darwin.access import Access
from attestd.kernel.darwin.files import open_regular
from tests.support import mach
from tests.support.macs import Scene

UIDS = frozenset({501})


def executable(scene: Scene, path: Path, cdhash: str) -> FileFacts:
    """As a reading asks."""
    return scene.files.executable(str(path), cdhash, UIDS, Access(scene.system.acl_allows))


def test_a_tied_file_has_its_digest(scene: Scene):
    """The content whose code directory the kernel enforces is hashed whole."""
    path = scene.directory / "prog"
    cdhash = mach.write(path).hex()
    facts = executable(scene, path, cdhash)
    assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (facts.path, facts.fs, facts.ino) == (str(path), "apfs", path.stat().st_ino)


def test_another_file_has_none(scene: Scene):
    """A file that was put where the image came from is not that image, however well it is known."""
    path = scene.directory / "prog"
    running = mach.write(path, "old").hex()
    mach.write(path, "new")
    assert executable(scene, path, running).sha256 is None


def test_an_unsigned_image_has_none(scene: Scene):
    """Without a cdhash nothing ties a file to what runs."""
    path = scene.directory / "prog"
    mach.write(path)
    assert executable(scene, path, "").sha256 is None


def test_a_content_is_read_once(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    """What was learned of a content serves as long as the file shows the same stat."""
    path = scene.directory / "prog"
    cdhash = mach.write(path).hex()
    first = executable(scene, path, cdhash)
    monkeypatch.setattr(module, "_hashed", lambda _: pytest.fail("hashed again"))
    assert executable(scene, path, cdhash) == first
    assert executable(scene, path, "00" * 20).sha256 is None


def test_a_changed_content_is_read_again(scene: Scene):
    """Another content under the same name is another digest."""
    path = scene.directory / "prog"
    one = executable(scene, path, mach.write(path, "one").hex())
    two = executable(scene, path, mach.write(path, "another").hex())
    assert one.sha256 != two.sha256 is not None


def test_only_regular_files(scene: Scene):
    """A directory or FIFO is refused, and does not hang."""
    os.mkfifo(scene.directory / "fifo")
    for path in (scene.directory, scene.directory / "fifo"):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(str(path))


def test_a_script(scene: Scene):
    """Scripts have the digest of their content, and the path that the kernel finds."""
    path = scene.directory / "client.js"
    path.write_text("1")
    (scene.directory / "link.js").symlink_to(path)
    fd = open_regular(str(scene.directory / "link.js"))
    facts = scene.files.script(fd, UIDS, Access(scene.system.acl_allows))
    os.close(fd)
    assert (facts.path, facts.sha256) == (str(path), hashlib.sha256(b"1").hexdigest())
