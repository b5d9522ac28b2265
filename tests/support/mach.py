"""Signed Mach-O files for tests: small, of the layout that the linker and codesign make, with any code directory."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

HASHES = {1: "sha1", 2: "sha256", 3: "sha256", 4: "sha384"}


def directory(identity: str, code: bytes, hash_type: int = 2) -> bytes:
    """A CodeDirectory of version 0x20400 with one code slot."""
    name = identity.encode() + b"\0"
    slot = hashlib.new(HASHES[hash_type], code).digest()
    head = 88
    length = head + len(name) + len(slot)
    return (
        struct.pack(
            ">9I4BI",
            0xFADE0C02,
            length,
            0x20400,
            0,
            head + len(name),
            head,
            0,
            1,
            len(code),
            len(slot),
            hash_type,
            0,
            12,
            0,
        )
        + bytes(head - 44)
        + name
        + slot
    )


def cdhash(blob: bytes) -> bytes:
    """The 20 bytes that the kernel names a code directory by."""
    return hashlib.new(HASHES[blob[37]], blob).digest()[:20]


def slice_of(code: bytes, *directories: bytes) -> bytes:
    """One 64-bit Mach-O with a signature of these code directories."""
    slots = [0, *range(0x1000, 0x1005)][: len(directories)]
    at = 12 + 8 * len(directories)
    index, blobs = b"", b""
    for slot, blob in zip(slots, directories, strict=True):
        index += struct.pack(">II", slot, at + len(blobs))
        blobs += blob
    signature = struct.pack(">III", 0xFADE0CC0, at + len(blobs), len(directories)) + index + blobs
    commands = struct.pack("<II16s", 0x1B, 24, b"uuid-of-the-test") + struct.pack(
        "<IIII", 0x1D, 16, 32 + 40 + len(code), len(signature)
    )
    head = struct.pack("<8I", 0xFEEDFACF, 0x0100000C, 0, 2, 2, len(commands), 0, 0)
    return head + commands + code + signature


def universal(*slices: bytes) -> bytes:
    """A fat file of several slices."""
    at = 8 + 20 * len(slices)
    rows, body = b"", b""
    for each in slices:
        rows += struct.pack(">5I", 0x0100000C, 0, at + len(body), len(each), 0)
        body += each
    return struct.pack(">II", 0xCAFEBABE, len(slices)) + rows + body


def write(path: Path, identity: str = "prog", code: bytes = b"\x90" * 64) -> bytes:
    """A signed program at ``path``; its cdhash."""
    blob = directory(identity, code)
    path.write_bytes(slice_of(code, blob))
    path.chmod(0o755)
    return cdhash(blob)
