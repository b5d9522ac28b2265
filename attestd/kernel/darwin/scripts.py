"""What an interpreter runs on macOS: its command line read by the pure tables, the file opened from where it is now.

Rules: argv and working directory are the process's own words; they say which file to hash and prove nothing. What is
not certain is ``unresolved``, which equals no known script: a module (``python -m``), a class of Java, a directory, a
bare name that may have been found on PATH, any name of a process whose root directory is not the system's.
``younger_than_process``: the file's ctime is not older than the start of the process; also where the start may not
be read. Who vouches: the nearest package.json, unverified; nothing else is looked up here.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence

import msgspec

from attestd.evidence import packages
from attestd.evidence.interpreters import ScriptSpec, family, parse_argv
from attestd.evidence.model import Origin, Script
from attestd.kernel.darwin.access import Access
from attestd.kernel.darwin.files import FileReader, open_regular

MAX_TEXT_CHARACTERS = 4096
_LEXICAL = frozenset({"node", "bun", "deno"})
_NODE_ENDINGS = ("", ".js", ".json")
_JS_SUFFIXES = (".js", ".cjs", ".mjs", ".jsx", ".ts", ".cts", ".mts", ".tsx")
_MAX_DEPTH = 40
_SMALL = 1 << 20


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a process beside its words."""

    exe_path: str
    cwd: str
    """Empty: may not be read, or its root directory is not the system's."""
    started_us: int
    """Microseconds since the epoch; 0: may not be read."""
    at_terminal: bool
    """Its standard input is its terminal."""
    uids: frozenset[int]


def resolve(files: FileReader, access: Access, place: Place, argv: Sequence[str]) -> Script | None:
    """What the process runs; None if its executable is no interpreter. Raises nothing."""
    interpreter = family(place.exe_path)
    if interpreter is None:
        return None
    spec = parse_argv(interpreter, argv, place.exe_path)
    if spec.kind == "inline":
        digest = hashlib.sha256(spec.text.encode("utf-8", "surrogateescape")).hexdigest()
        return Script(kind="inline", interpreter=interpreter, sha256=digest, text=spec.text[:MAX_TEXT_CHARACTERS])
    if spec.kind in ("none", "stdin"):
        return Script(kind="none" if spec.kind == "none" and place.at_terminal else "stdin", interpreter=interpreter)
    found = _of_file(files, access, place, spec, interpreter) if spec.kind == "script" else None
    if found is not None:
        return found
    return Script(kind="unresolved", interpreter=interpreter, name=spec.argument[:MAX_TEXT_CHARACTERS])


def _of_file(files: FileReader, access: Access, place: Place, spec: ScriptSpec, interpreter: str) -> Script | None:
    try:
        fd = _open(place, spec, interpreter)
    except (OSError, ValueError):
        return None
    try:
        facts = files.script(fd, place.uids, access)
    except OSError:
        return None
    finally:
        os.close(fd)
    if facts.sha256 is None:
        return None
    return Script(
        kind="script",
        interpreter=interpreter,
        name=spec.argument[:MAX_TEXT_CHARACTERS],
        sha256=facts.sha256,
        file=facts,
        origin=npm_origin(facts.path),
        younger_than_process=place.started_us == 0 or facts.ctime_ns >= place.started_us * 1000,
    )


def _open(place: Place, spec: ScriptSpec, interpreter: str) -> int:
    """Raises OSError where it is not certain which file is meant."""
    name = spec.argument
    if not place.cwd or ("/" not in name and ("-S", "") in spec.settings):
        raise FileNotFoundError(name)
    path = os.path.join(place.cwd, name)
    if interpreter in _LEXICAL:
        path = os.path.normpath(path)
    if interpreter != "node":
        return open_regular(path)
    for ending in _NODE_ENDINGS:
        try:
            if stat.S_ISREG(os.stat(path + ending).st_mode):
                return open_regular(path + ending)
        except FileNotFoundError:
            continue
    raise FileNotFoundError(path)


def npm_origin(path: str) -> Origin | None:
    """The package of a JavaScript file by the nearest package.json; never verified."""
    if "/node_modules/" not in path and not path.endswith(_JS_SUFFIXES):
        return None
    directory = os.path.dirname(path)
    for _ in range(_MAX_DEPTH):
        if directory in ("", "/") or os.path.basename(directory) == "node_modules":
            return None
        named = _package(f"{directory}/package.json")
        if named is not None:
            return Origin(
                kind="npm",
                name=named.name,
                version=named.version,
                verified=False,
                detail="no registry digest on this machine",
            )
        directory = os.path.dirname(directory)
    return None


def _package(path: str) -> packages.Named | None:
    try:
        with open(open_regular(path), "rb") as file:
            found = packages.package_json(file.read(_SMALL))
    except OSError:
        return None
    return found.package if found is not None else None
