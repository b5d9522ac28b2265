r"""Text from outside, made safe for a terminal.

Names of programs, tools and clients, arguments and error texts are chosen by whom attestd distrusts. Everything that
moves a cursor, hides or reorders text (control and format characters, bidirectional overrides, line and paragraph
separators, surrogates, private use) is shown as an escape such as ``\x1b`` or ``\u202e``. Markup is no concern of
this module: the consoles of ``output`` interpret none.
"""

from __future__ import annotations

import re
import unicodedata

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_GAP = re.compile(" {4,}")
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f")
"""Letters and marks that are drawn as nothing."""


def safe(text: str, limit: int = 4096) -> str:
    """Return ``text`` with every dangerous character escaped, cut after ``limit`` characters with a remark."""
    if text.isascii() and text.isprintable() and len(text) <= limit:
        return _close_gaps(text)
    shown = "".join(_escape(character) if _dangerous(character) else character for character in text[:limit])
    shown = _close_gaps(shown)
    left_out = len(text) - limit
    return f"{shown}… ({left_out} more characters)" if left_out > 0 else shown


def quoted(text: str, limit: int = 200) -> str:
    """Return a claim in quotation marks that it cannot close."""
    return '"' + safe(text, limit).replace('"', '\\"') + '"'


def _close_gaps(text: str) -> str:
    """Say how long a long gap is: with spaces alone a name could begin a row of its own on a narrow terminal."""
    return _GAP.sub(lambda gap: f" [{len(gap[0])} spaces] ", text) if "    " in text else text


def _dangerous(character: str) -> bool:
    other_space = character != " " and unicodedata.category(character) == "Zs"
    return other_space or character in _BLANK or unicodedata.category(character) in _UNSAFE


def _escape(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
