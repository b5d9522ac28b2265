"""A recorder of a test's own: pinned in a directory of its own, gone when the context is left."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from attestd.errors import NothingToDoError
from attestd.evidence.recorder import ProcessKey
from attestd.kernel.linux.recorder.load import load
from attestd.kernel.linux.recorder.unload import unload

_number = itertools.count()


@contextlib.contextmanager
def pin_root() -> Iterator[str]:
    """A directory name in the BPF file system; whatever is loaded there is unloaded at the end."""
    root = f"/sys/fs/bpf/attestd-test-{os.getpid()}-{next(_number)}"
    try:
        yield root
    finally:
        with contextlib.suppress(NothingToDoError):
            unload(root)


@contextlib.contextmanager
def recording(**options: Any) -> Iterator[str]:
    """A loaded recorder: where it is pinned."""
    with pin_root() as root:
        load(root, **options)
        yield root


def key_of(pid: int) -> ProcessKey:
    """The key of a living process, as /proc shows it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return ProcessKey(pid, int(fields[19]) * 10_000_000)


def compiled(source: str, directory: Path, *, name: str = "program") -> Path:
    """A C program of tests/support/c, or skip where there is no compiler."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc")
    target = directory / name
    subprocess.run([gcc, "-O1", "-o", target, Path(__file__).parent / "c" / source], check=True)
    return target


def eventually(read: Callable[[], Any], seconds: float = 10) -> Any:
    """The first answer of ``read`` that is not None or False."""
    deadline = time.monotonic() + seconds
    while True:
        answer = read()
        if answer:
            return answer
        if time.monotonic() > deadline:
            pytest.fail(f"did not happen within {seconds} s: {read}")
        time.sleep(0.005)
