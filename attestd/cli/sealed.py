"""Servers that a daemon which is away may have left sealed, as far as its state file tells."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from attestd.control.replies import Check


class _Seal(msgspec.Struct, frozen=True):
    server: str
    port: int


def left_sealed() -> Iterator[Check]:
    """A warning for each server that is named in the state of this user's instance or of the system's."""
    own = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    for directory in (own / "attestd", Path("/var/lib/attestd")):
        try:
            seals = msgspec.json.decode((directory / "seals.json").read_bytes(), type=tuple[_Seal, ...])
        except (OSError, msgspec.MsgspecError):
            continue
        for seal in seals:
            yield Check(
                name=f"seal {seal.server}",
                status="warn",
                detail=f"port {seal.port} may be sealed: without its daemon, every connection there is refused",
                remedy="start attestd again; or open it, as root: attestd unseal --all",
            )
