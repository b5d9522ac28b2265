"""The class table: which verified identities are PASS or EDGE, and which launchers are build steps.

Rules. Entries are tried in order and the first match wins, so a narrow entry stands before a wide one. An entry names
its members by verified origin and file, or by digest, never by name; an entry without any selector is an error,
because an empty conjunction would match everything. ``pass`` and ``edge`` need a selector for the executable even
where they name a script. ``claimed`` (an origin nobody verified is enough) exists only for ``app``, where it can make
nothing better. Unknown keys, wrong types and duplicates are errors that name the entry.
"""

from __future__ import annotations

import re
import tomllib
from functools import cached_property
from typing import Any

import msgspec

from attestd.appraisal.model import LinkClass
from attestd.errors import PolicyInvalidError

_ORIGIN = re.compile(r"(?:dpkg|rpm|npm|python|snap|flatpak|codesign):[^\s:]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CLASSES = {"pass": LinkClass.PASS, "edge": LinkClass.EDGE, "app": LinkClass.APP}
_VERSION = 1


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table. Empty selectors are not compared; at least one is set."""

    link_class: LinkClass
    """PASS, EDGE or APP (APP only carries ``build_step``)."""
    name: str = ""
    """What people read, e.g. ``npx``; the file's base name if empty."""
    origin: str = ""
    """``dpkg:bash``: verified origin of the executable."""
    files: tuple[str, ...] = ()
    """Absolute paths of that package, as the kernel prints them."""
    script_origin: str = ""
    script_files: tuple[str, ...] = ()
    sha256: str = ""
    script_sha256: str = ""
    commands: tuple[str, ...] = ()
    """The first command word must be one of these. argv is the process's own word: this only withholds membership."""
    shell: bool = False
    """Only where the image was recognised as a shell, so that its script is known (multi-call binaries)."""
    terminal: bool = False
    """EDGE: a person sits at it."""
    build_step: bool = False
    """APP: runs what packages bring along."""
    claimed: bool = False
    """APP: an unverified origin is enough."""

    @property
    def wants_script(self) -> bool:
        """Whether the entry names a script, not only an executable."""
        return bool(self.script_origin or self.script_sha256)


class ClassTable(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The parsed table."""

    entries: tuple[Entry, ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    """``npm:@anthropic-ai/claude-code`` to ``Claude Code``, sorted."""

    def title_of(self, package: str) -> str:
        """The name people know a package by, or an empty string. ``package`` is ``kind:name``."""
        return dict(self.names).get(package, "")

    def likely(self, package: str, script_package: str) -> tuple[Entry, ...]:
        """The entries, in order, that do not demand another package for executable or script: no other can match.

        Both are ``kind:name``, empty where nobody vouches.
        """
        exes, scripts, found = self._index
        key = (package if package in exes else "", script_package if script_package in scripts else "")
        if key not in found:
            found[key] = tuple(
                entry for entry in self.entries if entry.origin in ("", key[0]) and entry.script_origin in ("", key[1])
            )
        return found[key]

    @cached_property
    def _index(self) -> tuple[frozenset[str], frozenset[str], dict[tuple[str, str], tuple[Entry, ...]]]:
        return (
            frozenset(entry.origin for entry in self.entries),
            frozenset(entry.script_origin for entry in self.entries),
            {},
        )


def parse_class_table(text: str, source: str = "classes.toml") -> ClassTable:
    """Parse TOML text. Raises PolicyInvalidError that names the entry, what was found and what is allowed."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyInvalidError(f"cannot parse {source}: {error}", hint="the file is TOML 1.0") from None
    _known(document, {"version", "names", "entry"}, source)
    version = document.get("version")
    if type(version) is not int or version != _VERSION:
        raise _invalid(source, "version", version, f"the integer {_VERSION}")
    rows = document.get("entry", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _invalid(source, "entry", rows, "tables written as [[entry]]")
    entries = tuple(_entry(row, f"{source}, entry {number}") for number, row in enumerate(rows, start=1))
    _refuse_duplicates(entries, source)
    return ClassTable(entries=entries, names=_names(document.get("names", {}), source))


def extend(base: ClassTable, extra: ClassTable) -> ClassTable:
    """``extra`` (an admin's table) before ``base``: its entries are tried first and its names win."""
    names = dict(base.names) | dict(extra.names)
    return ClassTable(entries=extra.entries + base.entries, names=tuple(sorted(names.items())))


def _invalid(where: str, key: str, got: object, expected: str) -> PolicyInvalidError:
    return PolicyInvalidError(f"cannot use {where}: {key} is {got!r}, expected {expected}")


def _known(table: dict[str, Any], allowed: set[str], where: str) -> None:
    for key in table:
        if key not in allowed:
            raise PolicyInvalidError(f"cannot use {where}: unknown key {key!r}, expected one of {sorted(allowed)}")


def _names(table: object, source: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(table, dict):
        raise _invalid(source, "names", table, "a table of package to title")
    for package, title in table.items():
        if not _ORIGIN.fullmatch(package):
            raise _invalid(source, "names", package, "a key such as npm:@scope/name")
        if not isinstance(title, str) or not title:
            raise _invalid(source, f"names.{package}", title, "a title")
    return tuple(sorted(table.items()))


_STRINGS = ("name", "origin", "script_origin", "sha256", "script_sha256")
_LISTS = ("files", "script_files", "commands")
_FLAGS = ("shell", "terminal", "build_step", "claimed")


def _entry(row: dict[str, Any], where: str) -> Entry:
    _known(row, {"class", *_STRINGS, *_LISTS, *_FLAGS}, where)
    link_class = row.get("class")
    if not isinstance(link_class, str) or link_class not in _CLASSES:
        raise _invalid(where, "class", link_class, f"one of {sorted(_CLASSES)}")
    for key in _STRINGS:
        if key in row and (not isinstance(row[key], str) or not row[key]):
            raise _invalid(where, key, row[key], "a non-empty string")
    for key in _LISTS:
        values = row.get(key, ["-"])
        if not isinstance(values, list) or not values or not all(isinstance(v, str) and v for v in values):
            raise _invalid(where, key, values, "a non-empty list of strings")
        if len(set(values)) != len(values):
            raise _invalid(where, key, values, "no value twice")
    for key in _FLAGS:
        if not isinstance(row.get(key, False), bool):
            raise _invalid(where, key, row[key], "true or false")
    values = {key: tuple(value) if key in _LISTS else value for key, value in row.items() if key != "class"}
    entry = Entry(link_class=_CLASSES[link_class], **values)
    _verify_shape(entry, where)
    return entry


def _verify_shape(entry: Entry, where: str) -> None:
    for key, value in (("origin", entry.origin), ("script_origin", entry.script_origin)):
        if value and not _ORIGIN.fullmatch(value):
            raise _invalid(where, key, value, "kind:name, for example dpkg:bash")
    for key, value in (("sha256", entry.sha256), ("script_sha256", entry.script_sha256)):
        if value and not _SHA256.fullmatch(value):
            raise _invalid(where, key, value, "64 lower-case hex digits")
    _verify_paths(entry, where)
    if not (entry.origin or entry.sha256 or entry.wants_script):
        raise _invalid(where, "the selector", "empty", "origin, sha256, script_origin or script_sha256")
    if entry.link_class is LinkClass.APP:
        _verify_app(entry, where)
    else:
        _verify_member(entry, where)


def _verify_paths(entry: Entry, where: str) -> None:
    for path in entry.files + entry.script_files:
        if not path.startswith("/"):
            raise _invalid(where, "files", path, "absolute paths")
    if entry.files and not entry.origin:
        raise _invalid(where, "files", list(entry.files), "an origin beside it, because a path alone proves nothing")
    if entry.script_files and not entry.script_origin:
        raise _invalid(where, "script_files", list(entry.script_files), "a script_origin beside it")


def _verify_app(entry: Entry, where: str) -> None:
    if not entry.build_step:
        raise _invalid(where, "build_step", "not set", "true, because an app entry says nothing else")
    if entry.terminal:
        raise _invalid(where, "terminal", "set", "class edge")


def _verify_member(entry: Entry, where: str) -> None:
    if entry.claimed or entry.build_step:
        raise _invalid(where, "claimed or build_step", "set", "class app, because it may only make things worse")
    if entry.terminal and entry.link_class is not LinkClass.EDGE:
        raise _invalid(where, "terminal", "set", "class edge")
    if not (entry.origin or entry.sha256):
        raise _invalid(where, "origin", "", "an origin or sha256 of the executable beside the script")
    if entry.origin and not entry.files:
        raise _invalid(where, "files", "missing", "the files of the package that are meant")
    if entry.script_origin and not entry.script_files:
        raise _invalid(where, "script_files", "missing", "the scripts of the package that are meant")


def _refuse_duplicates(entries: tuple[Entry, ...], source: str) -> None:
    seen: dict[tuple[object, ...], int] = {}
    for number, entry in enumerate(entries, start=1):
        for path in entry.files or ("",):
            for script in entry.script_files or ("",):
                key = (entry.origin, path, entry.script_origin, script, entry.sha256, entry.script_sha256)
                full = (*key, entry.commands, entry.shell, entry.claimed)
                if full in seen:
                    raise PolicyInvalidError(
                        f"cannot use {source}, entry {number}: {path or entry.origin or entry.sha256 or script!r} "
                        f"is already in entry {seen[full]}, expected each member once"
                    )
                seen[full] = number
