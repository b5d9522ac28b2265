"""Virtual environments as evidence, with real interpreters."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attestd.kernel.linux.kernel import LinuxKernel
from attestd.kernel.linux.process import Process
from attestd.kernel.linux.virtualenv import environment_of

BASE = str(Path(sys.executable).resolve())
WAIT = "import sys; print('ready', flush=True); sys.stdin.read()"


def make_environment(root: Path, *, mode: int = 0o777) -> Path:
    """A virtual environment without packages, and its python."""
    (root / "bin").mkdir(parents=True)
    (root / "pyvenv.cfg").write_text(f"home = {Path(BASE).parent}\n")
    (root / "bin" / "python").symlink_to(BASE)
    root.chmod(mode)
    return root / "bin" / "python"


@contextmanager
def running(*argv: str, **options: object) -> Iterator[int]:
    """The pid of a process that has started."""
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        yield child.pid
    finally:
        child.communicate()


def test_the_environment_is_found_by_argv(tmp_path: Path):
    """The root is told for a process that was called through an environment's python."""
    python = make_environment(tmp_path / "venv")
    with running(str(python), "-c", WAIT) as pid:
        process = Process.open(pid)
        assert environment_of(process, (str(python), "-c", WAIT)) == str(tmp_path / "venv")
        assert environment_of(process, ("python", "-c", WAIT)) is None
        assert environment_of(process, ("/bin/sh", "-c", WAIT)) is None
        assert environment_of(process, ()) is None
        process.close()


def test_a_plain_interpreter_has_none():
    """Without pyvenv.cfg there is no environment."""
    with running(BASE, "-c", WAIT) as pid:
        process = Process.open(pid)
        assert environment_of(process, (BASE, "-c", WAIT)) is None
        process.close()


def test_a_writable_environment_is_posture(tmp_path: Path):
    """An environment that the caller can change stands in the posture of a script outside it."""
    python = make_environment(tmp_path / "venv")
    script = tmp_path / "client.py"
    script.write_text(WAIT)
    with running(str(python), str(script)) as pid:
        collected = LinuxKernel().collect_pid(pid)
        collected.watch.close()
        assert f"venv {tmp_path / 'venv'}" in collected.evidence.chain[0].posture


def test_the_programs_own_environment_is_not(tmp_path: Path):
    """A script that is installed in the environment brings it along: nothing is said."""
    python = make_environment(tmp_path / "venv")
    script = tmp_path / "venv" / "bin" / "tool"
    script.write_text(WAIT)
    with running(str(python), str(script)) as pid:
        collected = LinuxKernel().collect_pid(pid)
        collected.watch.close()
        assert not [entry for entry in collected.evidence.chain[0].posture if entry.startswith("venv")]
