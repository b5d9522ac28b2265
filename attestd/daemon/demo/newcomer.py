"""Another program of the same user, with the same SDK: to attestd it is somebody else.

It differs from the assistant in this file only, and that is enough. Usage as for assistant.py.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from assistant import main  # type: ignore[import-not-found]

if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:6])))
