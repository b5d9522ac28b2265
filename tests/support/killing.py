"""SIGKILL at a named step: strace delivers it when a process is about to make its n-th system call of one kind.

The call itself is not made, so "before a step" is also "after the one before it".
"""

from __future__ import annotations

import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

CALLS = (
    "write",
    "pwrite64",
    "fdatasync",
    "fsync",
    "rename",
    "renameat",
    "renameat2",
    "ftruncate",
    "unlink",
    "unlinkat",
)
TRACE = ",".join(CALLS)
_CALL = re.compile(r"(?P<thread>\d+) +(?P<call>\w+)\((?P<rest>.*)")
_WHERE = (
    (r"\.seg\.new", "new segment"),
    (r"\.seg\b", "segment"),
    (r"\.key\.new", "new key"),
    (r"\.key\b", "key"),
    (r"audit\.head\b|<[^>]*/attestd>|<[^>]*/steps>", "high-water mark"),
    (r"/audit/keys>", "directory of keys"),
    (r"vkey", "first key"),
    (r"salt", "salt"),
    (r"/lock>", "lock"),
    (r"/audit>", "directory of segments"),
    (r"\.db-journal|-wal", "journal of the grants"),
    (r"\.db\b|grants", "grants"),
    (r"/said>", "report"),
    (r"socket:|UNIX", "socket"),
)

Step = tuple[str, str]
"""System call, and what it is about."""


def _calls(trace: Path) -> Iterator[tuple[str, str, str]]:
    """Thread, system call and the rest of the line."""
    for line in trace.read_text(encoding="utf-8", errors="replace").split("\n"):
        match = _CALL.match(line)
        if match is not None and match["call"] in CALLS:
            yield match["thread"], match["call"], match["rest"]


def _where(call: str, rest: str) -> str:
    about = rest.split(", ", 1)[0] if call in {"write", "pwrite64"} else rest  # without what is written
    return next((name for pattern, name in _WHERE if re.search(pattern, about)), "")


def ordinals(trace: Path) -> dict[Step, list[int]]:
    """For each step, as the how-manieth call of its kind in its thread it came, ascending."""
    counts: Counter[tuple[str, str]] = Counter()
    found: dict[Step, set[int]] = {}
    for thread, call, rest in _calls(trace):
        counts[thread, call] += 1
        where = _where(call, rest)
        if where:
            found.setdefault((call, where), set()).add(counts[thread, call])
    return {step: sorted(numbers) for step, numbers in found.items()}


def struck(trace: Path, call: str) -> set[Step]:
    """The steps of this kind that the kill cut off: calls that never returned."""
    last = {thread: (name, rest) for thread, name, rest in _calls(trace)}
    cut = [(name, rest) for name, rest in last.values() if rest.endswith(("= ?", "<unfinished ...>"))]
    return {(name, _where(name, rest)) for name, rest in cut if name == call}


def follows(trace: Path, text: str) -> list[Step]:
    """The steps from the first write of ``text`` on, that write among them; empty if it was not written."""
    calls = [(call, rest) for _, call, rest in _calls(trace)]
    first = next((number for number, (call, rest) in enumerate(calls) if call == "write" and text in rest), len(calls))
    return [(call, _where(call, rest)) for call, rest in calls[first:]]


class Kill(NamedTuple):
    """Before the ``when``-th system call of this kind in any one thread; of those about ``path`` if there is one."""

    call: str
    when: int
    path: Path | None = None


def command(trace: Path, kill: Kill | None) -> list[str]:
    """The words before a program or ``-p PID``."""
    inject = ["-e", f"inject={kill.call}:signal=KILL:when={kill.when}"] if kill is not None else []
    inject += ["-P", str(kill.path)] if kill is not None and kill.path is not None else []
    return ["strace", "-f", "-y", "-qq", "-s", "4096", "-o", str(trace), "-e", f"trace={TRACE}", *inject]


def attach(pid: int, trace: Path, kill: Kill | None) -> subprocess.Popen[bytes]:
    """A tracer of every thread of a running process; returns when it holds them all."""
    tracer = subprocess.Popen([*command(trace, kill), "-p", str(pid)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not all(_traced(task) for task in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < deadline, "strace did not attach"
        time.sleep(0.01)
    return tracer


def run(words: Sequence[str], trace: Path, kill: Kill | None, said: Path) -> None:
    """Run a program to its end, whatever that is; ``said`` takes its output."""
    with said.open("wb") as stdout:
        subprocess.run([*command(trace, kill), *words], stdout=stdout, timeout=60, check=False)


def _traced(task: Path) -> bool:
    try:
        return "TracerPid:\t0\n" not in (task / "status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return True  # that thread has ended: there is nothing to hold
