"""Anchored globs over names and URIs.

``*`` is any run of characters (also ``/`` and the empty run), ``?`` is exactly one character, everything else is
itself. A pattern that begins with ``=`` takes the rest literally. The whole text must match; case counts; no
normalisation is done, because the server will see the same code points. The matcher walks the text once and keeps the
set of reachable pattern positions in one integer, so no pattern can make it back-track. An empty pattern matches
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

import msgspec

LITERAL = "="
MAGIC = frozenset("*?")


class _Program(msgspec.Struct, frozen=True, kw_only=True):
    """A pattern as bit masks: bit i stands for "the first i tokens have matched"."""

    steps: Mapping[str, int]
    """Per character that the pattern names: the positions that it advances."""
    anyone: int
    """Positions that every character advances (``?``)."""
    loops: int
    """Positions where a ``*`` swallows a character."""
    final: int


def literal(name: str) -> str:
    """The pattern that matches exactly ``name``."""
    if name.startswith(LITERAL) or not MAGIC.isdisjoint(name):
        return LITERAL + name
    return name


def is_exact(pattern: str) -> bool:
    """Whether the pattern can match one text only."""
    return pattern.startswith(LITERAL) or MAGIC.isdisjoint(pattern)


def matches(pattern: str, text: str) -> bool:
    """Whether ``pattern`` covers the whole of ``text``."""
    if pattern in ("", LITERAL):
        return False
    if pattern.startswith(LITERAL):
        return text == pattern[len(LITERAL) :]
    if MAGIC.isdisjoint(pattern):
        return text == pattern
    if pattern == "*":
        return True
    return _run(_compile(pattern), text)


def any_match(patterns: Iterable[str], text: str) -> bool:
    """Whether one of the patterns covers ``text``. No pattern: no."""
    return any(matches(pattern, text) for pattern in patterns)


def _run(program: _Program, text: str) -> bool:
    state = 1
    for character in text:
        advancing = state & (program.steps.get(character, 0) | program.anyone)
        state = (advancing << 1) | (state & program.loops)
        if not state:
            return False
    return bool(state & program.final)


@lru_cache(maxsize=4096)
def _compile(pattern: str) -> _Program:
    steps: dict[str, int] = {}
    anyone = loops = 0
    position = 1
    for symbol in pattern:
        if symbol == "*":
            loops |= position
            continue
        if symbol == "?":
            anyone |= position
        else:
            steps[symbol] = steps.get(symbol, 0) | position
        position <<= 1
    return _Program(steps=steps, anyone=anyone, loops=loops, final=position)
