"""The high-water mark: the last checkpoint, kept in a second place, so that a cut or replaced log is found.

The file holds the signed checkpoint itself, so it also is evidence to show to others. Keep it where who can write the
log's directory cannot write.
"""

from __future__ import annotations

import os
from pathlib import Path

from attestd.audit.files import read_whole, write_whole
from attestd.audit.model import Head
from attestd.audit.notes import read_checkpoint
from attestd.errors import ConfigurationError, IntegrityError


def write_high_water(path: Path, note: str) -> None:
    """Replace the mark durably. Raises OSError."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        write_whole(directory, path.name, note.encode())
    finally:
        os.close(directory)


def read_high_water(path: Path) -> Head | None:
    """The mark, or None if there is none yet. Raises IntegrityError if it is no checkpoint, ConfigurationError."""
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            data = read_whole(directory, path.name)
        finally:
            os.close(directory)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the high-water mark {path}: {error.strerror}", hint="name a file in an existing directory"
        ) from error
    if data is None:
        return None
    return head_of_note(data, str(path))


def head_of_note(data: bytes, what: str) -> Head:
    """The head that a checkpoint states; its signature is not verified. Raises IntegrityError."""
    try:
        checkpoint = read_checkpoint(data.decode())
    except (UnicodeDecodeError, IntegrityError) as error:
        hint = "restore the file, or look who changed it"
        raise IntegrityError(f"cannot read the checkpoint in {what}: {error}", hint=hint) from None
    return Head(size=checkpoint.size, chain=checkpoint.chain.hex(), root=checkpoint.root.hex())
