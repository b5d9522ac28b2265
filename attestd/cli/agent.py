"""Somebody who can ask for a password: polkit's own agent for terminals, for as long as one question takes.

The daemon asks polkit, polkit asks an agent of the person: that of a desktop session where there is one. Without one,
``pkttyagent`` is started for this very process and asks on this terminal; the password goes to polkit, never to
attestctl or attestd. It is not a fallback agent (``--fallback``): polkit has said already that there is no other, and
it looks for fallbacks in login sessions only.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

AGENT: Final = Path("/usr/bin/pkttyagent")
REGISTERED_S: Final = 10.0
ENDED_S: Final = 5.0


@contextlib.contextmanager
def terminal_agent(program: Path = AGENT) -> Iterator[bool]:
    """Run the agent; whether polkit knows it. False: there is no terminal or no agent, or polkit does not take it."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()) or not program.is_file():
        yield False
        return
    told, tells = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 - a fixed program
            [program, "--process", f"{os.getpid()},{_start()}", "--notify-fd", str(tells)],
            pass_fds=(tells,),
        )
    finally:
        os.close(tells)
    try:
        yield _registered(told, process)
    finally:
        os.close(told)
        process.terminate()
        try:
            process.wait(ENDED_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _registered(told: int, process: subprocess.Popen[bytes]) -> bool:
    """The agent closes its end once polkit has taken it.

    It does so too when it ends; the daemon then says again that there is none.
    """
    ready, _, _ = select.select([told], [], [], REGISTERED_S)
    return bool(ready) and process.poll() is None


def _start() -> int:
    """When this process started, in clock ticks since boot: a pid may be reused, both together are not."""
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[19])
