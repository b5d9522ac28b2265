"""The kernel recorder: what it costs every process, how fast it answers, and whether a storm gets past it uncounted.

Everything is measured with a recorder of this run's own, in a directory of its own; loading needs root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from attestd.errors import AttestdError
from attestd.kernel.linux.recorder import bpf, pins
from attestd.kernel.linux.recorder.load import LINKS, load
from attestd.kernel.linux.recorder.reader import BpfRecorder
from attestd.kernel.linux.recorder.unload import unload
from attestd.kernel.linux.recorder.words import decode, identity
from tests.bench.report import Figure, unmeasured
from tests.bench.rounds import interleaved, medians
from tests.bench.stage import one_cpu
from tests.support.recorder import eventually, key_of, pin_root, recording

C_SOURCES = Path(__file__).resolve().parents[1] / "support" / "c"
DEPTH = 10
BATCH = 50
_ENABLE_STATS = 32
EXECS = 50
"""Programs that one storm starts, for the cost of a process."""
PAIRS = 10
"""Pairs of storms with and of storms without the recorder, in one round."""
TRUE = shutil.which("true") or "/bin/true"
NEST = """
import subprocess, sys
depth = int(sys.argv[1])
if depth:
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", sys.argv[2], str(depth - 1), sys.argv[2]])
    sys.stdin.read()
    child.wait()
else:
    sys.stdin.read()
"""
NAMES = {
    "lineage": "lineage from the recorder, per level",
    "ratio": "lineage ÷ psutil's, per level",
    "cost": "added cost of one fork, exec and exit",
    "load": "load and attach the recorder",
    "memory": "memory of the recorder's maps",
    "uncounted": "execs of a storm, neither taken nor counted as lost",
    "records": "process records lost in that storm",
}


def measure(*, quick: bool) -> list[Figure]:
    """Every figure, or for each why not."""
    why = unloadable() or ("" if shutil.which("gcc") else "needs gcc")
    if why:
        return [unmeasured(name, why) for name in NAMES.values()]
    with tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as directory:
        program = compiled("storm.c", Path(directory))
        return [
            *_lineage(15 if quick else 60),
            *_cost(program, compiled("nothing.c", Path(directory), "-static"), 5 if quick else 11),
            *_storm(program, 1.0 if quick else 10.0),
        ]


def unloadable() -> str:
    """Why no recorder can be loaded here; empty if one can."""
    if os.geteuid():
        return "needs root"
    try:
        with recording():
            return ""
    except AttestdError as error:
        return error.message


def compiled(source: str, directory: Path, *flags: str) -> Path:
    """A C program of tests/support/c."""
    target = directory / source.removesuffix(".c")
    subprocess.run(["gcc", "-O2", *flags, "-o", str(target), str(C_SOURCES / source)], check=True)
    return target


def _lineage(rounds: int) -> list[Figure]:
    with one_cpu(), recording() as root, nested() as pid:
        reader = BpfRecorder.open(root)
        key = key_of(pid)
        records, parents = reader.lineage(key), psutil.Process(pid).parents()
        if len(records) <= DEPTH:
            raise RuntimeError(f"the recorder knows {len(records)} levels of {DEPTH}")

        def ours() -> None:
            for _ in range(BATCH):
                reader.lineage(key)

        def theirs() -> None:
            psutil.Process(pid).parents()

        times = medians(interleaved(rounds, {"recorder": ours, "psutil": theirs}, clock=time.thread_time), 1e6)
        reader.close()
    each = {"recorder µs": times["recorder"] / BATCH / len(records), "psutil µs": times["psutil"] / (len(parents) + 1)}
    note = f"{len(records)} levels of the recorder, {len(parents) + 1} of psutil"
    return [
        Figure(name=NAMES["lineage"], value=each["recorder µs"], unit="µs", limit=6, note=note, rounds=rounds),
        Figure(
            name=NAMES["ratio"],
            value=each["recorder µs"] / each["psutil µs"],
            unit="×",
            limit=0.1,
            parts=each,
            rounds=rounds,
        ),
    ]


@contextlib.contextmanager
def nested() -> Iterator[int]:
    """The last of a line of ``DEPTH`` living processes that are younger than what was loaded before; its pid."""
    words = [sys.executable, "-I", "-S", "-c", NEST, str(DEPTH - 1), NEST]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as first:
        line = eventually(lambda: [line for line in (_line(first.pid),) if len(line) == DEPTH])
        yield line[0][-1]
        first.communicate()


def _line(pid: int) -> list[int]:
    line = [pid]
    while children := Path(f"/proc/{line[-1]}/task/{line[-1]}/children").read_text(encoding="ascii").split():
        line.append(int(children[0]))
    return line


def _cost(program: Path, nothing: Path, rounds: int) -> list[Figure]:
    """With and without, A B B A within a fifth of a second. CPU time of the storm and its children.

    Other work then counts by what it does to the caches alone, and nearly alike on both: the recorder is loaded once,
    and its programs are attached and detached, which is quick. The events are taken between the storms: a ring that has
    filled up would cost less. The figure is the median of the differences.
    """
    loads, inside, memory = [], [], 0.0

    def spent() -> float:
        words = [str(program), str(EXECS), str(nothing), "storm"]
        pid = os.posix_spawn(words[0], words, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, 1, 0)])
        _, status, usage = os.wait4(pid, 0)
        if status:
            raise RuntimeError(f"the storm ended with status {status}")
        return (usage.ru_utime + usage.ru_stime) * 1e6 / EXECS

    without, recorded = [], []
    with one_cpu(), pin_root() as root:
        for _ in range(rounds):
            start = time.perf_counter()
            load(root)
            loads.append((time.perf_counter() - start) * 1e3)
            unload(root)
        load(root)
        with contextlib.closing(BpfRecorder.open(root)) as reader:
            memory = reader.map_bytes() / (1 << 20)
            for link in LINKS:
                Path(pins.current(root), link).unlink()
            with attached(reader), counting():
                for _ in range(rounds):
                    ran_before = ran(reader)
                    spent()
                    inside.append((ran(reader) - ran_before) / 1e3 / EXECS)
            for _ in range(rounds * PAIRS):
                take(reader)
                early = spent()
                with attached(reader):
                    recorded.append((spent() + spent()) / 2)
                without.append((early + spent()) / 2)
        unload(root)
    return [
        Figure(
            name=NAMES["cost"],
            value=statistics.median(map(float.__sub__, recorded, without)),
            unit="µs",
            limit=15,
            parts={
                "without µs": statistics.median(without),
                "recorded µs": statistics.median(recorded),
                "in the programs, as the kernel counts µs": statistics.median(inside),
            },
            note="CPU time, median of the differences of neighbours",
            rounds=rounds * PAIRS,
        ),
        Figure(
            name=NAMES["load"],
            value=statistics.median(loads),
            unit="ms",
            limit=1000,
            parts={"slowest ms": max(loads)},
            rounds=rounds,
        ),
        Figure(name=NAMES["memory"], value=memory, unit="MiB", limit=32),
    ]


@contextlib.contextmanager
def attached(reader: BpfRecorder) -> Iterator[None]:
    """The programs of fork, exec and exit run, attached in the order in which ``load`` does it."""
    with contextlib.ExitStack() as stack:
        for link in LINKS:
            program = reader._fds[f"program_{link.removeprefix('link_')}"]
            stack.enter_context(bpf.closing(bpf.raw_tracepoint_open(program)))
        yield


@contextlib.contextmanager
def counting() -> Iterator[None]:
    """The kernel counts the time that BPF programs take."""
    with bpf.closing(bpf.call(_ENABLE_STATS, bytes(4))):
        yield


def ran(reader: BpfRecorder) -> int:
    """Nanoseconds that the programs of fork, exec and exit have run, other processes' too."""
    return sum(
        int.from_bytes(bpf.info(fd, 216)[192:200], "little")
        for name, fd in reader._fds.items()
        if name.startswith("program_")
    )


def take(reader: BpfRecorder) -> None:
    """Take the events that wait."""
    with reader._events_lock:
        reader._drain()


class Counted:
    """Stands for the store of words: counts the events of the storm and of everyone else, and keeps none."""

    def __init__(self) -> None:
        self.storm = self.others = 0

    def add(self, data: bytes) -> None:
        """One event."""
        event = decode(data) if identity(data) is not None else None
        if event is not None and event.argv[1:] == (b"storm",):
            self.storm += 1
        else:
            self.others += 1

    def get(self, pid: int, start_ns: int, exec_counter: int) -> None:
        """Nothing is kept."""
        del pid, start_ns, exec_counter


def _storm(program: Path, seconds: float) -> list[Figure]:
    """Execute on every CPU as fast as it goes, with the reader taking events beside it."""
    with recording() as root:
        reader = BpfRecorder.open(root)
        counted = Counted()
        with reader._events_lock:
            reader._store = counted  # type: ignore[assignment]
        before, start = reader.losses(), time.monotonic()
        executed = 0
        while time.monotonic() - start < seconds:
            words = [str(program), "1000", TRUE, "storm"]
            running = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(os.cpu_count() or 1)]
            executed += sum(int(each.communicate()[0]) for each in running)
        took = time.monotonic() - start
        take(reader)
        losses = reader.losses()
        reader.close()
    lost = losses.exec_events - before.exec_events
    parts = {
        "execs": float(executed),
        "execs/s": executed / took,
        "taken": float(counted.storm),
        "lost": float(lost),
        "of other programs": float(counted.others),
    }
    return [
        Figure(
            name=NAMES["uncounted"],
            value=float(max(0, executed - counted.storm - lost)),
            unit="",
            limit=0,
            parts=parts,
            note=f"{seconds:g} s on {os.cpu_count()} CPUs",
        ),
        Figure(
            name=NAMES["records"],
            value=float(losses.fork_events - before.fork_events),
            unit="",
            limit=0,
            parts={"execs": float(executed)},
        ),
    ]
