"""``python -m tests``: every test, in one process more than there are processors, because most of their time is waiting.

Words after it go to pytest.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    workers = 1 + (os.cpu_count() or 1)
    os.execv(
        sys.executable, [sys.executable, "-m", "pytest", "-p", "tests.sharing", f"--workers={workers}", *sys.argv[1:]]
    )
