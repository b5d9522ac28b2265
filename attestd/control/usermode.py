"""What user mode does not protect against, in plain words. ``status`` shows it and its reply carries it."""

from __future__ import annotations

import sys
from typing import Final

_MACOS: Final = (
    "a program that a server starts in a session of its own outlives the server: macOS ties no process to its parent",
    "a program that writes on a client's own connection is seen only if it was the last to use it before we looked",
)
NOT_PROTECTED: Final[tuple[str, ...]] = (
    "attestd runs as you: a hostile program of yours can stop it, attach a debugger to it or change its installation",
    "a hostile program of yours can read and change configuration, grants and audit log (audit verify shows it)",
    "servers run as you, so a hostile program of yours can start the same server itself, without attestd between",
    "a client that keeps its own direct entry to a server goes around attestd",
    "approvals are guarded only by the chain of programs that started attestctl, not by a password",
    *(_MACOS if sys.platform == "darwin" else ()),
)
