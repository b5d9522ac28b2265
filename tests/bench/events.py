"""The fallback, process events: it keeps up with whatever one process can fork, or counts what it lost."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from attestd.errors import AttestdError
from attestd.kernel.linux.connector.recorder import ConnectorRecorder
from tests.bench.recorder import compiled
from tests.bench.report import Figure, unmeasured

NAMES = {
    "uncounted": "forks of a storm, neither read by the fallback nor counted as lost",
    "lost": "events that the fallback lost in that storm",
    "cpu": "CPU time of the fallback for one fork and exit",
}


def measure(*, quick: bool) -> list[Figure]:
    """One process forks as fast as it can while the fallback follows."""
    try:
        recorder = ConnectorRecorder()
    except AttestdError as error:
        return [unmeasured(name, error.message) for name in NAMES.values()]
    with contextlib.closing(recorder), tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as directory:
        if shutil.which("gcc") is None:
            return [unmeasured(name, "needs gcc") for name in NAMES.values()]
        program = compiled("forks.c", Path(directory))
        return _storm(recorder, program, 1000 if quick else 5000)


def _storm(recorder: ConnectorRecorder, program: Path, milliseconds: int) -> list[Figure]:
    table = recorder._table
    seen: dict[int, int] = {}
    original = table.fork

    def fork(time_ns: int, parent: int, tid: int, pid: int) -> None:
        if tid == pid:
            seen[parent] = seen.get(parent, 0) + 1
        original(time_ns, parent, tid, pid)

    table.fork = fork  # type: ignore[method-assign]
    before = recorder.losses()
    start, used = time.monotonic(), _cpu()
    with subprocess.Popen([str(program), str(milliseconds)], stdout=subprocess.PIPE) as storm:
        text = storm.communicate()[0]
    took = time.monotonic() - start
    losses = recorder.losses()
    used = _cpu() - used
    forks, heard = int(text), seen.get(storm.pid, 0)
    lost = losses.unknown_events - before.unknown_events
    parts = {"forks": float(forks), "forks/s": forks / took, "read": float(heard)}
    note = "as root" if os.geteuid() == 0 else "as an ordinary user, whose buffer is small"
    return [
        Figure(
            name=NAMES["uncounted"], value=float(max(0, forks - heard - lost)), unit="", limit=0, parts=parts, note=note
        ),
        Figure(name=NAMES["lost"], value=float(lost), unit="", limit=None, parts=parts),
        Figure(name=NAMES["cpu"], value=used * 1e6 / forks, unit="µs", limit=None),
    ]


def _cpu() -> float:
    """Of this process, seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
