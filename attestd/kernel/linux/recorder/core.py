"""CO-RE: fits a BPF object to the running kernel by its type information (Documentation/bpf/llvm_reloc.rst).

An instruction that was compiled for one layout of a structure is rewritten for the layout that the kernel says it
has. A field is found by the names on the way to it, through anonymous structs and unions; ``name___flavour`` stands
for ``name``. A question ("does this field exist?") becomes 0 or 1. An instruction that needs what the kernel lacks is
replaced by a call that the verifier rejects, so it may only stand where a question keeps it from being reached.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from attestd.kernel.linux.recorder.btf import COMPOSITE, Btf, Kind, Type
from attestd.kernel.linux.recorder.elf import text_at
from attestd.kernel.linux.recorder.failures import FormatError

_EXT_HEADER = struct.Struct("<HBBI")
_RECORD = struct.Struct("<IIII")
_MAGIC = 0xEB9F
_CORE_AT = 24
_DEPTH_MAX = 16
_POISON = struct.pack("<BBhi", 0x85, 0, 0, 195896080)  # a helper that does not exist; the number libbpf uses
_FIELD_OFFSET, _FIELD_SIZE, _FIELD_EXISTS = 0, 1, 2
_TYPE_EXISTS, _TYPE_SIZE, _ENUM_EXISTS, _ENUM_VALUE = 8, 9, 10, 11
_QUESTIONS = frozenset({_FIELD_EXISTS, _TYPE_EXISTS, _ENUM_EXISTS})
_ENUMS = frozenset({Kind.ENUM, Kind.ENUM64})
_ROOTS = COMPOSITE | _ENUMS | {Kind.TYPEDEF, Kind.INT}
_SCALARS = frozenset({Kind.INT, Kind.PTR, Kind.ENUM, Kind.ENUM64})
_LD, _LDX, _ST, _STX, _ALU, _ALU64 = 0, 1, 2, 3, 4, 7
_LD_IMM64 = 0x18


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreRelocation:
    """One instruction that depends on the layout of a type."""

    section: str
    offset: int
    type_id: int
    access: str
    kind: int


@dataclass(frozen=True, slots=True)
class _Place:
    """A field: where it begins, in bits, and its type."""

    bits: int
    type_id: int


def relocations(data: bytes, btf: Btf) -> tuple[CoreRelocation, ...]:
    """The CO-RE relocations of a ``.BTF.ext`` section. Raises FormatError."""
    if len(data) < _CORE_AT + 8:
        raise FormatError(f"cannot read BTF.ext: it has {len(data)} bytes, expected {_CORE_AT + 8} or more")
    magic, version, _, header = _EXT_HEADER.unpack_from(data)
    if (magic, version) != (_MAGIC, 1) or header < _CORE_AT + 8:
        raise FormatError(f"cannot read BTF.ext: magic {magic:#x} version {version} with a header of {header} bytes")
    at, size = struct.unpack_from("<II", data, _CORE_AT)
    part = data[header + at : header + at + size]
    if len(part) != size:
        raise FormatError(f"cannot read BTF.ext: relocations end at byte {header + at + size}, it has {len(data)}")
    return tuple(_records(part, btf)) if part else ()


def _records(part: bytes, btf: Btf) -> Iterator[CoreRelocation]:
    if len(part) < 4 or int.from_bytes(part[:4], "little") != _RECORD.size:
        raise FormatError(f"cannot read BTF.ext: relocations begin with {part[:4].hex()}, expected records of 16 bytes")
    at = 4
    while at < len(part):
        if at + 8 > len(part):
            raise FormatError(f"cannot read BTF.ext: relocations of a section begin at byte {at} of {len(part)}")
        name, count = struct.unpack_from("<II", part, at)
        at += 8
        if at + count * _RECORD.size > len(part):
            raise FormatError(f"cannot read BTF.ext: {count} relocations at byte {at} of {len(part)}")
        section = text_at(btf.texts, name)
        for _ in range(count):
            offset, type_id, access, kind = _RECORD.unpack_from(part, at)
            at += _RECORD.size
            yield CoreRelocation(
                section=section, offset=offset, type_id=type_id, access=text_at(btf.texts, access), kind=kind
            )


class Fitter:
    """Fits the instructions of one object to one kernel. ``absent``: fields and enumerators to do without."""

    def __init__(self, local: Btf, kernel: Btf, absent: frozenset[str] = frozenset()) -> None:
        self._local = local
        self._kernel = kernel
        self._absent = absent
        self._known: dict[tuple[int, str, int], int | None] = {}

    def fit(self, code: bytearray, each: CoreRelocation) -> None:
        """Rewrite one instruction of ``code``. Raises FormatError."""
        wide = each.offset + 8 <= len(code) and code[each.offset] == _LD_IMM64
        if each.offset % 8 or each.offset + (16 if wide else 8) > len(code):
            raise FormatError(f"cannot relocate {each.section!r}: byte {each.offset} is no instruction of {len(code)}")
        value = self.value(each)
        if value is None:
            code[each.offset : each.offset + 8] = _POISON
            if wide:
                code[each.offset + 8 : each.offset + 16] = _POISON
            return
        _patch(code, each, value)

    def value(self, each: CoreRelocation) -> int | None:
        """What the kernel answers: an offset or size in bytes, 0 or 1, an enumerator; None if it lacks it."""
        key = (each.type_id, each.access, each.kind)
        if key not in self._known:
            self._known[key] = self._answer(each)
        return self._known[key]

    def _answer(self, each: CoreRelocation) -> int | None:
        local = self._local.type(each.type_id)
        name = self._local.name(local).split("___", 1)[0]
        kinds = _ENUMS if local.kind in _ENUMS else _ROOTS - _ENUMS
        targets = self._kernel.named(name, kinds) if name and name not in self._absent else ()
        if each.kind in {_TYPE_EXISTS, _TYPE_SIZE}:
            found = [1 if each.kind == _TYPE_EXISTS else self._kernel.size(target.type_id) for target in targets]
        elif each.kind in {_ENUM_EXISTS, _ENUM_VALUE}:
            found = self._enumerators(local, targets, each)
        elif each.kind in {_FIELD_OFFSET, _FIELD_SIZE, _FIELD_EXISTS}:
            found = self._fields(local, targets, each)
        else:
            raise FormatError(f"cannot relocate {each.section!r}: relocation kind {each.kind} is not known")
        if not found:
            return 0 if each.kind in _QUESTIONS else None
        if len(set(found)) > 1:
            raise FormatError(f"cannot relocate {each.section!r}: {name} is ambiguous in this kernel, it gives {found}")
        return found[0]

    def _enumerators(self, local: Type, targets: tuple[Type, ...], each: CoreRelocation) -> list[int]:
        rows = list(self._local.enumerators(local))
        index = _indices(each)[0]
        if index >= len(rows):
            raise FormatError(f"cannot relocate {each.section!r}: enumerator {index} of {len(rows)}")
        wanted = rows[index][0].split("___", 1)[0]
        values = [value for target in targets for name, value in self._kernel.enumerators(target) if name == wanted]
        if wanted in self._absent:
            return []
        return [1] * bool(values) if each.kind == _ENUM_EXISTS else values

    def _fields(self, local: Type, targets: tuple[Type, ...], each: CoreRelocation) -> list[int]:
        steps, here = self._steps(local, each)
        if any(step in self._absent for step in steps):
            return []
        places = [place for place in (self._walk(target, steps) for target in targets) if place is not None]
        if each.kind == _FIELD_EXISTS:
            return [1] * bool(places)
        for place in places:
            self._same_size(here, place.type_id, f"{self._local.name(local)}.{'.'.join(map(str, steps))}")
        if each.kind == _FIELD_SIZE:
            return [self._kernel.size(place.type_id) for place in places]
        return [place.bits // 8 for place in places]

    def _steps(self, local: Type, each: CoreRelocation) -> tuple[list[str | int], int]:
        """The names and array indices that lead to the field in the object's own type, and the field's type."""
        first, *rest = _indices(each)
        if first:
            raise FormatError(f"cannot relocate {each.section!r}: access {each.access!r} begins beyond the type")
        steps: list[str | int] = []
        type_id = local.type_id
        for index in rest:
            here = self._local.skip_modifiers(type_id)
            if here.kind == Kind.ARRAY:
                type_id, _ = self._local.array(here)
                steps.append(index)
                continue
            members = list(self._local.members(here))
            if index >= len(members):
                raise FormatError(f"cannot relocate {each.section!r}: member {index} of {len(members)}")
            type_id = members[index].type_id
            if members[index].name:
                steps.append(members[index].name)
        return steps, type_id

    def _walk(self, target: Type, steps: list[str | int]) -> _Place | None:
        place = _Place(0, target.type_id)
        for step in steps:
            here = self._kernel.skip_modifiers(place.type_id)
            if isinstance(step, int):
                if here.kind != Kind.ARRAY:
                    return None
                element, count = self._kernel.array(here)
                if step >= count:
                    return None
                place = _Place(place.bits + 8 * step * self._kernel.size(element), element)
                continue
            found = self._member(here, step, 0)
            if found is None:
                return None
            place = _Place(place.bits + found.bits, found.type_id)
        return place

    def _member(self, here: Type, name: str, depth: int) -> _Place | None:
        if here.kind not in COMPOSITE or depth > _DEPTH_MAX:
            return None
        for member in self._kernel.members(here):
            if member.name == name:
                return _Place(member.bit_offset, member.type_id) if not member.bits else None
            if not member.name:
                inner = self._member(self._kernel.skip_modifiers(member.type_id), name, depth + 1)
                if inner is not None:
                    return _Place(member.bit_offset + inner.bits, inner.type_id)
        return None

    def _same_size(self, local_id: int, kernel_id: int, what: str) -> None:
        """A plain value must be as wide as it was compiled for."""
        if self._local.skip_modifiers(local_id).kind not in _SCALARS:
            return
        expected, got = self._local.size(local_id), self._kernel.size(kernel_id)
        if expected != got:
            raise FormatError(f"cannot read {what}: it has {got} bytes in this kernel, expected {expected}")


def _indices(each: CoreRelocation) -> list[int]:
    parts = each.access.split(":")
    if len(parts) > _DEPTH_MAX or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise FormatError(f"cannot relocate {each.section!r}: access {each.access!r} is not a list of numbers")
    return [int(part) for part in parts]


def _patch(code: bytearray, each: CoreRelocation, value: int) -> None:
    at, kind = each.offset, code[each.offset] & 7
    if kind in {_LDX, _ST, _STX} and 0 <= value < 1 << 15:
        struct.pack_into("<h", code, at + 2, value)
    elif kind in {_ALU, _ALU64} and 0 <= value < 1 << 31:
        struct.pack_into("<i", code, at + 4, value)
    elif code[at] == _LD_IMM64:
        struct.pack_into("<I", code, at + 4, value & 0xFFFFFFFF)
        struct.pack_into("<I", code, at + 12, value >> 32 & 0xFFFFFFFF)
    else:
        raise FormatError(f"cannot relocate {each.section!r}: value {value} does not fit instruction {code[at]:#x}")
