"""C4: one bit flipped, a record dropped, the tail cut, an old log put back."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attestd.audit.chain import RECORD, Frame
from attestd.audit.reader import walk
from tests.support.instance import Instance, running

pytestmark = pytest.mark.attack("C4")

FLIPS = 25


class Logged:
    """A stopped instance with a log of two runs."""

    def __init__(self, instance: Instance, old: Path) -> None:
        self.instance = instance
        self.directory = instance.state / "audit"
        self.mark = instance.state / "audit.head"
        self.old = old

    def frames(self, directory: Path) -> list[Frame]:
        """Every frame of the only segment."""
        fd = os.open(directory / "00000000.seg", os.O_RDONLY)
        try:
            return [each for each in walk(fd) if isinstance(each, Frame)]
        finally:
            os.close(fd)

    def verify(self, directory: Path, *more: str) -> tuple[int, dict[str, Any]]:
        """Offline."""
        result = self.instance.run("attestctl", "audit", "verify", "--directory", str(directory), "--json", *more)
        return result.returncode, json.loads(result.stdout)


@pytest.fixture(scope="module", name="logged")
def _logged() -> Iterator[Logged]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with running(root) as instance:
        instance.grant()
        with instance.client() as client:
            client.initialize()
            for number in range(20):
                client.call("echo", n=number)
        instance.stop()
        old = root / "old"
        shutil.copytree(instance.state / "audit", old)
        instance.start()
        with instance.client() as client:
            client.initialize()
            for number in range(20):
                client.call("echo", n=number)
        instance.stop()
        yield Logged(instance, old)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(name="copy")
def _copy(logged: Logged, short_tmp: Path) -> Path:
    return Path(shutil.copytree(logged.directory, short_tmp / "audit"))


def test_the_log_as_it_was_written(logged: Logged, copy: Path):
    """The contrast: untouched, it verifies, also against its high-water mark."""
    status, report = logged.verify(copy, "--head", str(logged.mark))
    assert (status, report["ok"], report["problems"]) == (0, True, [])


def test_one_bit(logged: Logged, copy: Path):
    """Any bit of the file: exit 7, and the record named is the one that the bit is in."""
    segment = copy / "00000000.seg"
    whole = segment.read_bytes()
    places: list[tuple[int, int, int | None]] = []
    offset, record = 0, 0
    for frame in logged.frames(copy):
        is_record = frame.kind == RECORD
        places.append((offset, offset + len(frame.raw), record if is_record else None))
        record += is_record
        offset += len(frame.raw)
    assert offset == len(whole)
    chooser = random.Random(4)
    for _ in range(FLIPS):
        place = chooser.randrange(len(whole))
        data = bytearray(whole)
        data[place] ^= 1 << chooser.randrange(8)
        segment.write_bytes(data)
        status, report = logged.verify(copy)
        assert status == 7, f"bit at {place} was not found"
        wanted = next(number for start, end, number in places if start <= place < end)
        named = [problem["record"] for problem in report["problems"]]
        if wanted is not None:
            assert wanted in named, f"bit at {place} is in record {wanted}, named were {named}"


@pytest.mark.parametrize("which", [0.1, 0.5, 0.9])
def test_a_record_dropped(logged: Logged, copy: Path, which: float):
    """A whole frame taken out, the rest moved up: found where the next record does not follow, and the gap is named."""
    frames = logged.frames(copy)
    records = [n for n, frame in enumerate(frames) if frame.kind == RECORD]
    number = int(len(records) * which)
    (copy / "00000000.seg").write_bytes(b"".join(f.raw for n, f in enumerate(frames) if n != records[number]))
    status, report = logged.verify(copy)
    assert status == 7
    print(report["problems"])
    assert number in [problem["record"] for problem in report["problems"]]


def test_two_records_swapped(logged: Logged, copy: Path):
    """Order counts."""
    raws = [f.raw for f in logged.frames(copy)]
    raws[10], raws[11] = raws[11], raws[10]
    (copy / "00000000.seg").write_bytes(b"".join(raws))
    assert logged.verify(copy)[0] == 7


def test_the_tail_cut(logged: Logged, copy: Path):
    """Cut in front of the last checkpoint or further back: the mark kept elsewhere says how far the log had come.

    Without that control the shortened log verifies: it is what a log of that time looked like.
    """
    frames = logged.frames(copy)
    old = logged.frames(logged.old)
    assert len(old) < len(frames)
    (copy / "00000000.seg").write_bytes(b"".join(f.raw for f in old))
    shutil.rmtree(copy / "keys")
    shutil.copytree(logged.old / "keys", copy / "keys")
    assert logged.verify(copy)[0] == 0
    status, report = logged.verify(copy, "--head", str(logged.mark))
    assert status == 7
    assert report["problems"]


def test_an_old_log_put_back(logged: Logged):
    """The daemon does not continue a log that ends before its own high-water mark, nor an empty one."""
    now = logged.instance.root / "now"
    shutil.move(logged.directory, now)
    try:
        shutil.copytree(logged.old, logged.directory)
        result = logged.instance.run("attestd", "run", "--user")
        assert result.returncode == 7, result.stderr
        assert "audit log" in result.stderr
        shutil.rmtree(logged.directory)
        result = logged.instance.run("attestd", "run", "--user")
        assert result.returncode == 7, result.stderr
    finally:
        shutil.rmtree(logged.directory, ignore_errors=True)
        shutil.move(now, logged.directory)


def test_under_a_running_daemon(logged: Logged):
    """A bit flipped in the file that the daemon is writing: ``audit verify`` through the daemon finds it."""
    instance = logged.instance
    kept = Path(shutil.copytree(logged.directory, instance.root / "kept"))
    instance.start()
    try:
        segment = logged.directory / "00000000.seg"
        with segment.open("r+b") as file:
            file.seek(len(logged.frames(kept)[0].raw) + 40)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        result = instance.run("attestctl", "audit", "verify", "--json")
        assert result.returncode == 7
        assert json.loads(result.stdout)["problems"]
    finally:
        instance.stop()
        shutil.rmtree(logged.directory)
        shutil.move(kept, logged.directory)
