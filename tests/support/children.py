"""Real child processes for kernel tests. Every one is ended and waited for before its context is left."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

READY = "ready"


@contextlib.contextmanager
def running(*argv: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    """A child with pipes as stdin and stdout, killed on leaving."""
    defaults: dict[str, object] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    child = subprocess.Popen(argv, **{**defaults, **options})  # type: ignore[call-overload]
    try:
        yield child
    finally:
        child.kill()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        child.wait()


@contextlib.contextmanager
def python(code: str, *args: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    """An isolated Python child that has printed ``ready`` (the code must do so)."""
    with running(sys.executable, "-I", "-c", code, *args, **options) as child:
        expect_ready(child)
        yield child


def expect_ready(child: subprocess.Popen[str]) -> None:
    """Wait for the line ``ready``."""
    assert child.stdout is not None
    line = child.stdout.readline()
    if line.strip() != READY:
        pytest.fail(f"the child said {line!r}, expected {READY!r}")


def copied(program: str, directory: Path, name: str | None = None) -> Path:
    """A copy of an installed program in ``directory``."""
    source = shutil.which(program)
    assert source is not None
    target = directory / (name or program)
    shutil.copy(Path(source).resolve(), target)
    target.chmod(0o755)
    return target


def age(path: Path) -> None:
    """Wait until the file's ctime is old enough for its digest to be remembered (there is no way to set ctime back)."""
    while time.time_ns() - path.stat().st_ctime_ns < 2_050_000_000:
        time.sleep(0.05)


@contextlib.contextmanager
def listening(directory: Path) -> Iterator[tuple[socket.socket, str]]:
    """A Unix listener and its path."""
    path = str(directory / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        Path(path).chmod(0o777)
        listener.listen(8)
        listener.settimeout(20)
        yield listener, path


def kill_and_wait_gone(pid: int) -> None:
    """End a process that is not our child and wait until it has exited; a process that is gone already is fine."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        select.select([pidfd], [], [], 10)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


def needs_userns() -> None:
    """Skip where an unprivileged user namespace cannot be made."""
    if subprocess.run(["unshare", "-Ur", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("user namespaces cannot be made here")


def needs_root() -> None:
    """Skip unless uid 0."""
    if os.geteuid() != 0:
        pytest.skip("needs uid 0")
