"""I12: the binary replaced on disk while it runs, then called; deleted; overwritten in place on tmpfs."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.attackers import Arena, attempt
from tests.support.naive import at_path, marks, sha256

pytestmark = pytest.mark.attack("I12")


@pytest.fixture(scope="module", name="genuine")
def _genuine(arena: Arena) -> Path:
    """A granted binary."""
    return arena.genuine()


@pytest.fixture(scope="module", name="evil")
def _evil(arena: Arena) -> Path:
    """Another binary of the same size."""
    source = (Path(__file__).parents[1] / "support" / "c" / "client.c").read_text().replace("byte A", "byte E")
    other = arena.root / "evil.c"
    other.write_text(source)
    return arena.compiled("evil", str(other))


def copy(source: Path, target: Path) -> Path:
    """A new file at ``target``, put there at once."""
    fresh = target.with_name(target.name + ".new")
    shutil.copy(source, fresh)
    fresh.rename(target)
    return target


@pytest.mark.parametrize("how", ["replaced", "deleted, with a file of the link's text"])
def test_the_identity_is_the_running_image(arena: Arena, genuine: Path, evil: Path, how: str):
    """Evil runs, the granted binary lies at its path: the digest of the path is the granted one's, of the image not."""
    place = arena.root / "place"

    mark = arena.mark()
    with arena.started(copy(evil, place), arena.naive.path) as client:
        _exchange(how, place, genuine)
        assert arena.naive.serve(at_path(sha256(genuine)))
        attempt(client, mark)
        assert arena.naive.executed(mark)
    arena.naive.end()
    mark = arena.mark()
    with (
        arena.since() as seen,
        arena.daemon_asleep(),
        arena.started(copy(evil, place), arena.instance.socket()) as client,
    ):
        _exchange(how, place, genuine)
        arena.awake()
        answers = attempt(client, mark)
        arena.refused(answers, seen, mark, "no_grant")


def _exchange(how: str, place: Path, genuine: Path) -> None:
    if how == "replaced":
        copy(genuine, place)
        return
    place.unlink()
    copy(genuine, place)
    copy(genuine, place.with_name(place.name + " (deleted)"))


@pytest.mark.linux("a descriptor of the running image; macOS has no file for it then")
def test_a_granted_program_stays_itself(arena: Arena, genuine: Path, evil: Path):
    """Replaced on disk while it runs, the granted program is served as what runs; what lies there now is a stranger."""
    place = copy(genuine, arena.root / "installed")
    own = arena.mark()
    with arena.started(place, arena.instance.socket()) as client:
        assert "result" in client.initialize()
        copy(evil, place)
        assert "result" in client.call(mark=own)
    assert own in marks(arena.instance.executed())
    arena.fails(lambda path: [place, path], "no_grant")


@pytest.fixture(name="memory")
def _memory() -> Iterator[Path]:
    """A directory on tmpfs."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no /dev/shm")
    path = Path(tempfile.mkdtemp(prefix="at-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


def test_overwritten_in_place_on_tmpfs(arena: Arena, genuine: Path, evil: Path, memory: Path):
    """The same inode, size and mtime hold other bytes: no remembered digest counts there."""
    place = memory / "client"
    shutil.copy(genuine, place)
    before = place.stat()
    with arena.started(place, arena.instance.socket()) as client:
        assert "result" in client.initialize()
    with place.open("r+b") as file:
        file.write(evil.read_bytes())
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))
    remembered = (before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns)

    def cached(pid: int, _uid: int) -> bool:
        found = Path(f"/proc/{pid}/exe").stat()
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns) == remembered

    arena.succeeds_naively(lambda path: [place, path], cached)
    arena.fails(lambda path: [place, path], "no_grant")
