"""Verifying an audit log of a million records, as ``attestctl audit verify`` does it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from attestd.audit.log import AuditLogFile, LogLimits
from attestd.audit.protocol import Entry
from tests.bench.report import Figure, failed
from tests.support.instance import SCRIPTS

RECORDS = 1_000_000
NAME = "audit: verify 1 000 000 records"
LIMITS = LogLimits(sync_seconds=0.1, checkpoint_records=10_000, checkpoint_seconds=3600, epoch_records=100_000)


def measure(*, quick: bool) -> list[Figure]:
    """Write decisions and results as a daemon would, then time the command from start to exit."""
    records = RECORDS // 5 if quick else RECORDS
    with tempfile.TemporaryDirectory(prefix="ab-") as directory:
        path = Path(directory, "audit")
        size = write(path, records)
        start = time.perf_counter()
        hashlib.sha256(b"".join(file.read_bytes() for file in path.glob("*") if file.is_file())).digest()
        plain = time.perf_counter() - start
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(SCRIPTS / "attestctl"), "audit", "verify", "--json", "--directory", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - start
    if done.returncode or json.loads(done.stdout)["records"] < records:
        return [failed(NAME, f"verify said: {done.stdout[-200:]} {done.stderr[-200:]}")]
    scale = RECORDS / records
    return [
        Figure(
            name=NAME,
            value=seconds * scale,
            unit="s",
            limit=10,
            parts={"log MB": size * scale / 1e6, "read and sha256 only s": plain * scale},
            note="" if scale == 1 else f"scaled from {records} records",
        )
    ]


def write(path: Path, records: int) -> int:
    """A log of this many records; its bytes."""
    caller, arguments = "ab" * 32, "cd" * 32
    with AuditLogFile(path, "bench.example/host", limits=LIMITS) as log:
        for number in range(records // 2):
            decision = f"0123456789ab.{number}"
            common = {"id": decision, "session": "0123456789ab", "server": "bench", "method": "tools/call"}
            now = time.time_ns()
            log.append(
                Entry(
                    kind="decision",
                    name="echo",
                    caller=caller,
                    verdict="permit",
                    policies=("grant:g-0123456789ab",),
                    generation=1,
                    mode="enforce",
                    args_sha256=arguments,
                    latency_ns=30_000,
                    uid=1000,
                    pid=4242,
                    **common,
                ),
                now,
            )
            log.append(
                Entry(kind="result", caller=caller, verdict="ok", latency_ns=90_000, detail={"bytes": 100}, **common),
                now,
            )
    return sum(file.stat().st_size for file in path.glob("*") if file.is_file())
