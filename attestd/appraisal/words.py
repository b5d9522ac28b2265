"""Words for people, made of text that others chose: nothing in it moves a cursor, hides, or poses as our punctuation.

Control, format, surrogate, private and unassigned characters and line separators become visible escapes; so do the
backslash and the marks of the fixed line (quotation mark, vertical bar, middle dot). What nobody verified stands in
quotation marks.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import msgspec

from attestd.appraisal.classes import ClassTable, Entry
from attestd.appraisal.model import LinkClass
from attestd.evidence.model import Link, Origin

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKS = frozenset('\\"|·')
_PLAIN = re.compile(r"[ !#-\[\]-{}~]*")
"""Printable ASCII without the marks: shown as it is."""
_LIMIT = 80


def escape(text: str, limit: int = _LIMIT) -> str:
    """``text`` in printable characters, at most ``limit`` of its own, then an ellipsis."""
    shown = text[:limit]
    if not _PLAIN.fullmatch(shown):
        shown = "".join(_visible(character) for character in shown)
    return f"{shown}…" if len(text) > limit else shown


def quoted(text: str, limit: int = _LIMIT) -> str:
    """A claim: escaped, in quotation marks."""
    return f'"{escape(text, limit)}"'


def _visible(character: str) -> str:
    point = ord(character)
    unsafe = character in _MARKS or unicodedata.category(character) in _UNSAFE
    if not unsafe and (character == " " or not character.isspace()):
        return character
    if point <= 0xFF:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """What a program is called."""

    title: str
    """``Claude Code 2.1.328``, ``client.py``; in quotation marks where only the program itself says so."""
    origin: str
    """``npm @anthropic-ai/claude-code``, with ``(claimed)`` where nobody verified it; or empty."""


def origin_of(link: Link) -> Origin | None:
    """Who vouches for what runs: of the script if there is one, of the executable if there is none."""
    return link.origin if link.script is None else link.script.origin


def label(link: Link, table: ClassTable) -> Label:
    """Title and origin of one link."""
    origin = origin_of(link)
    if origin is None:
        return Label(title=_file_title(link), origin="")
    known = table.title_of(f"{origin.kind}:{origin.name}")
    packaged = origin.kind in ("npm", "python", "snap", "flatpak", "codesign")
    if not known and not packaged:
        title = _file_title(link)
    else:
        text = f"{known or origin.name} {origin.version}".strip()
        title = escape(text) if origin.verified else quoted(text)
    remark = "" if origin.verified else " (claimed)"
    return Label(title=title, origin=f"{escape(origin.kind)} {escape(origin.name)}{remark}")


def short_name(link: Link, link_class: LinkClass, entry: Entry | None) -> str:
    """One word for a link in the ``via``, ``launched by`` and ``in`` lists."""
    if link_class is LinkClass.RELAY:
        return "attestd-connect"
    if entry is not None and entry.name:
        return escape(entry.name)
    if link.exe is None or link.exe.sha256 is None:
        return "init" if link.pid == 1 else f"unreadable process {quoted(link.comm, 16)}"
    return _file_title(link)


def _file_title(link: Link) -> str:
    if link.exe is None or link.exe.sha256 is None:
        return "init" if link.pid == 1 else f"unreadable process {quoted(link.comm, 16)}"
    exe = _base(link.exe.path)
    script = link.script
    if script is None or script.kind == "none":
        return exe
    if script.kind == "inline":
        return f"{exe} with inline code"
    if script.kind == "module":
        return f"{exe} -m {escape(script.name)}"
    if script.kind == "script":
        return _base(script.file.path if script.file is not None else script.name)
    return f"{exe} with {'code from stdin' if script.kind == 'stdin' else 'unresolved code'}"


@lru_cache(1024)
def _base(path: str) -> str:
    return escape(path.removesuffix(" (deleted)").rstrip("/").rpartition("/")[2] or "?")
