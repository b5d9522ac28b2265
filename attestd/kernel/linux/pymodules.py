"""``python -m name``: the file that the interpreter would load, or nothing where that is not certain.

Order of sys.path (Modules/getpath.py, Lib/site.py): the working directory unless -P, -I or PYTHONSAFEPATH;
PYTHONPATH; the standard library; then the site directories. The order among site directories differs by distribution,
so a module that is found in two of them is uncertain. Zip files, namespace packages, extension modules, frozen
modules, PyPy and a PYTHONHOME are uncertain too. What ``import`` lines of .pth files install (editable packages) is
not seen: such a module is not found.

Not covered: a byte-code cache beside the source, which Python prefers if size and time agree. Who can write the cache
can write the source as well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from attestd.evidence import packages
from attestd.kernel.linux.view import View

_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_VERSIONED = re.compile(r"python(3\.[0-9]+)[dmut]*")
_LIBRARY = re.compile(r"python3\.[0-9]+t?")
_FROZEN = frozenset(
    {
        "abc", "codecs", "genericpath", "importlib", "io", "ntpath", "os", "posixpath", "runpy", "site", "stat",
        "zipimport", "_collections_abc", "_sitebuiltins", "__hello__", "__phello__", "sys", "builtins",
    }
)  # fmt: skip
_SMALL = 1 << 16


class UncertainError(Exception):
    """It cannot be said which file is loaded. Never shown: the script is unresolved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interpreter:
    """A running Python. Its first word, environment and options are its own words."""

    view: View
    exe: str
    """Path of the real executable, as the process would write it."""
    argv0: str
    environ: Mapping[str, str]
    flags: frozenset[str]
    """``-I -E -P -s -S`` as far as given."""

    def locate(self, module: str) -> str:
        """The absolute path of the file of a module (dotted name), as the process would write it.

        Raises:
            UncertainError: no such module, or more than one candidate.
            OSError: something cannot be read.
        """
        if not _MODULE.fullmatch(module) or module.partition(".")[0] in _FROZEN:
            raise UncertainError
        if self._setting("PYTHONHOME") or self._setting("PYTHONPLATLIBDIR"):
            raise UncertainError
        program = self._program()
        library = self._library()
        archive = os.path.basename(library).replace(".", "") + ".zip"
        for entry in (*self._first(), f"{os.path.dirname(library)}/{archive}", library, f"{library}/lib-dynload"):
            if found := _in_entry(self.view, entry, module):
                return found
        sites = [] if "-S" in self.flags else self._sites(program, library)
        hits = {hit for entry in sites if (hit := _in_entry(self.view, entry, module))}
        if not self._one(hits):
            raise UncertainError
        return min(hits)

    def _setting(self, name: str) -> str:
        """A PYTHON* variable, empty where -E or -I ignore it."""
        return "" if self.flags & {"-E", "-I"} else self.environ.get(name, "")

    def _one(self, paths: Iterable[str]) -> bool:
        """Whether there are paths, each leads somewhere, and all of them to one file."""
        found = [self.view.stat(path) for path in paths]
        return None not in found and len({(each.st_dev, each.st_ino) for each in found if each}) == 1

    def _first(self) -> list[str]:
        """The working directory and PYTHONPATH."""
        safe = bool(self.flags & {"-P", "-I"} or self._setting("PYTHONSAFEPATH"))
        listed = self._setting("PYTHONPATH")
        entries = listed.split(":") if listed else []
        return [*([] if safe else [self.view.here()]), *(self.view.absolute(entry) for entry in entries)]

    def _program(self) -> str:
        """Where it thinks it is: argv[0], looked up in PATH if it has no slash. It must be the running image."""
        running = os.stat("exe", dir_fd=self.view.dirfd)
        for place in [""] if "/" in self.argv0 else self.environ.get("PATH", "").split(":"):
            path = self.view.absolute(os.path.join(place, self.argv0))
            found = self.view.stat(path)
            if found is None or not found.st_mode & 0o111:
                continue
            if (found.st_dev, found.st_ino) != (running.st_dev, running.st_ino):
                break
            return os.path.normpath(path)
        raise UncertainError

    def _library(self) -> str:
        """The standard library beside the executable: the one directory with the landmark ``os.py``."""
        view, prefix = self.view, os.path.dirname(os.path.dirname(self.exe))
        versioned = _VERSIONED.fullmatch(os.path.basename(self.exe))
        found: list[str] = []
        for base in (f"{prefix}/lib", f"{prefix}/lib64"):
            names = [f"python{versioned[1]}", f"python{versioned[1]}t"] if versioned else view.names(base)
            libraries = (f"{base}/{name}" for name in names if _LIBRARY.fullmatch(name))
            found += [path for path in libraries if view.is_file(f"{path}/os.py")]
        if not self._one(found):
            raise UncertainError
        return found[0]

    def _sites(self, program: str, library: str) -> list[str]:
        """Site directories and the directories that their .pth files add."""
        name, prefix = os.path.basename(library), os.path.dirname(os.path.dirname(library))
        kinds = ("site-packages", "dist-packages")
        system = [f"{prefix}/{lib}/{name}/{kind}" for lib in ("lib", "lib64") for kind in kinds]
        if prefix == "/usr":
            system += [path.replace("/usr/", "/usr/local/", 1) for path in system] + ["/usr/lib/python3/dist-packages"]
        environment = self._environment(program)
        own = [f"{environment[0]}/{lib}/{name}/site-packages" for lib in ("lib", "lib64")] if environment else []
        shared = environment is None or environment[1]
        if shared and not self.flags & {"-s", "-I"} and not self._setting("PYTHONNOUSERSITE"):
            base = self._setting("PYTHONUSERBASE") or os.path.join(self.environ.get("HOME", "/"), ".local")
            own.append(f"{base}/lib/{name}/site-packages")
        directories = [path for path in [*own, *(system if shared else [])] if self.view.is_directory(path)]
        return [*directories, *(extra for path in directories for extra in _pth(self.view, path))]

    def _environment(self, program: str) -> tuple[str, bool] | None:
        """The virtual environment's directory and whether it sees the system's packages; None if there is none."""
        view, directory = self.view, os.path.dirname(os.path.dirname(program))
        if view.stat(f"{os.path.dirname(program)}/pyvenv.cfg") is not None:
            raise UncertainError
        if view.stat(f"{directory}/pyvenv.cfg") is None:
            return None
        settings = packages.pyvenv(view.read(f"{directory}/pyvenv.cfg", _SMALL))
        if not self._one([settings.get("home", ""), os.path.dirname(self.exe)]) or "home" not in settings:
            raise UncertainError
        return directory, settings.get("include-system-site-packages", "true").lower() == "true"


def _pth(view: View, site: str) -> list[str]:
    added: list[str] = []
    for name in view.names(site):
        if not name.endswith(".pth") or name.startswith("."):
            continue
        for line in view.read(f"{site}/{name}", _SMALL).decode("utf-8", "replace").splitlines():
            text = line.strip()
            path = os.path.join(site, text)
            if text and not text.startswith(("#", "import ", "import\t")) and view.is_directory(path):
                added.append(path)
    return added


def _in_entry(view: View, entry: str, module: str) -> str | None:
    """The module's file below one entry of sys.path; None if the search goes on. Raises UncertainError."""
    if not view.is_directory(entry):
        if view.stat(entry) is not None:
            raise UncertainError
        return None
    *parents, last = module.split(".")
    where = entry
    for part in parents:
        package = _package(view, where, part)
        if package is None:
            if where != entry or _single(view.names(where), part):
                raise UncertainError
            return None
        where = package
    package = _package(view, where, last)
    main = _single(view.names(package), "__main__") if package else _single(view.names(where), last)
    if main is None:
        if package or where != entry:
            raise UncertainError
        return None
    return f"{package or where}/{main}"


def _package(view: View, where: str, name: str) -> str | None:
    directory = f"{where}/{name}"
    return directory if _single(view.names(directory), "__init__") else None


def _single(names: Sequence[str], stem: str) -> str | None:
    """The file that the import system takes for a module: source before byte code. An extension module is uncertain."""
    here = [name for name in names if name.startswith(stem + ".")]
    if any(name.endswith(".so") for name in here):
        raise UncertainError
    return next((name for name in (f"{stem}.py", f"{stem}.pyc") if name in here), None)
