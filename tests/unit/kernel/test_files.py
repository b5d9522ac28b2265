from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from attestd.kernel.linux import files
from attestd.kernel.linux.files import YOUNG_NS, FileReader, hash_file


class Counter:
    """Counts real hashes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._lock = threading.Lock()
        monkeypatch.setattr(files, "hash_file", self._hash)

    def _hash(self, fd: int) -> tuple[str | None, os.stat_result]:
        with self._lock:
            self.count += 1
        return hash_file(fd)


@pytest.fixture(name="hashes")
def _hashes(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


def late() -> int:
    """A clock far after every ctime."""
    import time

    return time.time_ns() + 10 * YOUNG_NS


def read(reader: FileReader, path: Path, *, held: bool = True) -> str | None:
    fd = reader.open_regular(str(path))
    try:
        return reader.facts(fd, str(path), os.getuid(), (os.getgid(),), held=held).sha256
    finally:
        os.close(fd)


def native(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        if files.fs_name(fd) not in files.SOUND_FILE_SYSTEMS:
            pytest.skip("the temporary directory is not on a native file system")
    finally:
        os.close(fd)


def test_facts_are_those_of_the_descriptor(tmp_path: Path):
    """Digest, size, owner and mode are those of the open file, whatever the path says."""
    file = tmp_path / "f"
    file.write_bytes(b"abc")
    fd = os.open(file, os.O_RDONLY)
    facts = FileReader().facts(fd, "/no/such/path", os.getuid(), (os.getgid(),))
    os.close(fd)
    assert facts.sha256 == hashlib.sha256(b"abc").hexdigest()
    assert (facts.size, facts.owner_uid, facts.ino) == (3, os.getuid(), file.stat().st_ino)
    assert facts.writable


def test_a_held_old_file_is_hashed_once(tmp_path: Path, hashes: Counter):
    """The digest of an executable that a process holds is remembered."""
    file = tmp_path / "f"
    file.write_bytes(b"abc")
    native(file)
    reader = FileReader(clock=late)
    assert read(reader, file) == read(reader, file)
    assert hashes.count == 1


@pytest.mark.parametrize("case", ["not held", "young", "not frozen"])
def test_nothing_is_remembered_where_it_would_be_unsound(tmp_path: Path, hashes: Counter, case: str):
    """Not without a holder, not while ctime is young, not on a kernel that lets running programs be written."""
    file = tmp_path / "f"
    file.write_bytes(b"abc")
    reader = FileReader(frozen_executables=case != "not frozen")
    if case != "young":
        reader = FileReader(frozen_executables=case != "not frozen", clock=late)
    for _ in range(2):
        read(reader, file, held=case != "not held")
    assert hashes.count == 2


def test_nothing_is_remembered_on_tmpfs(hashes: Counter):
    """A change in place on tmpfs is always seen."""
    directory = Path("/dev/shm")
    if not os.access(directory, os.W_OK):
        pytest.skip("no /dev/shm")
    file = directory / f"attestd-test-{os.getpid()}"
    try:
        file.write_bytes(b"abc")
        before = file.stat()
        reader = FileReader(clock=late)
        first = read(reader, file)
        file.write_bytes(b"abd")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert read(reader, file) != first
        assert hashes.count == 2
    finally:
        file.unlink()


def test_a_changed_file_is_a_new_key(tmp_path: Path, hashes: Counter):
    """Same size and restored mtime do not bring the old digest back: ctime moved."""
    file = tmp_path / "f"
    file.write_bytes(b"abc")
    before = file.stat()
    reader = FileReader(clock=late)
    first = read(reader, file)
    file.write_bytes(b"abd")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read(reader, file) != first
    assert hashes.count == 2


def test_two_threads_hash_a_new_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The second of two callers waits for the first and gets the same digest."""
    file = tmp_path / "f"
    file.write_bytes(b"abc")
    native(file)
    started, proceed = threading.Event(), threading.Event()
    calls = []

    def slow(fd: int) -> tuple[str | None, os.stat_result]:
        calls.append(fd)
        started.set()
        proceed.wait(10)
        return hash_file(fd)

    monkeypatch.setattr(files, "hash_file", slow)
    reader = FileReader(clock=late)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(read, reader, file)
        started.wait(10)
        second = pool.submit(read, reader, file)
        proceed.set()
        assert first.result() == second.result() == hashlib.sha256(b"abc").hexdigest()
    assert len(calls) == 1


def test_the_cache_is_bounded(tmp_path: Path, hashes: Counter):
    """The least recently used digest is dropped."""
    native(tmp_path)
    paths = [tmp_path / str(number) for number in range(3)]
    for path in paths:
        path.write_bytes(path.name.encode())
    reader = FileReader(entries=2, clock=late)
    for path in [*paths, paths[2], paths[0]]:
        read(reader, path)
    assert hashes.count == 4


def test_only_regular_files_are_opened(tmp_path: Path):
    """A FIFO does not block and a device or directory is not read."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (str(fifo), "/dev/zero", str(tmp_path)):
        with pytest.raises(OSError, match="expected a regular file"):
            FileReader().open_regular(path)
    fd = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(OSError, match="expected a regular file"):
        FileReader().facts(fd, "/dev/null", 0, ())
    os.close(fd)


def test_deleted_files_are_known_by_their_links(tmp_path: Path):
    """An unlinked file is deleted and writable; a live file with such a name is not deleted."""
    live, dead = tmp_path / "live (deleted)", tmp_path / "dead"
    live.write_text("x")
    dead.write_text("x")
    live_fd, dead_fd = os.open(live, os.O_RDONLY), os.open(dead, os.O_RDONLY)
    dead.unlink()
    reader = FileReader()
    alive = reader.facts(live_fd, str(live), 54321, ())
    gone = reader.facts(dead_fd, f"{dead} (deleted)", 54321, ())
    os.close(live_fd)
    os.close(dead_fd)
    assert (alive.deleted, alive.path) == (False, str(live))
    assert (gone.deleted, gone.path, gone.writable) == (True, str(dead), True)


def test_an_unlinked_name_with_another_link_left_is_deleted(tmp_path: Path):
    """The kernel's label says deleted and the path no longer leads there, though the inode has another name."""
    file = tmp_path / "f"
    file.write_text("x")
    os.link(file, tmp_path / "g")
    fd = os.open(file, os.O_RDONLY)
    file.unlink()
    facts = FileReader().facts(fd, os.readlink(f"/proc/self/fd/{fd}"), 54321, ())
    os.close(fd)
    assert facts.deleted


@pytest.mark.parametrize("sealed", [False, True])
def test_a_memfd_is_named_so_and_holds_only_when_sealed(sealed: bool):
    """A memfd is not a file anyone vouches for; its facts may be kept only when nobody can write it any more."""
    import fcntl

    fd = os.memfd_create("evil", os.MFD_ALLOW_SEALING)
    os.write(fd, b"abc")
    if sealed:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    measured = FileReader().measure(fd, os.readlink(f"/proc/self/fd/{fd}"), 54321, ())
    os.close(fd)
    assert (measured.facts.memfd, measured.facts.fs, measured.facts.writable) == (True, "memfd", True)
    assert measured.stable is sealed


def test_a_sparse_giant_is_not_read(tmp_path: Path):
    """A file above the limit has no digest, at once."""
    file = tmp_path / "giant"
    with file.open("wb") as stream:
        stream.truncate(files.MAX_FILE_BYTES + 1)
    assert read(FileReader(), file) is None


def test_the_digest_equals_openssls(tmp_path: Path):
    """Content across several blocks gives the digest that another program computes."""
    file = tmp_path / "f"
    file.write_bytes(os.urandom((3 << 20) + 17))
    other = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout.split()[0]
    assert read(FileReader(), file) == other
