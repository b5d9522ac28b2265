"""Posture: signs that other code than the program itself runs in a process. Seen is present; absence proves nothing.

Rules: an entry is ``env NAME=value``, ``argv --option=value`` or ``map /path``. Values are the process's own words
and end in a terminal, so everything that is not plainly printable is escaped and a value is at most 80 characters. A
variable that is set to nothing does not count. Variables of a language count for its interpreters only, those of the
dynamic loader, of the OpenSSL configuration and ``ELECTRON_RUN_AS_NODE`` for every program. How bad an entry is,
appraisal says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from attestd.evidence.interpreters import parse_argv
from attestd.evidence.interpreters.python import warning_imports

MAX_VALUE_CHARACTERS: Final = 80
MAX_PATH_CHARACTERS: Final = 4096
MAX_ENTRIES: Final = 32
"""Of one kind; what is left out is counted in one more entry."""

_EVERY: Final = frozenset(
    {
        "DYLD_FALLBACK_LIBRARY_PATH", "DYLD_FRAMEWORK_PATH", "DYLD_INSERT_LIBRARIES", "DYLD_LIBRARY_PATH",
        "ELECTRON_RUN_AS_NODE", "GCONV_PATH", "LD_AUDIT", "LD_LIBRARY_PATH", "LD_PRELOAD", "OPENSSL_CONF",
        "OPENSSL_ENGINES", "OPENSSL_MODULES",
    }
)  # fmt: skip
_NODE: Final = frozenset({"NODE_COMPILE_CACHE", "NODE_OPTIONS", "NODE_PATH", "NODE_REPL_EXTERNAL_MODULE"})
_OF_FAMILY: Final[dict[str, frozenset[str]]] = {
    "node": _NODE,
    "deno": _NODE,
    "bun": _NODE,
    "python": frozenset(
        {
            "PYTHONBREAKPOINT", "PYTHONEXECUTABLE", "PYTHONHOME", "PYTHONINSPECT", "PYTHONPATH", "PYTHONPLATLIBDIR",
            "PYTHONPYCACHEPREFIX", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONWARNINGS", "PYTHON_PRESITE",
            "__PYVENV_LAUNCHER__",
        }
    ),
    "shell": frozenset({"BASHOPTS", "BASH_ENV", "ENV", "FPATH", "PS4", "SHELLOPTS", "ZDOTDIR"}),
    "perl": frozenset({"PERL5DB", "PERL5LIB", "PERL5OPT", "PERLLIB"}),
    "ruby": frozenset({"BUNDLE_GEMFILE", "GEM_HOME", "GEM_PATH", "RUBYLIB", "RUBYOPT"}),
    "java": frozenset(
        {
            "CLASSPATH", "IBM_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "OPENJ9_JAVA_OPTIONS",
            "_JAVA_OPTIONS",
        }
    ),
    "php": frozenset({"PHPRC", "PHP_INI_SCAN_DIR"}),
}  # fmt: skip
_PREFIX_OF_FAMILY: Final = {"deno": "DENO_", "bun": "BUN_", "shell": "BASH_FUNC_"}
_HARMLESS: Final = frozenset(
    {
        "BUN_INSTALL", "BUN_INSTALL_CACHE_DIR", "DENO_INSTALL", "DENO_INSTALL_ROOT", "DENO_NO_PROMPT",
        "DENO_NO_UPDATE_CHECK",
    }
)  # fmt: skip


def entries(raw: bytes) -> tuple[tuple[str, str], ...]:
    """Every ``NAME=value`` of /proc/PID/environ in order, doubled names too: which of them counts differs by reader."""
    pairs = (entry.partition(b"=") for entry in raw.split(b"\0") if b"=" in entry)
    return tuple((name.decode("utf-8", "replace"), value.decode("utf-8", "replace")) for name, _, value in pairs)


def from_environ(environ: Mapping[str, str] | Iterable[tuple[str, str]], family: str | None) -> tuple[str, ...]:
    """Variables that load code into a program of this family (None: no interpreter). Sorted."""
    pairs = tuple(environ.items() if isinstance(environ, Mapping) else environ)
    if family is None and any(name == "ELECTRON_RUN_AS_NODE" and value for name, value in pairs):
        family = "node"
    return _bounded({f"env {_assignment(name, value)}" for name, value in pairs if _counts(name, value, family)}, "env")


def from_argv(family: str | None, argv: Sequence[str]) -> tuple[str, ...]:
    """Options that load further code, as far as argv could be read (else the script is unresolved). Sorted."""
    if family is None:
        return ()
    return _bounded({f"argv {_assignment(*load)}" for load in parse_argv(family, argv).loads}, "argv")


def from_mappings(paths: Sequence[tuple[str, bool]], exe_path: str) -> tuple[str, ...]:
    """Mapped code that is out of place: ``paths`` are executable file mappings, True for the foreign ones. Sorted."""
    return _bounded({f"map {shown(path)}" for path, foreign in paths if foreign and path != exe_path}, "map")


def from_environment(root: str) -> tuple[str, ...]:
    """A virtual environment that is not the program's own installation. Whole, because a grant names it."""
    return (f"venv {_escaped(root[:MAX_PATH_CHARACTERS])}",)


def shown(text: str) -> str:
    """``text`` fit for a terminal and a log: printable ASCII as it is, the rest escaped, at most 80 characters."""
    escaped = _escaped(text[: MAX_VALUE_CHARACTERS + 1])
    return escaped if len(escaped) <= MAX_VALUE_CHARACTERS else escaped[: MAX_VALUE_CHARACTERS - 3] + "..."


def _escaped(text: str) -> str:
    return "".join(
        character if character.isascii() and character.isprintable() and character != "\\"
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )  # fmt: skip


def _assignment(name: str, value: str) -> str:
    return f"{shown(name)}={shown(value)}" if value else shown(name)


def _counts(name: str, value: str, family: str | None) -> bool:
    if not value or name in _HARMLESS:
        return False
    if family == "shell" and name == "PS4":
        return "$(" in value or "`" in value
    if name == "PYTHONBREAKPOINT":
        return family == "python" and value != "0"
    if name == "PYTHONWARNINGS":
        return family == "python" and warning_imports(value)
    prefix = _PREFIX_OF_FAMILY.get(family or "")
    return (
        name in _EVERY
        or name in _OF_FAMILY.get(family or "", frozenset())
        or (prefix is not None and name.startswith(prefix))
    )


def _bounded(found: set[str], kind: str) -> tuple[str, ...]:
    ordered = sorted(found)
    if len(ordered) <= MAX_ENTRIES:
        return tuple(ordered)
    return tuple(sorted([*ordered[:MAX_ENTRIES], f"{kind} and {len(ordered) - MAX_ENTRIES} more"]))
