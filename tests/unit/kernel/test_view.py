"""The file system as another process sees it: its root, its working directory, never our own /proc/self."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attestd.kernel.linux.process import Process
from attestd.kernel.linux.view import View, label
from tests.support.interpreted import SAY, interpreter, running, written

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

RENAMES = """
import os, sys
print("!", end="", flush=True)
while True:
    os.rename(sys.argv[1], sys.argv[2])
    os.rename(sys.argv[2], sys.argv[1])
"""


@contextmanager
def view_of(pid: int) -> Iterator[View]:
    """The view of a process."""
    with Process.open(pid) as process, View(process.dirfd) as view:
        yield view


@contextmanager
def own_view() -> Iterator[View]:
    """The view of this test."""
    with view_of(os.getpid()) as view:
        yield view


def test_files_directories_and_names(tmp_path: Path):
    """Regular files are read, directories listed, and what is not there is neither."""
    file = written(tmp_path / "a", "text")
    with own_view() as view:
        assert view.read(str(file), 2) == b"te"
        assert view.is_file(str(file))
        assert view.is_directory(str(tmp_path))
        assert view.names(str(tmp_path)) == ["a"]
        assert view.names(str(file)) == []
        assert view.stat(str(tmp_path / "b")) is None
        fd = view.open(str(file))
        assert label(fd) == str(file)
        os.close(fd)


def test_a_relative_name_is_taken_from_the_other_working_directory(tmp_path: Path):
    """The working directory is the process's, not ours."""
    with running([interpreter("dash"), "-c", SAY["shell"]], cwd=tmp_path) as process, view_of(process.pid) as view:
        assert view.absolute("x/../y") == f"{tmp_path}/x/../y"
        assert view.absolute("/x") == "/x"


@pytest.mark.parametrize(
    "path", ["/proc/self/exe", "/proc/self/cwd/pyproject.toml", "/dev/fd/0", "/proc/version", "/dev/null"]
)
def test_magic_links_and_devices_are_refused(path: str):
    """What would be ours, or is no regular file, is not opened."""
    with own_view() as view, pytest.raises(OSError, match=r"cannot read|Too many levels|Invalid cross-device"):
        view.open(path)


def test_a_zero_byte_is_refused():
    """A name that the kernel would cut short is not opened."""
    with own_view() as view, pytest.raises(OSError, match="zero byte"):
        view.open("/etc/passwd\0x")


@pytest.mark.root
@pytest.mark.root
def test_links_stay_inside_the_root_of_the_process(tmp_path: Path):
    """An absolute link and .. lead where they lead the process, not where they would lead us."""
    root = tmp_path / "root"
    written(root / "etc" / "passwd", "theirs")
    (root / "link").symlink_to("/etc/passwd")
    program = "import os, sys; os.chroot(sys.argv[1]); os.chdir('/etc'); print('ready', flush=True); sys.stdin.read()"
    with running([sys.executable, "-c", program, root]) as process, view_of(process.pid) as view:
        assert view.cwd == "/etc"
        for path in ("/link", "/../../etc/passwd", view.absolute("passwd")):
            assert view.read(path, 100) == b"theirs"
        assert view.inside(f"{root}/link") == "/link"


def test_renames_elsewhere_do_not_hide_a_file(tmp_path: Path):
    """A path with ``..`` is found however much is renamed on the machine: the kernel then says to try again."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "one").write_text("", encoding="utf-8")
    path = f"{tmp_path}/" + "deep/../" * 16 + "file"
    words = [sys.executable, "-c", RENAMES, str(tmp_path / "one"), str(tmp_path / "two")]
    busy = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert busy.stdout is not None
    try:
        assert busy.stdout.read(1) == b"!"
        with own_view() as view:
            assert all(view.is_file(path) for _ in range(40_000))
    finally:
        busy.kill()
        busy.communicate()
