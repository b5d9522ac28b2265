"""The code directory hashes of a Mach-O file: what ties a file to the image that the kernel says is running.

Rules: bytes through an open descriptor, every offset checked against the file's size; a file without a readable
signature has none, nothing is raised for its content. Each slice of a universal file and each code directory of a
slice counts. The hash of a code directory, cut to 20 bytes, is its cdhash. Whoever has a file with the content of a
known program and a process whose cdhash is one of that file's has that program running: the directory holds a hash
of every page, and the kernel enforces it.
Sources: mach-o/fat.h, mach-o/loader.h, osfmk/kern/cs_blobs.h.
"""

from __future__ import annotations

import hashlib
import os
import struct

_FAT, _FAT64 = 0xCAFEBABE, 0xCAFEBABF
_MACHO64 = 0xFEEDFACF
_LC_CODE_SIGNATURE = 0x1D
_SUPERBLOB = 0xFADE0CC0
_DIRECTORY = 0xFADE0C02
_SLOTS = frozenset({0, *range(0x1000, 0x1005)})
_HASHES = {1: "sha1", 2: "sha256", 3: "sha256", 4: "sha384"}
_HASH_TYPE_AT = 37
_CDHASH_BYTES = 20
_MAX_SLICES = 16
_MAX_COMMANDS_BYTES = 1 << 20
_MAX_SIGNATURE_BYTES = 64 << 20
_MAX_BLOBS = 64


def cdhashes(fd: int) -> frozenset[str]:
    """Lower-case hex of every code directory; empty for a file that is no signed 64-bit Mach-O. Raises OSError."""
    size = os.fstat(fd).st_size
    found: set[str] = set()
    for offset, length in _slices(fd, size):
        try:
            found.update(_of_slice(fd, offset, length))
        except struct.error:
            continue
    return frozenset(found)


def _slices(fd: int, size: int) -> list[tuple[int, int]]:
    head = os.pread(fd, 8, 0)
    if len(head) < 8:
        return []
    magic, count = struct.unpack(">II", head)
    if magic not in (_FAT, _FAT64):
        return [(0, size)]
    row = struct.Struct(">IIIII" if magic == _FAT else ">IIQQII")
    table = os.pread(fd, row.size * min(count, _MAX_SLICES), 8)
    rows = [row.unpack_from(table, at) for at in range(0, len(table) - row.size + 1, row.size)]
    return [(int(each[2]), int(each[3])) for each in rows if each[2] + each[3] <= size]


def _of_slice(fd: int, offset: int, length: int) -> list[str]:
    magic, _, _, _, count, commands_bytes, _, _ = struct.unpack("<8I", os.pread(fd, 32, offset))
    if magic != _MACHO64 or commands_bytes > min(length, _MAX_COMMANDS_BYTES):
        return []
    commands = os.pread(fd, commands_bytes, offset + 32)
    at = 0
    for _ in range(count):
        command, size = struct.unpack_from("<II", commands, at)
        if command == _LC_CODE_SIGNATURE:
            where, size = struct.unpack_from("<II", commands, at + 8)
            if where + size > length or size > _MAX_SIGNATURE_BYTES:
                return []
            return _of_signature(os.pread(fd, size, offset + where))
        if size < 8:
            return []
        at += size
    return []


def _of_signature(blob: bytes) -> list[str]:
    magic, _, count = struct.unpack_from(">III", blob)
    if magic != _SUPERBLOB or count > _MAX_BLOBS:
        return []
    found = []
    for number in range(count):
        slot, at = struct.unpack_from(">II", blob, 12 + 8 * number)
        if slot not in _SLOTS:
            continue
        kind, length = struct.unpack_from(">II", blob, at)
        directory = blob[at : at + length]
        if kind != _DIRECTORY or len(directory) != length or length <= _HASH_TYPE_AT:
            continue
        name = _HASHES.get(directory[_HASH_TYPE_AT])
        if name is not None:
            found.append(hashlib.new(name, directory, usedforsecurity=True).hexdigest()[: 2 * _CDHASH_BYTES])
    return found
