"""The search of ``python -m``: what a running interpreter itself says it would load, and what is left uncertain."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from attestd.kernel.linux.process import Process
from attestd.kernel.linux.pymodules import Interpreter, UncertainError
from attestd.kernel.linux.view import View
from tests.support.interpreted import SAY, interpreter, running, written

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

FIND = "import importlib.util, sys; print(importlib.util.find_spec(sys.argv[1]).origin)"


def located(cwd: Path, module: str, *, env: Mapping[str, str] | None = None, flags: str = "") -> str:
    """Where the search finds a module for the system's Python."""
    program = interpreter("python3")
    with (
        running([program, "-c", SAY["python"]], cwd=cwd) as started,
        Process.open(started.pid) as process,
        View(process.dirfd) as view,
    ):
        exe, chosen = view.inside(process.readlink("exe")), frozenset(flags.split())
        return Interpreter(view=view, exe=exe, argv0=program, environ=env or {}, flags=chosen).locate(module)


@pytest.mark.parametrize("module", ["json.tool", "http.server", "pdb", "timeit"])
def test_the_standard_library_as_python_says(tmp_path: Path, module: str):
    """The file is the one that Python's own import system names."""
    said = subprocess.run(
        [interpreter("python3"), "-I", "-c", FIND, module], check=True, capture_output=True, text=True
    )
    assert located(tmp_path, module) == said.stdout.strip()


def test_the_order_of_the_first_places(tmp_path: Path):
    """Working directory, then PYTHONPATH; -P and PYTHONSAFEPATH leave out the first, -E and -I the second."""
    here = written(tmp_path / "here" / "tool.py", "")
    there = written(tmp_path / "there" / "tool.py", "")
    env = {"PYTHONPATH": f"{tmp_path}/missing:{there.parent}"}
    cwd = here.parent
    assert located(cwd, "tool", env=env) == str(here)
    assert located(cwd, "tool", env=env, flags="-P") == str(there)
    assert located(cwd, "tool", env={**env, "PYTHONSAFEPATH": "1"}) == str(there)
    assert located(cwd, "tool", env={**env, "PYTHONSAFEPATH": "1"}, flags="-E") == str(here)
    with pytest.raises(UncertainError):
        located(cwd, "tool", env=env, flags="-I")


def test_the_user_site(tmp_path: Path):
    """The user's own site directory counts unless -s, -I or PYTHONNOUSERSITE; -S leaves out all of them."""
    version = subprocess.run(
        [interpreter("python3"), "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    tool = written(tmp_path / ".local" / "lib" / version / "site-packages" / "tool.py", "")
    env = {"HOME": str(tmp_path)}
    assert located(tmp_path, "tool", env=env) == str(tool)
    for flags, more in (("-s", {}), ("-S", {}), ("-I", {}), ("", {"PYTHONNOUSERSITE": "1"})):
        with pytest.raises(UncertainError):
            located(tmp_path, "tool", env={**env, **more}, flags=flags)


@pytest.mark.parametrize(
    ("files", "module"),
    [
        (["pack/__main__.py"], "pack"),  # a namespace package
        (["pack/__init__.py"], "pack"),  # no __main__
        (["pack/__init__.py"], "pack.missing"),
        (["pack.py"], "pack.inner"),  # a module is no package
        (["tool.cpython-311-x86_64-linux-gnu.so", "tool.py"], "tool"),  # an extension goes first
        (["pack/__init__.so", "pack/__main__.py"], "pack"),
        (["tool.py"], "tool;x"),
        (["runpy.py"], "runpy"),  # frozen
    ],
)
def test_uncertain(tmp_path: Path, files: list[str], module: str):
    """Where Python would load something else, or nothing, no file is named."""
    for name in files:
        written(tmp_path / name, "")
    with pytest.raises(UncertainError):
        located(tmp_path, module)


def test_a_zip_file_on_the_path_is_uncertain(tmp_path: Path):
    """What an archive holds is not looked at, so nothing behind it is certain."""
    written(tmp_path / "libs.zip", "")
    with pytest.raises(UncertainError):
        located(tmp_path, "json.tool", env={"PYTHONPATH": f"{tmp_path}/libs.zip"})


def test_pythonhome_is_uncertain(tmp_path: Path):
    """Another home means another standard library."""
    with pytest.raises(UncertainError):
        located(tmp_path, "json.tool", env={"PYTHONHOME": "/opt"})
    assert Path(located(tmp_path, "json.tool", env={"PYTHONHOME": "/opt"}, flags="-E")).name == "tool.py"
