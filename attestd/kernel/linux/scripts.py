"""What an interpreter runs: its command line read by the pure tables, the file opened as the process would open it.

Rules: argv, environment and working directory are the process's own words. They say which file to hash; they prove
nothing, and without the kernel recorder a process can claim any script of its interpreter. What is not certain is
``unresolved``, which equals no known script. Relative names are taken from the working directory of now, or, with the
kernel recorder, from that of the exec; argv and environment are then the recorded ones.

``younger_than_process``: the file's ctime is not older than the start of the process, less 20 ms for coarse clocks.
The exec comes after the start, so an older file is what was loaded unless its directory was exchanged; a newer one
may not be.

Shells keep their script open (bash at the top of the first 256 descriptors, dash from 10 on). If such descriptors are
regular files and none is the file that argv names, argv lies or the file was replaced: unresolved. Only for a relative
name with a slash may the descriptor stand in, if its last component is the same: the shell has left its directory.
Letting the descriptor win for absolute names too would let a script open a better one there. A bare name may have been
found on PATH: it counts only as a file of the working directory.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from attestd.evidence import packages, posture
from attestd.evidence.interpreters import ScriptSpec, base_name, family, parse_argv
from attestd.evidence.interpreters.shell import dialect
from attestd.evidence.model import FileFacts, Origin, Script
from attestd.kernel.linux import pymodules
from attestd.kernel.linux.origins import Origins
from attestd.kernel.linux.recorded import Start
from attestd.kernel.linux.view import View, label

MAX_TEXT_CHARACTERS = 4096
SLACK_NS = 20_000_000
_CLOCK_BOOTTIME = 7
_TERMINAL_MAJORS = frozenset({2, 3, 4, 5, 166, 188, 204, 229, *range(136, 144)})
_SCRIPT_DESCRIPTORS = {"bash": range(255, 244, -1), "dash": range(10, 20)}
_LEXICAL = frozenset({"node", "bun", "deno"})
_NODE_ENDINGS = (".js", ".json", ".node")
_JAVA_OPTIONS = frozenset({"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"})
_SMALL = 1 << 20

_Found = tuple[FileFacts, Origin | None]


class ProcessHandle(Protocol):
    """What is needed of a ``Process``."""

    dirfd: int
    start_ticks: int


class FactsReader(Protocol):
    """What is needed of a ``FileReader``."""

    def facts(self, fd: int, path: str, uid: int, gids: tuple[int, ...]) -> FileFacts:
        """Facts about the open regular file ``fd``. Raises OSError."""


def resolve(
    process: ProcessHandle,
    files: FactsReader,
    origins: Origins,
    *,
    exe_path: str,
    argv: Sequence[str],
    uid: int,
    gids: tuple[int, ...],
    start: Start | None = None,
) -> Script | None:
    """What the process runs; None if its executable is no interpreter.

    Args:
        process: held by its ``/proc`` directory.
        files: reads and hashes the open script.
        origins: says who vouches for it.
        exe_path: of the real executable, as the kernel printed it.
        argv: the whole command line, nothing shortened.
        uid: whose power to write is asked for, with ``gids``.
        gids: all groups of that user.
        start: working directory and environment of its exec, if they were recorded.

    Raises:
        ProcessLookupError: the process has exited. Nothing else: what cannot be read is unresolved.
    """
    interpreter = family(exe_path)
    if interpreter is None:
        return None
    spec = parse_argv(interpreter, argv, exe_path)
    if spec.kind == "inline":
        digest = hashlib.sha256(spec.text.encode("utf-8", "surrogateescape")).hexdigest()
        return Script(kind="inline", interpreter=interpreter, sha256=digest, text=spec.text[:MAX_TEXT_CHARACTERS])
    if spec.kind in ("none", "stdin"):
        kind = "none" if spec.kind == "none" and _stdin_is_terminal(process.dirfd) else "stdin"
        return Script(kind=kind, interpreter=interpreter)

    def read(fd: int) -> _Found:
        facts = files.facts(fd, label(fd), uid, gids)
        return facts, origins.of_file(facts, fd)

    found: _Found | None = None
    if spec.kind != "unresolved":
        found = _with_script((process.dirfd, start), spec, (interpreter, exe_path, argv[0]), read)
    if found is None or found[0].sha256 is None:
        return Script(kind="unresolved", interpreter=interpreter, name=spec.argument[:MAX_TEXT_CHARACTERS])
    facts, origin = found
    return Script(
        kind=spec.kind,
        interpreter=interpreter,
        name=spec.argument[:MAX_TEXT_CHARACTERS],
        sha256=facts.sha256,
        file=facts,
        origin=origin,
        younger_than_process=facts.ctime_ns >= started_ns(process.start_ticks) - SLACK_NS,
    )


def _with_script(
    where: tuple[int, Start | None],
    spec: ScriptSpec,
    called: tuple[str, str, str],
    read: Callable[[int], _Found],
) -> _Found | None:
    """What ``read`` says of the open script; ``called``: interpreter, executable, argv[0]. None: not certain."""
    try:
        with View(*where) as view:
            fd = _open(view, spec, *called)
        try:
            return read(fd)
        finally:
            os.close(fd)
    except ProcessLookupError:
        raise
    except (OSError, ValueError, pymodules.UncertainError):
        return None


def started_ns(start_ticks: int) -> int:
    """Start of a process in nanoseconds since the epoch, by the clocks of now; the real one is up to a tick later."""
    booted = time.time_ns() - time.clock_gettime_ns(_CLOCK_BOOTTIME)
    return booted + start_ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _stdin_is_terminal(dirfd: int) -> bool:
    try:
        found = os.stat("fd/0", dir_fd=dirfd)
    except ProcessLookupError:
        raise
    except OSError:
        return False
    return stat.S_ISCHR(found.st_mode) and os.major(found.st_rdev) in _TERMINAL_MAJORS


def _open(view: View, spec: ScriptSpec, interpreter: str, exe_path: str, argv0: str) -> int:
    """Open what ``spec`` names. Raises OSError or UncertainError."""
    if spec.kind == "module":
        environ = dict(reversed(_environ(view)))  # the first of doubled names counts, as in getenv
        if interpreter == "java":
            return _open_class(view, spec, environ)
        flags = frozenset(option for option, _ in spec.settings)
        running = pymodules.Interpreter(view=view, exe=view.inside(exe_path), argv0=argv0, environ=environ, flags=flags)
        return view.open(running.locate(spec.argument))
    name = spec.argument
    if "/" not in name and ("-S", "") in spec.settings:
        raise pymodules.UncertainError
    path = view.absolute(name)
    if interpreter in _LEXICAL:
        path = os.path.normpath(path)
    if interpreter == "node":
        return view.open(_node_main(view, path, directory=name.endswith("/")))
    if interpreter == "python" and view.is_directory(path):
        return view.open(f"{path}/__main__.py")
    if interpreter == "shell":
        return _open_shell(view, name, path, exe_path)
    return view.open(path)


def _environ(view: View) -> tuple[tuple[str, str], ...]:
    if view.environ is not None:
        return view.environ
    fd = os.open("environ", os.O_RDONLY | os.O_CLOEXEC, dir_fd=view.dirfd)
    with open(fd, "rb") as file:
        return posture.entries(file.read(_SMALL))


def _node_main(view: View, path: str, *, directory: bool) -> str:
    """Node's order for the main module (Module._findPath): the file, with an ending, package.json, index."""
    if not directory:
        for candidate in (path, *(path + ending for ending in _NODE_ENDINGS)):
            if view.is_file(candidate):
                return candidate
    try:
        package = packages.package_json(view.read(path + "/package.json", _SMALL))
    except OSError:
        package = None
    places = [os.path.join(path, "index")]
    if package is not None and package.main:
        main = os.path.normpath(os.path.join(path, package.main))
        if view.is_file(main):
            return main
        places = [main, os.path.join(main, "index"), *places]
    for candidate in (place + ending for place in places for ending in _NODE_ENDINGS):
        if view.is_file(candidate):
            return candidate
    raise OSError(errno.ENOENT, "cannot find the main module")


def _open_shell(view: View, name: str, path: str, exe_path: str) -> int:
    try:
        by_name: int | None = view.open(path)
    except OSError:
        by_name = None
    kept = _kept_open(view, _SCRIPT_DESCRIPTORS.get(dialect(base_name(exe_path)), range(0)))
    chosen = _chosen(name, by_name, kept)
    for fd in (by_name, *kept):
        if fd is not None and fd != chosen:
            os.close(fd)
    if chosen is None:
        raise pymodules.UncertainError
    return chosen


def _kept_open(view: View, numbers: range) -> list[int]:
    kept: list[int] = []
    for number in numbers:
        try:
            kept.append(view.descriptor(number))
        except ProcessLookupError:
            raise
        except OSError:
            continue
    return kept


def _chosen(name: str, by_name: int | None, kept: list[int]) -> int | None:
    if by_name is not None and (not kept or _same(by_name, kept)):
        return by_name
    if kept and "/" in name and not name.startswith("/") and os.path.basename(label(kept[0])) == os.path.basename(name):
        return kept[0]
    return None


def _same(fd: int, others: list[int]) -> bool:
    ours = os.fstat(fd)
    return any((ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino) for there in map(os.fstat, others))


def _open_class(view: View, spec: ScriptSpec, environ: dict[str, str]) -> int:
    """The class file in a directory of the class path, or the archive where it is the last place left."""
    if any(environ.get(name) for name in _JAVA_OPTIONS):
        raise pymodules.UncertainError
    listed = next((value for _, value in reversed(spec.settings)), environ.get("CLASSPATH") or ".")
    places = [view.absolute(place or ".") for place in listed.split(":")]
    relative = spec.argument.replace(".", "/") + ".class"
    for number, place in enumerate(places, start=1):
        if view.is_file(place):
            if number < len(places):
                raise pymodules.UncertainError
            return view.open(place)
        if view.is_file(f"{place}/{relative}"):
            return view.open(f"{place}/{relative}")
    raise pymodules.UncertainError
