"""The private keys of the epochs: one file per key, 0600, and only the current one stays.

1. A new key is on the disk before a checkpoint names it, so a crash in between leaves a key too many, never one too
   few.
2. A key that is no longer current is overwritten and removed. What copy-on-write file systems, snapshots and process
   memory keep is outside of our hands; keep epochs short.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestd.audit.files import names_in, open_directory, read_whole, require_private, write_whole
from attestd.audit.notes import VerifierKey, public_key

_SEED_BYTES = 32
_DIRECTORY = "keys"


class KeyStore:
    """Key files in ``keys/`` under the log's directory."""

    def __init__(self, path: str | os.PathLike[str], origin: str) -> None:
        self._origin = origin
        where = Path(path) / _DIRECTORY
        self._directory = open_directory(where, create=True)
        try:
            require_private(self._directory, str(where))
        except BaseException:
            os.close(self._directory)
            raise

    def create(self) -> tuple[Ed25519PrivateKey, VerifierKey]:
        """A new key, stored durably. Raises OSError."""
        private = Ed25519PrivateKey.generate()
        key = public_key(self._origin, private)
        write_whole(self._directory, _name(key), private.private_bytes_raw())
        return private, key

    def load(self, key: VerifierKey) -> Ed25519PrivateKey | None:
        """The private key of ``key``, or None if it is lost or is not the right one."""
        seed = read_whole(self._directory, _name(key))
        if seed is None or len(seed) != _SEED_BYTES:
            return None
        private = Ed25519PrivateKey.from_private_bytes(seed)
        return private if public_key(self._origin, private) == key else None

    def destroy_others(self, current: VerifierKey) -> None:
        """Overwrite and remove every key file but that of ``current``. Raises OSError."""
        names = [name for name in names_in(self._directory) if name != _name(current)]
        for name in names:
            fd = os.open(name, os.O_WRONLY | os.O_NOFOLLOW, dir_fd=self._directory)
            try:
                os.pwrite(fd, bytes(_SEED_BYTES), 0)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.unlink(name, dir_fd=self._directory)
        if names:
            os.fsync(self._directory)

    def close(self) -> None:
        """Release the directory."""
        os.close(self._directory)


def _name(key: VerifierKey) -> str:
    return f"{key.public.hex()}.key"
