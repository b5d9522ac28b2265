"""One wait for signals, children and descriptors."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from attestd.launch import bell


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exited with status 0"),
        (256 * 3, "exited with status 3"),
        (9, "was killed by SIGKILL"),
        (40, "was killed by signal 40"),
    ],
)
def test_a_wait_status_in_words(status: int, text: str) -> None:
    """Exit codes and signals, also those without a name, are told apart."""
    assert bell.describe(status) == text


def test_a_bell_rings_for_children_and_for_the_end() -> None:
    """SIGCHLD wakes the wait without ending anything; SIGTERM also sets the flag."""
    script = (
        "import os,signal\nfrom attestd.launch.bell import Bell\nbell = Bell()\n"
        "os.kill(os.getpid(), signal.SIGCHLD); print(bell.wait((), 10), bell.ended)\n"
        "os.kill(os.getpid(), signal.SIGTERM); print(bell.wait((), 10), bell.ended)\n"
        "r, w = os.pipe(); os.write(w, b'x'); print(bell.wait((r,), 10) == {r}, bell.wait((), 0))\n"
    )
    root = Path(bell.__file__).parents[2]
    out = subprocess.check_output([sys.executable, "-c", script], text=True, cwd=root)
    assert out == "set() False\nset() True\nTrue set()\n"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_children_are_reaped_once() -> None:
    """Who has ended is told with its status, and whether anybody remains; without children nobody does."""
    script = (
        "import os\nfrom attestd.launch.bell import reap\nprint(reap())\n"
        "r, w = os.pipe()\npid = os.fork()\nif not pid: os.close(w); os.read(r, 1); os._exit(3)\nprint(reap())\n"
        "os.close(w); os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT); print(reap() == ({pid: 768}, False))\n"
    )
    root = Path(bell.__file__).parents[2]
    out = subprocess.check_output([sys.executable, "-c", script], text=True, cwd=root)
    assert out == "({}, False)\n({}, True)\nTrue\n"
