"""Reads BTF, the type information of BPF objects and of the kernel (Documentation/bpf/btf.rst).

One pass finds where each type begins and what it is called; a type is decoded only when it is asked for, because the
kernel has some 100 000 of them. Every offset is checked: damaged data raises FormatError, never anything else. Chains
of modifiers and nested types are followed to a fixed depth, so a cycle ends.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from attestd.kernel.linux.recorder.elf import text_at
from attestd.kernel.linux.recorder.failures import FormatError

_HEADER = struct.Struct("<HBBIIIII")
_MAGIC = 0xEB9F
_DEPTH_MAX = 32
_POINTER_BYTES = 8


class Kind(IntEnum):
    """BTF_KIND_*; other values are passed over by their size."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


_FIXED: dict[int, int] = {Kind.INT: 4, Kind.ARRAY: 12, Kind.VAR: 4, Kind.DECL_TAG: 4}
_EACH: dict[int, int] = {
    Kind.STRUCT: 12,
    Kind.UNION: 12,
    Kind.ENUM: 8,
    Kind.FUNC_PROTO: 8,
    Kind.DATASEC: 12,
    Kind.ENUM64: 12,
}
_TAIL = tuple(_FIXED.get(kind, 0) for kind in range(32))
_ROW = tuple(_EACH.get(kind, 0) for kind in range(32))
MODIFIERS = frozenset({Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})
COMPOSITE = frozenset({Kind.STRUCT, Kind.UNION})


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of a struct or union; a bit field has ``bits`` > 0."""

    name: str
    type_id: int
    bit_offset: int
    bits: int


@dataclass(frozen=True, slots=True)
class Type:
    """The fixed part of a type: ``size_or_type`` is a size in bytes or the id of another type, by kind."""

    type_id: int
    name_offset: int
    kind: int
    count: int
    flag: bool
    size_or_type: int
    at: int
    """Where the part after the fixed 12 bytes begins."""


class Btf:
    """Types by id. Id 0 is void."""

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size:
            raise FormatError(f"cannot read BTF: it has {len(data)} bytes, the header alone has {_HEADER.size}")
        magic, version, _, header, types_at, types_size, texts_at, texts_size = _HEADER.unpack_from(data)
        if (magic, version) != (_MAGIC, 1) or header < _HEADER.size:
            raise FormatError(f"cannot read BTF: magic {magic:#x} version {version}, expected {_MAGIC:#x} version 1")
        self.raw = data
        self._types = _part(data, header + types_at, types_size, "types")
        self.texts = _part(data, header + texts_at, texts_size, "texts")
        if types_size % 4:
            raise FormatError(f"cannot read BTF: the types have {types_size} bytes, not a multiple of 4")
        self._offsets = self._scan()
        self._by_name: dict[int, list[int]] | None = None

    def __len__(self) -> int:
        return len(self._offsets)

    def _scan(self) -> array[int]:
        """Where each type begins, in words of 4 bytes."""
        words = memoryview(self._types).cast("I")
        offsets = array("I", [0])
        at, end, tail, row = 0, len(words), _TAIL, _ROW
        while at + 3 <= end:
            offsets.append(at)
            info = words[at + 1]
            kind = info >> 24 & 31
            at += 3 + (tail[kind] + row[kind] * (info & 0xFFFF)) // 4
        if at != end:
            raise FormatError(f"cannot read BTF: type {len(offsets) - 1} ends at word {at}, the types have {end}")
        return offsets

    def type(self, type_id: int) -> Type:
        """The type with that id. Raises FormatError."""
        if type_id == 0:
            return Type(0, 0, Kind.VOID, 0, flag=False, size_or_type=0, at=0)
        if not 0 < type_id < len(self._offsets):
            raise FormatError(f"cannot read BTF: there is no type {type_id}, it has {len(self._offsets) - 1}")
        at = self._offsets[type_id] * 4
        name, info, value = struct.unpack_from("<III", self._types, at)
        return Type(
            type_id, name, info >> 24 & 31, info & 0xFFFF, flag=bool(info >> 31), size_or_type=value, at=at + 12
        )

    def name(self, found: Type) -> str:
        """Its name, empty if it has none. Raises FormatError."""
        return text_at(self.texts, found.name_offset) if found.name_offset else ""

    def named(self, name: str, kinds: frozenset[Kind]) -> tuple[Type, ...]:
        """Every type of that exact name and one of those kinds, in the order of the ids."""
        if self._by_name is None:
            self._by_name = self._index()
        wanted = name.encode()
        found: list[int] = []
        at = self.texts.find(b"\0" + wanted + b"\0")
        while at >= 0:
            found += self._by_name.get(at + 1, ())
            at = self.texts.find(b"\0" + wanted + b"\0", at + 1)
        return tuple(each for each in map(self.type, sorted(found)) if each.kind in kinds)

    def _index(self) -> dict[int, list[int]]:
        words = memoryview(self._types).cast("I")
        index: dict[int, list[int]] = {}
        for type_id, at in enumerate(self._offsets):
            name = words[at] if type_id else 0
            if name:
                index.setdefault(name, []).append(type_id)
        return index

    def skip_modifiers(self, type_id: int) -> Type:
        """The type behind typedef, const and their like. Raises FormatError after 32 of them."""
        for _ in range(_DEPTH_MAX):
            found = self.type(type_id)
            if found.kind not in MODIFIERS:
                return found
            type_id = found.size_or_type
        raise FormatError(f"cannot read BTF: type {type_id} is a chain of more than {_DEPTH_MAX} typedefs")

    def members(self, found: Type) -> Iterator[Member]:
        """The members of a struct or union. Raises FormatError."""
        if found.kind not in COMPOSITE:
            raise FormatError(f"cannot read BTF: type {found.type_id} has kind {found.kind} and no members")
        for i in range(found.count):
            name, type_id, offset = struct.unpack_from("<III", self._types, found.at + 12 * i)
            bits = offset >> 24 if found.flag else 0
            at = offset & 0xFFFFFF if found.flag else offset
            yield Member(name=text_at(self.texts, name) if name else "", type_id=type_id, bit_offset=at, bits=bits)

    def array(self, found: Type) -> tuple[int, int]:
        """Element type id and number of elements of an array."""
        element, _, count = struct.unpack_from("<III", self._types, found.at)
        return element, count

    def enumerators(self, found: Type) -> Iterator[tuple[str, int]]:
        """Names and values of an enum. Raises FormatError."""
        wide = found.kind == Kind.ENUM64
        if not wide and found.kind != Kind.ENUM:
            raise FormatError(f"cannot read BTF: type {found.type_id} has kind {found.kind} and no enumerators")
        for i in range(found.count):
            if wide:
                name, low, high = struct.unpack_from("<III", self._types, found.at + 12 * i)
                value = high << 32 | low
            else:
                name, value = struct.unpack_from("<Ii" if found.flag else "<II", self._types, found.at + 8 * i)
            yield text_at(self.texts, name), value

    def size(self, type_id: int, depth: int = 0) -> int:
        """Size of a value in bytes. Raises FormatError for what has none."""
        found = self.skip_modifiers(type_id)
        if found.kind == Kind.PTR:
            return _POINTER_BYTES
        if found.kind == Kind.ARRAY and depth < _DEPTH_MAX:
            element, count = self.array(found)
            return count * self.size(element, depth + 1)
        if found.kind in {Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.FLOAT}:
            return found.size_or_type
        raise FormatError(f"cannot read BTF: type {type_id} has kind {found.kind} and no size")


def _part(data: bytes, at: int, size: int, what: str) -> bytes:
    if at + size > len(data):
        raise FormatError(f"cannot read BTF: its {what} end at byte {at + size}, it has {len(data)}")
    return data[at : at + size]
