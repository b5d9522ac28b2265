"""Interpreters: which program is one, and what its command line makes it run. One table file per family group.

Rules: facts in, typed value out; nothing is opened. argv is the process's own word: good enough to say *which* script
to look at, never to trust it. What a table does not know is ``unresolved``. A first word that does not call this
interpreter (``exec -a``, a process title that was rewritten) makes the whole command line unbelievable, so it is
unresolved too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from attestd.evidence.interpreters import bun_deno, java, node, python, scripting, shell
from attestd.evidence.interpreters.names import base_name, family
from attestd.evidence.interpreters.spec import ScriptSpec, UnknownOptionError

__all__ = ["ScriptSpec", "base_name", "family", "parse_argv"]

_UNKNOWN_BYTES: Final = "\N{REPLACEMENT CHARACTER}"

_PARSERS: Final[dict[str, Callable[[Sequence[str]], ScriptSpec]]] = {
    "node": node.parse,
    "python": python.parse,
    "perl": scripting.parse_perl,
    "ruby": scripting.parse_ruby,
    "php": scripting.parse_php,
    "java": java.parse,
    "bun": bun_deno.parse_bun,
    "deno": bun_deno.parse_deno,
}


def parse_argv(family_name: str, argv: Sequence[str], exe_path: str = "") -> ScriptSpec:
    """What ``argv`` (whole, with argv[0]) makes an interpreter of this family run.

    ``exe_path`` selects the dialect among the shells; without it argv[0] does, which is good enough for display only.
    Never raises; the argument of a ``script`` is always one of ``argv[1:]``.
    """
    if not argv or not _calls(family_name, argv[0]):
        return ScriptSpec(kind="unresolved", argument=argv[0] if argv else "")
    try:
        if family_name == "shell":
            spec = shell.parse(argv, base_name(exe_path) if exe_path else base_name(argv[0]))
        elif family_name in _PARSERS:
            spec = _PARSERS[family_name](argv[1:])
        else:
            return ScriptSpec(kind="unresolved", argument=family_name)
    except UnknownOptionError as unknown:
        return ScriptSpec(kind="unresolved", argument=str(unknown))
    if _UNKNOWN_BYTES in spec.argument or _UNKNOWN_BYTES in spec.text:
        return ScriptSpec(kind="unresolved", argument=spec.argument, loads=spec.loads)
    return spec


def _calls(family_name: str, first: str) -> bool:
    """Whether argv[0] calls an interpreter of this family. ``bunx`` is ``bun x`` by its name alone."""
    name = base_name(first).removeprefix("-")
    return family(name) == family_name and not name.startswith("bunx")
