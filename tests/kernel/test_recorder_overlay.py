"""Images on an overlay: confirmed where root made the mount, in our own mount namespace, and nothing has changed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.kernel.linux.recorded import TICK_NS, Recorded
from attestd.kernel.linux.recorder.reader import BpfRecorder
from tests.support.children import running
from tests.support.recorder import eventually, key_of, recording

pytestmark = pytest.mark.root

SLEEP = shutil.which("sleep") or "/bin/sleep"


@pytest.fixture(scope="module", name="reader")
def _reader() -> Iterator[BpfRecorder]:
    with recording() as root, contextlib.closing(BpfRecorder.open(root)) as opened:
        yield opened


@pytest.fixture(name="layers")
def _layers(short_tmp: Path) -> Path:
    """The directories of an overlay that is not mounted yet, with a program in its lower layer."""
    for name in ("lower", "upper", "work", "merged"):
        (short_tmp / name).mkdir()
    shutil.copy(SLEEP, short_tmp / "lower" / "program")
    return short_tmp


def mounting(layers: Path) -> list[str]:
    """The command that mounts it."""
    where = f"lowerdir={layers}/lower,upperdir={layers}/upper,workdir={layers}/work"
    return ["mount", "-t", "overlay", "overlay", "-o", where, str(layers / "merged")]


@pytest.fixture(name="merged")
def _merged(layers: Path) -> Iterator[Path]:
    """The same, mounted."""
    if subprocess.run(mounting(layers), stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("no overlay can be mounted here")
    yield layers / "merged"
    subprocess.run(["umount", str(layers / "merged")], check=True)


def verdict(reader: BpfRecorder, pid: int, shown: Path | None = None) -> bool | None:
    """What the record of a process says of its executable, or of another file."""
    key = key_of(pid)
    fd = os.open(shown or f"/proc/{pid}/exe", os.O_RDONLY)
    try:
        return Recorded(reader, pid, key.start_ns // TICK_NS).image_is(fd)
    finally:
        os.close(fd)


def executing(reader: BpfRecorder, pid: int) -> bool:
    """Whether the program of the overlay runs."""
    record = reader.process(key_of(pid))
    return record is not None and record.comm == "program"


def test_the_image_is_confirmed(reader: BpfRecorder, merged: Path):
    """Device, inode and ctime are those of the exec."""
    with running(str(merged / "program"), "100") as child:
        eventually(lambda: executing(reader, child.pid))
        assert verdict(reader, child.pid) is True


def test_another_file_is_not_confirmed(reader: BpfRecorder, merged: Path):
    """On the overlay it cannot be said, for overlays may hide the device of an inode; elsewhere it is refuted."""
    shutil.copy(SLEEP, merged / "other")
    with running(str(merged / "program"), "100") as child:
        eventually(lambda: executing(reader, child.pid))
        assert verdict(reader, child.pid, merged / "other") is None
        assert verdict(reader, child.pid, Path(SLEEP)) is False


def test_an_inode_that_changed_is_not_confirmed(reader: BpfRecorder, merged: Path):
    """Its number could have been used again: without a generation the ctime must be that of the exec."""
    with running(str(merged / "program"), "100") as child:
        eventually(lambda: executing(reader, child.pid))
        (merged / "program").chmod(0o711)
        assert verdict(reader, child.pid) is None


def test_an_overlay_of_another_mount_namespace_is_not_confirmed(reader: BpfRecorder, layers: Path):
    """Whoever made it chose its layers, and with them the inode numbers."""
    script = f"{' '.join(mounting(layers))} && exec {layers}/merged/program 100"
    with running("unshare", "-m", "sh", "-c", script) as child:
        eventually(lambda: child.poll() is not None or executing(reader, child.pid))
        if child.poll() is not None:
            pytest.skip("no overlay can be mounted here")
        assert verdict(reader, child.pid) is None
