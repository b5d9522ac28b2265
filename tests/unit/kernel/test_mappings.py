from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from attestd.kernel.linux import mappings
from attestd.kernel.linux.access import Access
from attestd.kernel.linux.process import Process


def test_our_own_code_is_found():
    """The executable and the C library are among the mapped files."""
    with Process.open(os.getpid()) as process:
        files = mappings.executable_files(process)
    assert os.path.realpath(sys.executable) in files
    assert any("libc" in path for path in files)


def test_both_ways_of_asking_agree():
    """PROCMAP_QUERY and the text of maps give the same files."""
    with open("/proc/self/maps", "rb") as maps:
        parsed = dict(mappings.parsed(maps.fileno()))
        try:
            queried = dict(mappings.queried(maps.fileno()))
        except OSError as error:
            pytest.skip(f"no PROCMAP_QUERY: {error}")
    assert queried == parsed


def test_foreign_is_deleted_replaced_or_writable_elsewhere(tmp_path: Path):
    """Files that are gone, are others now, or lie in the user's hands outside the installation are foreign."""
    mine, app = tmp_path / "x.so", tmp_path / "app" / "bin" / "tool"
    library = tmp_path / "app" / "lib" / "y.so"
    for path in (mine, app, library):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        path.chmod(0o666)
    system = Path("/usr/bin/env").resolve()
    found = {str(path): path.stat().st_ino for path in (mine, library, system)}
    found[f"{tmp_path}/gone.so (deleted)"] = 1
    found[str(app)] = app.stat().st_ino + 1
    judged = dict(mappings.Judge(Access(), os.getuid(), (os.getgid(),), [str(app)]).judged(found))
    assert judged == {
        str(mine): True,
        str(library): False,
        str(system): False,
        f"{tmp_path}/gone.so (deleted)": True,
        str(app): True,
    }


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/home/u/.nvm/versions/node/v20/bin/node", "/home/u/.nvm/versions/node/v20/"),
        ("/opt/vendor/app/tool", "/opt/vendor/app/"),
        ("/home/u/bin/tool", "/home/u/bin/tool"),
        ("/home/u/tool", "/home/u/tool"),
        ("/usr/bin/python3.11", "/usr/bin/python3.11"),
    ],
)
def test_a_home_directory_is_not_an_installation(path: str, root: str):
    """The installation is what the program was installed with, never a whole home."""
    assert mappings.installation(path) == root
