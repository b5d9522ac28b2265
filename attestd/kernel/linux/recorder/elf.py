"""Reads the sections, symbols and relocations of a relocatable 64-bit little-endian ELF object for BPF.

Every offset and size in the file is checked before it is used: a damaged file raises FormatError, never anything
else. Layout: the System V ABI, chapter 4 (ELF header 64 bytes, section header 64, symbol 24, relocation without
addend 16).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from attestd.kernel.linux.recorder.failures import FormatError

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQ")
_EM_BPF = 247
_RELOCATABLE = 1
_SYMTAB, _NOBITS, _REL = 2, 8, 9
_IDENT = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1
_SECTIONS_MAX = 256
_SYMBOLS_MAX = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section: its name, type, contents, and the fields ``sh_link`` and ``sh_info``."""

    index: int
    name: str
    kind: int
    data: bytes
    link: int
    info: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbol:
    """A named place in a section."""

    name: str
    section: int
    value: int
    size: int
    kind: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Relocation:
    """A place in a section that depends on a symbol."""

    offset: int
    kind: int
    symbol: Symbol


@dataclass(frozen=True, slots=True, kw_only=True)
class Elf:
    """One parsed object."""

    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: dict[int, tuple[Relocation, ...]]
    """By the index of the section that they change, in the order of the file."""

    def section(self, name: str) -> Section:
        """The only section of that name. Raises FormatError."""
        found = [section for section in self.sections if section.name == name]
        if len(found) != 1:
            raise FormatError(f"cannot read the object: it has {len(found)} sections named {name!r}, expected 1")
        return found[0]


def parse(data: bytes) -> Elf:
    """Read an object. Raises FormatError."""
    if len(data) < _HEADER.size or not data.startswith(_IDENT):
        raise FormatError(
            f"cannot read the object: it begins with {data[:7].hex()}, expected {_IDENT.hex()} (64-bit ELF)"
        )
    (_, kind, machine, _, _, _, at, _, _, _, _, entry, count, names) = _HEADER.unpack_from(data)
    if (kind, machine) != (_RELOCATABLE, _EM_BPF):
        raise FormatError(f"cannot read the object: type {kind} for machine {machine}, expected 1 for 247 (BPF)")
    if entry != _SECTION.size or not 0 < count <= _SECTIONS_MAX or names >= count:
        raise FormatError(f"cannot read the object: {count} sections of {entry} bytes with names in section {names}")
    rows = [_SECTION.unpack(_slice(data, at + i * entry, entry, f"header of section {i}")) for i in range(count)]
    texts = _contents(data, rows[names], names)
    sections = tuple(
        Section(
            index=i, name=text_at(texts, row[0]), kind=row[1], data=_contents(data, row, i), link=row[6], info=row[7]
        )
        for i, row in enumerate(rows)
    )
    symbols = _symbols(sections)
    return Elf(sections=sections, symbols=symbols, relocations=_relocations(sections, symbols))


def text_at(table: bytes, offset: int) -> str:
    """The text that begins at ``offset`` of a string table and ends at a zero byte. Raises FormatError."""
    end = table.find(b"\0", offset) if 0 <= offset < len(table) else -1
    if end < 0:
        raise FormatError(f"cannot read a name: offset {offset} in a string table of {len(table)} bytes has no text")
    return table[offset:end].decode("utf-8", "replace")


def _slice(data: bytes, at: int, size: int, what: str) -> bytes:
    if at + size > len(data):
        raise FormatError(f"cannot read the object: {what} ends at byte {at + size}, the file has {len(data)}")
    return data[at : at + size]


def _contents(data: bytes, row: tuple[int, ...], index: int) -> bytes:
    return b"" if row[1] in {0, _NOBITS} else _slice(data, row[4], row[5], f"section {index}")


def _symbols(sections: tuple[Section, ...]) -> tuple[Symbol, ...]:
    tables = [section for section in sections if section.kind == _SYMTAB]
    if len(tables) != 1:
        raise FormatError(f"cannot read the object: it has {len(tables)} symbol tables, expected 1")
    table = tables[0]
    if table.link >= len(sections) or len(table.data) % _SYMBOL.size or len(table.data) > _SYMBOLS_MAX * _SYMBOL.size:
        raise FormatError(
            f"cannot read the object: symbol table of {len(table.data)} bytes with names in section {table.link}"
        )
    texts = sections[table.link].data
    return tuple(
        Symbol(name=text_at(texts, name) if name else "", section=section, value=value, size=size, kind=info & 15)
        for name, info, _, section, value, size in _SYMBOL.iter_unpack(table.data)
    )


def _relocations(sections: tuple[Section, ...], symbols: tuple[Symbol, ...]) -> dict[int, tuple[Relocation, ...]]:
    found: dict[int, tuple[Relocation, ...]] = {}
    for section in sections:
        if section.kind != _REL:
            continue
        if section.info >= len(sections) or len(section.data) % _RELOCATION.size:
            raise FormatError(
                f"cannot read the object: {section.name!r} has {len(section.data)} bytes for section {section.info}"
            )
        rows = []
        for offset, info in _RELOCATION.iter_unpack(section.data):
            if info >> 32 >= len(symbols):
                raise FormatError(
                    f"cannot read the object: {section.name!r} names symbol {info >> 32} of {len(symbols)}"
                )
            rows.append(Relocation(offset=offset, kind=info & 0xFFFFFFFF, symbol=symbols[info >> 32]))
        found[section.info] = (*found.get(section.info, ()), *rows)
    return found
