"""Perl, Ruby and PHP. Sources: perl.c (perl_parse, moreswitches), ruby.c (proc_options), main/getopt.c and php_cli.c.

Several ``-e`` make one program, joined by line feeds. ``-x`` with a directory changes the directory: unresolved.
``-S`` searches PATH unless the name has a slash; the resolver decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from attestd.evidence.interpreters.spec import (
    NO_OPTIONS,
    Reader,
    Rule,
    ScriptSpec,
    Take,
    UnknownOptionError,
    finish,
    names,
    operand,
    table,
)

_OCTAL: Final = re.compile(r"[0-7]*")
PERL: Final[dict[str, Rule]] = {
    **table({Take.FLAG: "a c f g n p s S t T u U v w W X h", Take.VALUE: "e E I", Take.REST: "C d D F i m M V x"}),
    "0": re.compile(r"[xX][0-9a-fA-F]+|[0-7]*"),
    "l": _OCTAL,
}
_PERL_LOADS: Final = frozenset({"-d", "-I", "-m", "-M"})

RUBY: Final[dict[str, Rule]] = {
    **table({Take.FLAG: "a c d h l n p s S U v w y", Take.VALUE: "C e E I r X", Take.REST: "F i x"}),
    "0": _OCTAL,
    "K": re.compile(r"[a-zA-Z]"),
    "W": re.compile(r"[0-2]|:[a-z_-]+|"),
}
RUBY_LONG: Final = table(
    {
        Take.FLAG: "copyright debug debug-frozen-string-literal disable-all disable-did_you_mean "
        "disable-error_highlight "
        "disable-frozen-string-literal disable-gem disable-gems disable-jit disable-rubyopt disable-syntax_suggest "
        "enable-all enable-frozen-string-literal enable-gems help jit mjit rjit verbose version yjit yydebug",
        Take.VALUE: "disable dump enable encoding external-encoding internal-encoding backtrace-limit",
        Take.REST: "crash-report parser yjit-call-threshold yjit-exec-mem-size mjit-max-cache mjit-min-calls "
        "mjit-verbose",
    }
)
_RUBY_LOADS: Final = frozenset({"-I", "-r"})

PHP: Final = table({Take.FLAG: "a C e h H i l m n q s v w ?", Take.VALUE: "B c d E f F r R S t z"})
PHP_LONG: Final = table(
    {
        Take.FLAG: "help info ini interactive modules no-chdir no-header no-php-ini profile-info strip syntax-check "
        "syntax-highlight usage version",
        Take.VALUE: "define docroot file php-ini process-begin process-code process-end process-file run server "
        "zend-extension",
    }
)
_PHP_NAMES: Final = {
    "--define": "-d", "--file": "-f", "--php-ini": "-c", "--run": "-r", "--zend-extension": "-z", "--interactive": "-a",
}  # fmt: skip
_PHP_OTHER_MODES: Final = names(
    "-B -E -F -R -S -t --process-begin --process-code --process-end --process-file --server --docroot -a"
)
_PHP_LOADING_INI: Final = re.compile(
    r"\s*(?:auto_prepend_file|auto_append_file|extension|zend_extension|extension_dir|include_path|ffi\.preload"
    r"|opcache\.preload|opcache\.file_cache|user_ini\.filename|sys_temp_dir)\b",
    re.IGNORECASE,
)


def parse_perl(words: Sequence[str]) -> ScriptSpec:
    """``words`` without argv[0]. Raises UnknownOptionError."""
    reader = Reader(words, short=PERL, long=NO_OPTIONS, loads=_PERL_LOADS, settings=frozenset({"-S"}))
    return _with_inline(reader, ("-e", "-E"))


def parse_ruby(words: Sequence[str]) -> ScriptSpec:
    """``words`` without argv[0]. Raises UnknownOptionError."""
    reader = Reader(words, short=RUBY, long=RUBY_LONG, loads=_RUBY_LOADS, settings=frozenset({"-S"}))
    return _with_inline(reader, ("-e",))


def _with_inline(reader: Reader, inline: tuple[str, ...]) -> ScriptSpec:
    lines: list[str] = []
    for option, value in reader.options():
        if option in inline:
            lines.append(value)
        elif option == "-x" and value:
            raise UnknownOptionError(option)
    if lines:
        return finish(reader, "inline", text="\n".join(lines))
    return operand(reader)


def parse_php(words: Sequence[str]) -> ScriptSpec:
    """``words`` without argv[0]. Server, per-line and interactive modes are unresolved. Raises UnknownOptionError."""
    reader = Reader(words, short=PHP, long=PHP_LONG)
    file: str | None = None
    for given, value in reader.options():
        option = _PHP_NAMES.get(given, given)
        if option in _PHP_OTHER_MODES:
            raise UnknownOptionError(given)
        if option in ("-c", "-z") or (option == "-d" and _PHP_LOADING_INI.match(value.lstrip("="))):
            reader.loads.append((given, value))
        if option == "-r":
            return finish(reader, "inline", text=value)
        if option == "-f":
            if value not in words:  # attached to the letter: rare, and its "=" is read in two ways
                raise UnknownOptionError(given)
            file = value
    if file is not None:
        return finish(reader, "stdin") if file == "-" else finish(reader, "script", file)
    return finish(reader, "none") if reader.ended else operand(reader)
