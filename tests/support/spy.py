"""Runs a server and notes every line that reaches it, byte for byte. Usage: spy.py LOG COMMAND..."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

with Path(sys.argv[1]).open("ab", buffering=0) as log:
    child = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, bufsize=0)
    assert child.stdin is not None
    while line := sys.stdin.buffer.readline():
        log.write(line)
        child.stdin.write(line)
    child.stdin.close()
    sys.exit(child.wait())
