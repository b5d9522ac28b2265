"""What user mode does not protect against, in plain words. ``status`` shows it and its reply carries it."""

from __future__ import annotations

from typing import Final

NOT_PROTECTED: Final = (
    "attestd runs as you: a hostile program of yours can stop it, attach a debugger to it or change its installation",
    "a hostile program of yours can read and change configuration, grants and audit log (audit verify shows it)",
    "servers run as you, so a hostile program of yours can start the same server itself, without attestd between",
    "a client that keeps its own direct entry to a server goes around attestd",
    "approvals are guarded only by the chain of programs that started attestctl, not by a password",
)
