"""What this macOS offers, probed by using it on ourselves, never by version."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from attestd.evidence.protocol import Feature
from attestd.kernel.darwin import abi
from attestd.kernel.darwin.libsystem import System

_UPGRADE = "use macOS 15 or later"


def probe(system: System) -> tuple[Feature, ...]:
    """Every feature that evidence depends on, and the one that macOS does not have."""
    us = os.getpid()

    def version() -> int:
        return system.unique(us).version

    return (
        _probed("peer_token", lambda: _token(system), "no caller can be attested"),
        _probed("unique_ids", version, "no caller can be attested"),
        _parent_version(system, us),
        _probed("code_signing_status", lambda: system.signed(us, version(), abi.CS_OPS_STATUS, 4), "levels end at 0"),
        _probed(
            "validation_category",
            lambda: system.signed(us, version(), abi.CS_OPS_VALIDATION_CATEGORY, 4),
            "only Apple's own programs have a verified signer, the others end at level 2",
        ),
        _probed("process_events", lambda: _events(system, us), "no caller can be attested"),
        _probed(
            "other_users",
            lambda: system.full(1),
            "start time, terminal and words of other users' processes are unreadable",
            "run as the system service",
        ),
        Feature(
            name="message_writer",
            present=False,
            detail="macOS does not name the writer of a message, only the last user of the socket",
            remedy="none; docs/macos.md says what follows",
        ),
    )


def _probed(name: str, use: Callable[[], object], without: str, remedy: str = _UPGRADE) -> Feature:
    try:
        use()
    except OSError as error:
        return Feature(name=name, present=False, detail=f"{error.strerror or error}: {without}".lower(), remedy=remedy)
    return Feature(name=name, present=True, detail="works")


def _token(system: System) -> None:
    left, right = socket.socketpair()
    with left, right:
        system.token(left.fileno())


def _parent_version(system: System, us: int) -> Feature:
    name = "original_parent"
    try:
        present = system.unique(us).parent_version != 0
    except OSError:
        present = False
    detail = "works" if present else "not told: every child of launchd counts as an orphan"
    return Feature(name=name, present=present, detail=detail, remedy="" if present else _UPGRADE)


def _events(system: System, us: int) -> None:
    kq = system.events()
    try:
        system.watch(kq, us)
    finally:
        os.close(kq)
