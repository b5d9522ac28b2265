"""Real interpreters running real scripts, and what the resolver says of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from attestd.evidence.model import Script
from attestd.kernel.linux.files import FileReader
from attestd.kernel.linux.origins import Origins
from attestd.kernel.linux.process import Process
from attestd.kernel.linux.scripts import resolve

SAY = {
    "node": "console.log('ready'); process.stdin.resume();",
    "python": "import sys\nprint('ready', flush=True)\nsys.stdin.read()\n",
    "shell": "echo ready; read line\n",
    "perl": "$| = 1; print qq{ready\\n}; <STDIN>;\n",
    "ruby": "$stdout.sync = true; puts 'ready'; STDIN.read\n",
    "java": (
        'public class Main { public static void main(String[] a) throws Exception { System.out.println("ready");'
        " System.in.read(); } }\n"
    ),
}
"""Programs that say they are running and then wait for the end of their input."""


def interpreter(name: str) -> str:
    """The installed interpreter of this name; the test is skipped where there is none."""
    found = next((path for path in (f"/usr/bin/{name}", shutil.which(name)) if path and Path(path).exists()), None)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def written(path: Path, text: str, *, mode: int = 0o755) -> Path:
    """A file with this text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def aged(path: Path) -> Path:
    """The same file once it is older than any slack: a process started from now on is younger than the file."""
    while time.time_ns() - path.stat().st_ctime_ns < 100_000_000:
        time.sleep(0.01)
    return path


@contextmanager
def running(
    arguments: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    executable: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has said ``ready``; it is ended by the end of its input."""
    base = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    with subprocess.Popen(
        [str(argument) for argument in arguments],
        cwd=cwd,
        env={**base, **(env or {})},
        executable=executable,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def resolved(pid: int, *, argv: Sequence[str] | None = None) -> Script | None:
    """What the resolver says of a process, once its exec has come as far as its command line."""
    with Process.open(pid) as process:
        while not process.argv():
            time.sleep(0.001)
        return resolve(
            process,
            FileReader(),
            Origins(),
            exe_path=process.readlink("exe"),
            argv=process.argv() if argv is None else argv,
            uid=os.getuid(),
            gids=tuple(os.getgroups()),
        )


def of(arguments: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Script:
    """What the resolver says of a program started for it."""
    with running(arguments, cwd=cwd, env=env) as process:
        script = resolved(process.pid)
    assert script is not None
    return script
