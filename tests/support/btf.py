"""Makes BTF, for tests of what reads it."""

from __future__ import annotations

import struct

from attestd.kernel.linux.recorder.btf import Kind

INT, ARRAY = Kind.INT, Kind.ARRAY


class Builder:
    """Types are numbered from 1 in the order in which they are added."""

    def __init__(self) -> None:
        self._texts = bytearray(b"\0")
        self._types = bytearray()
        self._count = 0

    def text(self, name: str) -> int:
        """Offset of a name; 0 for none."""
        if not name:
            return 0
        at = len(self._texts)
        self._texts += name.encode() + b"\0"
        return at

    def add(self, name: str, kind: Kind, value: int, tail: bytes = b"", *, count: int = 0, flag: bool = False) -> int:
        """One type; ``value`` is a size or another type's number."""
        self._types += struct.pack("<III", self.text(name), kind << 24 | count | flag << 31, value) + tail
        self._count += 1
        return self._count

    def composite(self, name: str, kind: Kind, size: int, members: list[tuple[str, int, int]]) -> int:
        """A struct or union; members are name, type, offset in bits."""
        rows = b"".join(struct.pack("<III", self.text(each), type_id, at) for each, type_id, at in members)
        return self.add(name, kind, size, rows, count=len(members))

    def enum(self, name: str, values: list[tuple[str, int]], *, signed: bool = False) -> int:
        """An enum of 32 bits."""
        rows = b"".join(struct.pack("<II", self.text(each), value & 0xFFFFFFFF) for each, value in values)
        return self.add(name, Kind.ENUM, 4, rows, count=len(values), flag=signed)

    def enum64(self, name: str, values: list[tuple[str, int]]) -> int:
        """An enum of 64 bits."""
        rows = b"".join(struct.pack("<III", self.text(each), v & 0xFFFFFFFF, v >> 32) for each, v in values)
        return self.add(name, Kind.ENUM64, 8, rows, count=len(values))

    def bytes(self) -> bytes:
        """The whole."""
        types, texts = bytes(self._types), bytes(self._texts)
        return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(texts)) + types + texts
