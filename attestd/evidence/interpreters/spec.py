"""What a command line says an interpreter runs, and the reader of options that all families share.

Rules: a table names every option that is known, and how it takes its value. An option that no table names, a value
that is missing, a name that should stand and does not: the answer is ``unresolved``, never a guess, because an
unresolved script equals no known one. Nothing is opened here; whether the file exists is for the kernel room.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Final

import msgspec


class ScriptSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What an interpreter was told to run."""

    kind: str
    """script | module | inline | stdin | unresolved | none (no code was named: standard input is read)"""
    argument: str = ""
    """The script or module name as it stands in argv; for unresolved: what could not be understood."""
    text: str = ""
    """The inline code, whole."""
    loads: tuple[tuple[str, str], ...] = ()
    """Options that make the interpreter load or run further code: (option, value), in order."""
    settings: tuple[tuple[str, str], ...] = ()
    """Options that decide where a name is looked up: (option, value), in order."""


class Take(Enum):
    """How an option takes its value."""

    FLAG = "no value"
    VALUE = "the rest of the word (after = for long options), else the next word"
    NEXT = "the next word only"
    REST = "the rest of the word (after = for long options), which may be empty; never the next word"


Rule = Take | re.Pattern[str]
"""A pattern: what matches after the letter is the value, and the cluster goes on behind it."""


class UnknownOptionError(Exception):
    """Not shown to anybody: the reading stops and the script is unresolved."""


def names(text: str) -> frozenset[str]:
    """A set of names separated by blanks."""
    return frozenset(text.split())


def table(groups: Mapping[Rule, str]) -> dict[str, Rule]:
    """An option table from names separated by blanks, grouped by their rule."""
    return {name: rule for rule, names in groups.items() for name in names.split()}


class Reader:
    """Reads options off the front of an argument list. ``rest()`` is what stands behind the options read so far."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        short: Mapping[str, Rule],
        long: Mapping[str, Rule],
        loads: frozenset[str] = frozenset(),
        settings: frozenset[str] = frozenset(),
    ) -> None:
        self._words = words
        self._at = 0
        self._short = short
        self._long = long
        self._load_names = loads
        self._setting_names = settings
        self.loads: list[tuple[str, str]] = []
        self.settings: list[tuple[str, str]] = []
        self.ended = False
        """Whether the options were ended by ``--``."""

    def rest(self) -> Sequence[str]:
        """The words that have not been read."""
        return self._words[self._at :]

    def options(self) -> Iterator[tuple[str, str]]:
        """Each option with its dashes and its value, up to ``--`` or the first word that is no option (``-`` is none).

        Raises:
            UnknownOptionError: the option is in no table, or its value is missing or not allowed.
        """
        while self._at < len(self._words):
            word = self._words[self._at]
            if len(word) < 2 or not word.startswith("-"):
                return
            self._at += 1
            if word == "--":
                self.ended = True
                return
            yield from self._long_option(word) if word.startswith("--") else self._cluster(word)

    def note(self, option: str, value: str) -> tuple[str, str]:
        """Remember the option if it loads code or decides a look-up."""
        if option in self._load_names:
            self.loads.append((option, value))
        if option in self._setting_names:
            self.settings.append((option, value))
        return option, value

    def next_word(self, option: str) -> str:
        """Take the next word as the value of ``option``."""
        if self._at >= len(self._words):
            raise UnknownOptionError(option)
        self._at += 1
        return self._words[self._at - 1]

    def _long_option(self, word: str) -> Iterator[tuple[str, str]]:
        name, equals, value = word.partition("=")
        rule = self._long.get(name[2:])
        if rule is None or isinstance(rule, re.Pattern) or (equals and rule in (Take.FLAG, Take.NEXT)):
            raise UnknownOptionError(word)
        if rule is Take.NEXT or (rule is Take.VALUE and not equals):
            value = self.next_word(name)
        yield self.note(name, value)

    def _cluster(self, word: str) -> Iterator[tuple[str, str]]:
        at = 1
        while at < len(word):
            option = "-" + word[at]
            rule = self._short.get(word[at])
            at += 1
            if rule is None:
                raise UnknownOptionError(word)
            if rule is Take.FLAG:
                yield self.note(option, "")
                continue
            if isinstance(rule, re.Pattern):
                found = rule.match(word, at)
                value = found.group() if found else ""
                at += len(value)
                yield self.note(option, value)
                continue
            value, at = word[at:], len(word)
            if rule is Take.NEXT and value:
                raise UnknownOptionError(word)
            if rule is not Take.REST and not value:
                value = self.next_word(option)
            yield self.note(option, value)


def finish(reader: Reader, kind: str, argument: str = "", text: str = "") -> ScriptSpec:
    """The specification with what the reader remembered. An empty script name is unresolved."""
    if kind in ("script", "module") and not argument:
        kind = "unresolved"
    return ScriptSpec(
        kind=kind, argument=argument, text=text, loads=tuple(reader.loads), settings=tuple(reader.settings)
    )


def operand(reader: Reader) -> ScriptSpec:
    """The common ending: the first word behind the options is the script, ``-`` is stdin, nothing is none."""
    rest = reader.rest()
    if not rest:
        return finish(reader, "none")
    if rest[0] == "-":
        return finish(reader, "stdin")
    return finish(reader, "script", rest[0])


NO_OPTIONS: Final[dict[str, Rule]] = {}
