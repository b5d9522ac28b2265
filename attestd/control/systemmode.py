"""What a system installation does not protect against, in plain words. ``status`` shows it and its reply carries it."""

from __future__ import annotations

from typing import Final

SYSTEM_NOT_PROTECTED: Final = (
    "root, and whoever may become root without a password (an agent with sudo), can do everything that attestd can",
    "a server that somebody else started, on a socket or port, can be reached around attestd unless it is sealed",
    "a client that keeps its own direct entry to a server goes around attestd",
    "a hostile program of yours can debug or feed your own clients, as far as the kernel lets it",
    "a password that is typed into a terminal can be read by what drives that terminal, and typed again by it",
)
