"""What servers said of their tools, within a bound: a list comes in pages and is asked for again and again.

A server may be a user's own, and may call its tools something else in every list. What is forgotten is unknown again.
Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import TypeVar

T = TypeVar("T")
CHARACTERS = 1 << 20
"""Of the tools of one server, as one user is shown them."""
TOOL = 64
"""What a tool counts for besides its name."""


def remember(known: dict[str, T], found: Mapping[str, T]) -> None:
    """Add one page; if that is too much, keep of this page only, and of it what there is room for."""
    known.update(found)
    if sum(_size(name, fact) for name, fact in known.items()) <= CHARACTERS:
        return
    known.clear()
    room = CHARACTERS
    for name, fact in found.items():
        room -= _size(name, fact)
        if room >= 0:
            known[name] = fact


def _size(name: str, fact: object) -> int:
    words = len(str(fact)) if isinstance(fact, Sized) else 0
    return TOOL + len(name) + words
