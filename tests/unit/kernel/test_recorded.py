"""What a record says of an image and of the words of an exec."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from attestd.evidence.recorder import ImageFacts, ProcessKey
from attestd.kernel.linux.recorded import TICK_NS, Recorded, key_of, same_process
from tests.fakes.recorder import FakeRecorder


def image(path: Path) -> ImageFacts:
    """The facts of a file, without a generation."""
    found = path.stat()
    return ImageFacts(dev=found.st_dev, ino=found.st_ino, generation=0, size=found.st_size, ctime_ns=0)


def executed(*argv: str, environ: tuple[bytes, ...] = (), facts: ImageFacts | None = None) -> Recorded:
    """One process that was forked and executed something."""
    fake = FakeRecorder()
    key = fake.fork(fake.boot())
    fake.execute(key, *argv, environ=environ, cwd="/home", image=facts)
    return Recorded(fake, key.pid, key.start_ns // TICK_NS)


def test_keys():
    """A key of /proc is cut to the tick; a record's exact key is the same process."""
    assert key_of(7, 3) == ProcessKey(7, 3 * TICK_NS)
    assert same_process(ProcessKey(7, 3 * TICK_NS + 5), 7, 3)
    assert not same_process(ProcessKey(7, 4 * TICK_NS), 7, 3)


def test_the_image_is_confirmed_or_refuted(tmp_path: Path):
    """Device and inode decide; another file is refuted, whatever its name."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"x")
    other.write_bytes(b"x")
    found = executed(str(one), facts=image(one))
    for path, verdict in ((one, True), (other, False)):
        fd = os.open(path, os.O_RDONLY)
        try:
            assert found.image_is(fd) is verdict
        finally:
            os.close(fd)
    assert found.objection() == ""


def test_what_was_copied_confirms_nothing(tmp_path: Path):
    """A process older than the recorder, an unknown one, and a claimed image are neither confirmed nor refuted."""
    path = tmp_path / "x"
    path.write_bytes(b"x")
    fake = FakeRecorder()
    first = fake.boot("old", pid=50)
    old = Recorded(fake, first.pid, first.start_ns // TICK_NS)
    unknown = Recorded(fake, 4, 4)
    claimed = executed("/x", facts=image(path))
    assert claimed.record is not None
    claimed.record = msgspec.structs.replace(claimed.record, image_claimed=True)
    with path.open("rb") as file:
        assert {each.image_is(file.fileno()) for each in (old, unknown, claimed)} == {None}
    assert old.objection() == "the process is older than the recorder"
    assert unknown.objection() == "the process is not known"
    assert claimed.objection() == "the image is older than the recorder"


def test_words():
    """Whole words are used; doubled variables stay doubled."""
    found = executed("/bin/x", "a", environ=(b"A=1", b"A=2", b"junk"))
    assert found.argv == ("/bin/x", "a")
    assert found.environ == (("A", "1"), ("A", "2"))
    assert found.environ_whole
    assert found.start is not None
    assert (found.start.cwd, found.start.environ) == ("/home", found.environ)


def test_cut_words_are_not_whole():
    """A cut command line is not used, a cut environment resolves nothing."""
    found = executed("/bin/x", environ=(b"A=1",))
    assert found.event is not None
    found.event = msgspec.structs.replace(found.event, argv_truncated=True, environ_truncated=True, truncated=True)
    assert found.argv is None
    assert found.environ == (("A", "1"),)
    assert found.start is not None
    assert found.start.environ is None
