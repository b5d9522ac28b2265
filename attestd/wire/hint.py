"""The id of a message that is not one, as far as its first and last bytes tell.

A line that is too long or malformed is never parsed, yet its sender waits for an answer. Most senders write ``id``
right after the opening brace or right before the closing one, so it is read from there. The hint addresses an answer
to the sender of those very bytes and nothing else: it decides nothing, and a wrong one misleads only who wrote it.
"""

from __future__ import annotations

import re
from typing import Final

WINDOW: Final = 512
"""Bytes at either end of a line in which an id is looked for."""

_ID: Final = rb'"id":[ ]?(?:(-?[0-9]{1,18})|"([A-Za-z0-9_.:-]{1,128})")'
_HEAD: Final = re.compile(rb'[ ]*\{[ ]*(?:"jsonrpc":[ ]?"2\.0",[ ]?)?' + _ID + rb"[ ]?,")
_TAIL: Final = re.compile(rb',[ ]?"jsonrpc":[ ]?"2\.0",[ ]?' + _ID + rb"[ ]?\}[ ]*\Z")


def id_hint(head: bytes, tail: bytes) -> str | int | None:
    """The id that a line appears to carry.

    Args:
        head: The first bytes of the line, at least ``WINDOW`` of them if it has as many.
        tail: The last bytes of the line, likewise; may overlap ``head``.

    Returns:
        The id, or None if it is not in one of the two usual places.
    """
    match = _HEAD.match(head[:WINDOW]) or _TAIL.search(tail[-WINDOW:])
    if match is None:
        return None
    number, text = match.groups()
    return int(number) if number is not None else str(text, "ascii")
