"""``python -m tests``: every test, in two processes at once, because most of their time is spent waiting.

One runs what is below ``FIRST``, the other everything else, so that no directory can be forgotten. The second one is
shown as it goes, the first one when it has ended. Exit status: 0 if both are.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

FIRST = ("tests/attacks", "tests/contract", "tests/kernel")


def main() -> int:
    """Run both."""
    command = [sys.executable, "-m", "pytest"]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as shown:
        first = subprocess.Popen([*command, *FIRST], stdout=shown, stderr=subprocess.STDOUT)
        try:
            rest = subprocess.run([*command, *(f"--ignore={place}" for place in FIRST)], check=False)
            status = first.wait()
        finally:
            first.kill()
            first.wait()
        shown.seek(0)
        print(f"\n=== {' '.join(FIRST)}", flush=True)
        sys.stdout.write(shown.read())
        sys.stdout.flush()
    return rest.returncode or status


if __name__ == "__main__":
    sys.exit(main())
