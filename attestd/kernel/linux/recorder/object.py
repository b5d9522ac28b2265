"""What a BPF object contains: programs by their sections, maps by their declarations, and the licence.

Maps are declared as clang writes them for libbpf: a variable in ``.maps`` whose struct has members ``type``,
``max_entries`` and ``map_flags`` (pointers to arrays, the number of elements being the value) and ``key`` and
``value`` (pointers to the types).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from attestd.kernel.linux.recorder import core, elf
from attestd.kernel.linux.recorder.btf import Btf, Kind, Type
from attestd.kernel.linux.recorder.failures import FormatError

_FUNC, _OBJECT = 2, 1
_LD_IMM64 = 0x18
_ENTRIES_MAX = 1 << 28
_NUMBERS = {"type", "max_entries", "map_flags"}
_TYPES = {"key", "value"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSpec:
    """A declared map; sizes in bytes."""

    name: str
    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program: instructions as compiled, and the places that refer to maps."""

    name: str
    section: str
    code: bytes
    maps: tuple[tuple[int, str], ...]
    """Byte offset of a 16-byte load, name of the map."""
    relocations: tuple[core.CoreRelocation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BpfObject:
    """One parsed object; ``build`` is the SHA-256 of the file."""

    programs: tuple[Program, ...]
    maps: tuple[MapSpec, ...]
    btf: Btf
    licence: str
    build: bytes

    def program(self, name: str) -> Program:
        """The program of that name. Raises FormatError."""
        for program in self.programs:
            if program.name == name:
                return program
        raise FormatError(f"cannot find program {name!r} in the object, it has {[each.name for each in self.programs]}")


def parse(data: bytes) -> BpfObject:
    """Read an object. Raises FormatError."""
    file = elf.parse(data)
    btf = Btf(file.section(".BTF").data)
    fits = core.relocations(file.section(".BTF.ext").data, btf)
    maps_section = file.section(".maps").index
    programs = tuple(
        _program(file, symbol, maps_section, fits)
        for symbol in file.symbols
        if symbol.kind == _FUNC and 0 < symbol.section < len(file.sections)
    )
    names = [symbol.name for symbol in file.symbols if symbol.section == maps_section and symbol.kind == _OBJECT]
    return BpfObject(
        programs=programs,
        maps=tuple(_map(btf, name) for name in names),
        btf=btf,
        licence=file.section("license").data.rstrip(b"\0").decode("ascii", "replace"),
        build=hashlib.sha256(data).digest(),
    )


def _program(file: elf.Elf, symbol: elf.Symbol, maps_section: int, fits: tuple[core.CoreRelocation, ...]) -> Program:
    section = file.sections[symbol.section]
    if symbol.value or symbol.size != len(section.data) or not symbol.size or symbol.size % 8:
        raise FormatError(
            f"cannot read program {symbol.name!r}: bytes {symbol.value} to {symbol.value + symbol.size} of section "
            f"{section.name!r} of {len(section.data)}, expected one program that fills its section"
        )
    maps = []
    for relocation in file.relocations.get(section.index, ()):
        at = relocation.offset
        if (
            relocation.symbol.section != maps_section
            or at % 8
            or at + 16 > symbol.size
            or section.data[at] != _LD_IMM64
        ):
            raise FormatError(f"cannot read program {symbol.name!r}: byte {at} does not load the address of a map")
        maps.append((at, relocation.symbol.name))
    return Program(
        name=symbol.name,
        section=section.name,
        code=section.data,
        maps=tuple(maps),
        relocations=tuple(each for each in fits if each.section == section.name),
    )


def _map(btf: Btf, name: str) -> MapSpec:
    variables = btf.named(name, frozenset({Kind.VAR}))
    if len(variables) != 1:
        raise FormatError(f"cannot read map {name!r}: BTF has {len(variables)} variables of that name, expected 1")
    declared = btf.skip_modifiers(variables[0].size_or_type)
    values: dict[str, int] = {}
    for member in btf.members(declared):
        if member.name in _NUMBERS:
            array = _pointee(btf, member.type_id, name)
            if array.kind != Kind.ARRAY:
                raise FormatError(f"cannot read map {name!r}: {member.name} is not declared by an array")
            values[member.name] = btf.array(array)[1]
        elif member.name in _TYPES:
            values[member.name] = btf.size(_pointee(btf, member.type_id, name).type_id)
        else:
            raise FormatError(f"cannot read map {name!r}: it declares {member.name!r}, which is not known")
    if "type" not in values or values.get("max_entries", 0) > _ENTRIES_MAX:
        raise FormatError(f"cannot read map {name!r}: it declares {values}")
    return MapSpec(
        name=name,
        kind=values["type"],
        key_size=values.get("key", 0),
        value_size=values.get("value", 0),
        max_entries=values.get("max_entries", 0),
        flags=values.get("map_flags", 0),
    )


def _pointee(btf: Btf, type_id: int, name: str) -> Type:
    pointer = btf.skip_modifiers(type_id)
    if pointer.kind != Kind.PTR:
        raise FormatError(f"cannot read map {name!r}: a member has kind {pointer.kind}, expected a pointer")
    return btf.skip_modifiers(pointer.size_or_type)
