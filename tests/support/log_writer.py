"""A process that writes an audit log whose checkpoints, epochs and segments are so small that each comes several times.

Usage: log_writer.py DIRECTORY          prints the sequence number of each record once it is appended
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from attestd.audit.log import AuditLogFile, LogLimits
from attestd.audit.protocol import Entry

ORIGIN = "attestd.test/steps"
RECORDS = 40
"""At least."""
LIMITS = LogLimits(sync_seconds=0.001, checkpoint_records=4, epoch_records=8, segment_bytes=4096)
START_NS = 1_800_000_000_000_000_000


def main(root: Path) -> None:
    """Write and close."""
    log = AuditLogFile(root / "audit", ORIGIN, high_water=root / "audit.head", limits=LIMITS)
    (first,) = (root / "audit" / "keys").iterdir()
    second = root / "audit" / "00000001.seg"
    number = -1
    while number < RECORDS or first.exists() or not second.exists():  # what the committer does, it does in its own time
        number += 1
        time.sleep(0.001 if number >= RECORDS else 0)
        seq = log.append(Entry(kind="decision", id=f"d{number}", verdict="permit"), START_NS + number)
        os.write(1, b"%d\n" % seq)
        if number % 3 == 0:
            log.sync_now()
    log.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
