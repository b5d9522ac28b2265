"""Which servers are sealed, kept over restarts: ``seals.json`` in the state directory.

The kernel has the seals while they are in force; this file says what to seal again after a stop or a boot. It is
written before the kernel is asked to seal, and after it has opened, so it never names too little.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from attestd.errors import ConfigurationError

How = Literal["redirect", "refuse"]


class Seal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One sealed server."""

    server: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    how: How
    """What becomes of direct connections: they arrive at attestd, or they are refused."""


def load_seals(path: Path) -> tuple[Seal, ...]:
    """What the file names; nothing if there is none. Raises ConfigurationError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=tuple[Seal, ...])
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.MsgspecError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"cannot read {path}: {reason}",
            hint="remove the file if you seal again afterwards; what the kernel has sealed stays sealed",
        ) from error


def store_seals(path: Path, seals: tuple[Seal, ...]) -> None:
    """Name exactly these, whole or not at all. Raises ConfigurationError."""
    temporary = path.with_suffix(".new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(seals))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
