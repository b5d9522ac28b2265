"""CPython and PyPy. Source: Python/getopt.c, Python/initconfig.c and ``python --help-all``.

``-c`` and ``-m`` end the options. A directory or a zip file as script is a script: the resolver opens its ``__main__``.
``-i`` counts as loading code: after the script Python runs what its standard input says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from attestd.evidence.interpreters.spec import Reader, ScriptSpec, Take, finish, operand, table

SHORT: Final = table({Take.FLAG: "b B d E h i I O P q R s S t u v V x ?", Take.VALUE: "c m W X"})
LONG: Final = table({Take.NEXT: "check-hash-based-pycs", Take.FLAG: "help help-all help-env help-xoptions version"})
SEARCH: Final = frozenset({"-E", "-I", "-P", "-s", "-S"})
_LOADING_X: Final = frozenset({"pycache_prefix", "presite"})
_IMPORTING_WARNING: Final = re.compile(r"[^:]*:[^:]*:[^:]*\.")


def warning_imports(value: str) -> bool:
    """Whether a ``-W`` filter (comma-separated) names its category by module, which Python then imports."""
    return any(_IMPORTING_WARNING.match(part) for part in value.split(","))


def parse(words: Sequence[str]) -> ScriptSpec:
    """``words`` without argv[0]. Raises UnknownOptionError."""
    reader = Reader(words, short=SHORT, long=LONG, loads=frozenset({"-i"}), settings=SEARCH)
    for option, value in reader.options():
        if option == "-c":
            return finish(reader, "inline", text=value)
        if option == "-m":
            return finish(reader, "module", value)
        loading = option == "-X" and value.partition("=")[0] in _LOADING_X
        if loading or (option == "-W" and warning_imports(value)):
            reader.loads.append((option, value))
    return operand(reader)
