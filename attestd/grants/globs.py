"""Anchored globs over names and URIs.

``*`` is any run of characters (also ``/`` and the empty run), ``?`` is exactly one character, everything else is
itself. A pattern that begins with ``=`` takes the rest literally. The whole text must match; case counts; no
normalisation is done, because the server will see the same code points. The matcher walks the text once and keeps the
set of reachable pattern positions in one integer, so no pattern can make it back-track. An empty pattern matches
nothing.

URI templates (RFC 6570, ``{variables}``) are asked about in two ways: ``meets`` whether the pattern covers one of their
URIs at least, ``spans`` whether it covers all of them. Both would rather say no than be wrong.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

import msgspec

LITERAL = "="
MAGIC = frozenset("*?")

_EXPRESSION = re.compile(r"\{([^{}]+)\}")
_BRACES = frozenset("{}")
_VALUE = string.ascii_letters + string.digits + "-._~%,"
"""What a variable without an operator can hold: unreserved characters and escapes, with commas between items."""
_RESERVED = ("+", "#")
"""Operators whose variables can hold any character."""
_OPERATORS = {".": ".", "/": "/", ";": ";=", "?": "?&=", "&": "&="}
"""What else an operator writes."""


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


def meets(pattern: str, template: str) -> bool:
    """Whether ``pattern`` covers a URI that ``template`` can stand for. Not a template: no."""
    return _walk(pattern, template, _some)


def spans(pattern: str, template: str) -> bool:
    """Whether ``pattern`` covers every URI that ``template`` can stand for: each variable falls on a ``*``."""
    return _walk(pattern, template, _every)


def _walk(pattern: str, template: str, expand: Callable[[_Program, int, str], int]) -> bool:
    if pattern in ("", LITERAL):
        return False
    program = _exactly(pattern[1:]) if pattern.startswith(LITERAL) else _compile(pattern)
    state = 1
    for position, piece in enumerate(_EXPRESSION.split(template)):
        if position % 2:
            state = expand(program, state, piece)
            continue
        if not _BRACES.isdisjoint(piece):
            return False
        for character in piece:
            state = _step(program, state, character)
    return bool(state & program.final)


def _step(program: _Program, state: int, character: str) -> int:
    advancing = state & (program.steps.get(character, 0) | program.anyone)
    return (advancing << 1) | (state & program.loops)


def _some(program: _Program, state: int, expression: str) -> int:
    """Every position that some value of the expression, the empty one too, leads to."""
    letters = None if expression[:1] in _RESERVED else _VALUE + _OPERATORS.get(expression[:1], "")
    accepted = program.anyone
    for character, positions in program.steps.items():
        if letters is None or character in letters:
            accepted |= positions
    while (wider := state | (state & accepted) << 1) != state:
        state = wider
    return state


def _every(program: _Program, state: int, expression: str) -> int:
    del expression
    return state & program.loops


def _run(program: _Program, text: str) -> bool:
    state = 1
    for character in text:
        advancing = state & (program.steps.get(character, 0) | program.anyone)
        state = (advancing << 1) | (state & program.loops)
        if not state:
            return False
    return bool(state & program.final)


@lru_cache(maxsize=4096)
def _exactly(text: str) -> _Program:
    steps: dict[str, int] = {}
    for position, symbol in enumerate(text):
        steps[symbol] = steps.get(symbol, 0) | 1 << position
    return _Program(steps=steps, anyone=0, loops=0, final=1 << len(text))


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
