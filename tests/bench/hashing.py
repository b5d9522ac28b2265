"""The first hash of a 100 MB binary, beside openssl's."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from attestd.kernel.linux.files import FileReader
from tests.bench.report import Figure, failed
from tests.bench.rounds import interleaved, medians
from tests.bench.stage import installed

NAME = "first hash of a 100 MB binary ÷ openssl dgst -sha256"
BYTES = 100_000_000


def measure(*, quick: bool) -> list[Figure]:
    """A new reader each time, so nothing is remembered; the page cache is warm for both."""
    openssl = installed("openssl")
    if openssl is None:
        return [failed(NAME, "openssl is not installed")]
    with tempfile.TemporaryDirectory(prefix="ab-") as directory:
        path = Path(directory, "binary")
        path.write_bytes(os.urandom(1 << 20) * (BYTES >> 20) + bytes(BYTES % (1 << 20)))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()

        def ours() -> None:
            reader = FileReader()
            fd = reader.open_regular(str(path))
            try:
                if reader.facts(fd, str(path), os.getuid(), ()).sha256 != digest:
                    raise RuntimeError("attestd computed another digest")
            finally:
                os.close(fd)

        def theirs() -> None:
            done = subprocess.run([openssl, "dgst", "-sha256", str(path)], capture_output=True, check=True)
            if digest.encode() not in done.stdout:
                raise RuntimeError("openssl computed another digest")

        rounds = 9 if quick else 31
        parts = medians(interleaved(rounds, {"attestd ms": ours, "openssl ms": theirs}), 1e3)
    value = parts["attestd ms"] / parts["openssl ms"]
    return [Figure(name=NAME, value=value, unit="×", limit=1.2, parts=parts, rounds=rounds)]
