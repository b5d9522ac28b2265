"""Parsing of KERN_PROCARGS2, a pure function on bytes.

argc, the path of the image, zero bytes up to the next multiple of eight, argc arguments, the environment. All of it
lies in the process's own memory and so is its own word. An empty argv[0] looks like padding: where the zero bytes are
not exactly those of the alignment, the words are not believed at all. The kernel leaves the environment out for
restricted programs (Apple's own, for which the loader ignores DYLD_* anyway).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_ALIGN = 8


class Words(NamedTuple):
    """What a process says it was started with."""

    argv: tuple[str, ...]
    environ: tuple[tuple[str, str], ...]


def parse_procargs(raw: bytes) -> Words:
    """Argv and environment; invalid UTF-8 becomes U+FFFD. Raises ValueError where they cannot be told apart."""
    if len(raw) < 4:
        raise ValueError("cannot parse the arguments of a process: got no count")
    (count,) = struct.unpack_from("<i", raw)
    path_end = raw.find(b"\0", 4)
    if count < 1 or path_end < 0:
        raise ValueError(f"cannot parse the arguments of a process: got the count {count}")
    start = path_end
    while start < len(raw) and raw[start] == 0:
        start += 1
    length = path_end - 4 + 1
    if start - 4 != (length + _ALIGN - 1) // _ALIGN * _ALIGN:
        raise ValueError("cannot parse the arguments of a process: got other padding than the kernel makes")
    *words, rest = raw[start:].split(b"\0", count)
    if len(words) != count:
        raise ValueError(f"cannot parse the arguments of a process: got {len(words)} words, expected {count}")
    return Words(argv=tuple(_text(word) for word in words), environ=tuple(_entries(rest)))


def _entries(rest: bytes) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for entry in rest.split(b"\0"):
        if not entry:
            break
        name, equals, value = entry.partition(b"=")
        if equals:
            found.append((_text(name), _text(value)))
    return found


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
