"""Which programs are interpreters, by the base name of the real executable.

Recognising one too many is safe: it only adds a script to the identity. Family ``other`` are programs that run code
named on their command line and have no option table here (Lua, Tcl, awk, Electron, the dynamic loader, emulators):
their script is always unresolved, so that a package's own ``ld.so`` or ``lua`` is never an identity by itself.
"""

from __future__ import annotations

import re
from typing import Final

_VERSION: Final = r"-?[0-9.]*"
_PATTERNS: Final = (
    ("python", rf"(?:python|pypy|graalpy){_VERSION}[dmut]*(?:-dbg|-intel64)?"),
    ("node", rf"(?:node|nodejs|iojs){_VERSION}"),
    ("shell", rf"(?:bash|rbash|dash|sh|ash|zsh|rzsh|ksh|rksh|ksh93|mksh|lksh|oksh|pdksh|yash|posh|fish){_VERSION}"),
    ("shell", rf"(?:(?:bash|zsh|ksh|sh)-static|static-sh|zsh-static|busybox|toybox){_VERSION}"),
    ("perl", rf"perl{_VERSION}(?:-[a-z0-9_-]+)?"),
    ("ruby", rf"(?:ruby|jruby|truffleruby){_VERSION}"),
    ("java", r"java"),
    ("deno", r"deno"),
    ("bun", r"(?:bun|bunx|bun-debug|bun-profile)"),
    ("php", rf"(?:php|php-cgi|phpdbg){_VERSION}"),
    ("other", rf"(?:luajit|lua|texlua|tclsh|wish|expect|guile|julia|Rscript|R|racket|qjs|gjs|gjs-console){_VERSION}"),
    ("other", rf"(?:gawk|mawk|nawk|awk|pwsh|dotnet|mono|mono-sgen|beam\.smp|erl|erlexec|escript|ocaml|sbcl){_VERSION}"),
    ("other", r"(?:electron[0-9]*|osascript|tcsh|csh|nu|elvish|xonsh|swipl|gst|rakudo|moar|pike|janet)"),
    ("other", r"(?:qemu-[a-z0-9_]+(?:-static)?|wine(?:64)?(?:-preloader)?|box64|FEXInterpreter)"),
    ("other", r"(?:ld-linux[a-z0-9_-]*\.so(?:\.[0-9]+)*|ld-musl-[a-z0-9_]+\.so(?:\.[0-9]+)*|ld64\.so(?:\.[0-9]+)*)"),
    ("other", r"(?:ld(?:-[0-9.]+)?\.so(?:\.[0-9]+)*|rtld|libc\.so)"),
)
_COMPILED: Final = tuple((name, re.compile(rf"(?:{pattern})(?:\.exe)?")) for name, pattern in _PATTERNS)


def base_name(path: str) -> str:
    """The last component, without the mark of a deleted file."""
    return path.removesuffix(" (deleted)").rpartition("/")[2]


def family(exe_path: str) -> str | None:
    """The family of an executable, or None if it is no interpreter.

    node python ruby perl java deno bun php shell, or ``other``: its command line is not understood here.
    """
    name = base_name(exe_path)
    return next((found for found, pattern in _COMPILED if pattern.fullmatch(name)), None)
