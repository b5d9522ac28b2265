"""Shells. Sources: shell.c of bash, options.c of dash, init.c of zsh, ``fish --help``.

The dialect follows the executable's own name, never argv[0] alone: a letter that is a flag in one shell takes a value
in another. In all but fish the code of ``-c`` is the first word *behind* the options. A lone ``-`` ends the options.
Start-up files count as loaded code where a script file runs (``-i``, ``-l``), because they run inside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from attestd.evidence.interpreters.spec import (
    NO_OPTIONS,
    Reader,
    Rule,
    ScriptSpec,
    Take,
    UnknownOptionError,
    finish,
    table,
)

_POSIX: Final = "a b c e f h i l m n p s u v x C E I V"
_FLAGS: Final = {
    "bash": "a b c e f h i k l m n p r s t u v x B C D E H P T",
    "dash": _POSIX,
    "zsh": "a c d e f i k l m n p r s t u v x y",
    "ksh": "a b c e f h i k l m n p r s t u v x C",
}
_BASH_LONG: Final = table(
    {
        Take.FLAG: "debug dump-po-strings dump-strings help login noediting noprofile norc posix pretty-print "
        "protected "
        "restricted verbose version wordexp",
        Take.NEXT: "init-file rcfile",
    }
)
_ZSH_LONG: Final = table({Take.FLAG: "help interactive login no-globalrcs no-rcs norcs version"})
FISH: Final = table({Take.FLAG: "h i l n N P v", Take.VALUE: "c C"})
FISH_LONG: Final = table(
    {Take.FLAG: "help interactive login no-config no-execute private version", Take.VALUE: "command init-command"}
)
_LOADS: Final = frozenset({"-i", "-l", "--login", "--interactive", "--init-file", "--rcfile", "-C", "--init-command"})
_ALWAYS_LOADS: Final = frozenset({"--init-file", "--rcfile", "-C", "--init-command"})
_APPLETS: Final = frozenset({"sh", "ash", "hush", "bash"})


def dialect(exe_name: str) -> str:
    """bash, dash, zsh, ksh, fish or busybox, by the executable's base name. ``sh`` is read as dash: fewest options."""
    name = exe_name.lstrip("-")
    for known in ("bash", "zsh", "fish", "ksh", "busybox", "toybox"):
        if known in name:
            return "busybox" if known == "toybox" else known
    return "ksh" if name.startswith(("yash", "posh")) else "dash"


def parse(argv: Sequence[str], exe_name: str) -> ScriptSpec:
    """The whole ``argv``. Raises UnknownOptionError."""
    words = list(argv[1:])
    spoken = dialect(exe_name)
    if spoken == "busybox":
        applet = argv[0].rpartition("/")[2].lstrip("-")
        if applet.startswith(("busybox", "toybox")) and words:
            applet = words.pop(0)
        if applet not in _APPLETS:
            raise UnknownOptionError(applet)
        spoken = "dash"
    if spoken == "fish":
        return _parse_fish(words)
    return _parse_posix(words, spoken)


def _parse_fish(words: Sequence[str]) -> ScriptSpec:
    reader = Reader(words, short=FISH, long=FISH_LONG, loads=_LOADS)
    lines = [value for option, value in reader.options() if option in ("-c", "--command")]
    if lines:
        return _ended(reader, "inline", text="\n".join(lines))
    rest = reader.rest()
    return _ended(reader, "script", rest[0]) if rest else _ended(reader, "none")


def _parse_posix(words: Sequence[str], spoken: str) -> ScriptSpec:
    long = {"bash": _BASH_LONG, "zsh": _ZSH_LONG}.get(spoken, NO_OPTIONS)
    short = table({Take.FLAG: _FLAGS[spoken], Take.NEXT: "o O" if spoken == "bash" else "o"})
    reader = Reader(_minus(words, long), short=short, long=long, loads=_LOADS)
    seen = {option for option, _ in reader.options()}
    rest = reader.rest()
    if rest and not reader.ended and rest[0] in ("-", "+"):
        if rest[0] == "+":
            raise UnknownOptionError(rest[0])
        rest = rest[1:]
    if "-c" in seen:
        if not rest:
            raise UnknownOptionError("-c")
        return _ended(reader, "inline", text=rest[0])
    if "-s" in seen:
        return _ended(reader, "stdin")
    return _ended(reader, "script", rest[0]) if rest else _ended(reader, "none")


def _minus(words: Sequence[str], long: Mapping[str, Rule]) -> list[str]:
    """``+x`` and ``+o name`` read as ``-x`` and ``-o name``; a long option with one dash (bash) is refused."""
    out = list(words)
    at = 0
    while at < len(out) and len(out[at]) > 1 and out[at][0] in "-+" and out[at] != "--":
        word = out[at]
        if word[0] == "+":
            out[at] = "-" + word[1:]
        if not word.startswith("--") and word[1:] in long:
            raise UnknownOptionError(word)
        takes_next = long.get(word[2:]) is Take.NEXT if word.startswith("--") else word[-1] in "oO"
        at += 2 if takes_next else 1
    return out


def _ended(reader: Reader, kind: str, argument: str = "", text: str = "") -> ScriptSpec:
    if kind != "script":
        reader.loads = [load for load in reader.loads if load[0] in _ALWAYS_LOADS]
    return finish(reader, kind, argument, text)
