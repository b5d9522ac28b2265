"""Bun and Deno, from their ``--help`` and sources (Arguments.zig, flags.rs); neither runs in our tests.

Both have subcommands. Only running a local file is a script: packages (``bun x``), tasks, tests, servers and
addresses (``https:``, ``npm:``, ``jsr:``, ``data:``) are unresolved. ``bun run name`` prefers a script of
package.json, so it counts only for a name that begins with ``.`` or ``/``; plain ``bun name`` also for the endings
that bun runs itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from attestd.evidence.interpreters.spec import Reader, ScriptSpec, Take, UnknownOptionError, finish, names, table

_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_BUN_ENDINGS: Final = (".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx")

BUN: Final = table({Take.FLAG: "b i h v", Take.VALUE: "e p r d l", Take.REST: "c"})
BUN_LONG: Final = table(
    {
        Take.FLAG: "bun expose-gc help hot if-present no-addons no-clear-screen no-deprecation no-env-file "
        "no-install no-macros "
        "prefer-latest prefer-offline preserve-symlinks preserve-symlinks-main revision silent smol "
        "throw-deprecation version watch zero-fill-buffers use-system-ca use-openssl-ca use-bundled-ca",
        Take.VALUE: "conditions console-depth define dns-result-order drop env-file eval extension-order "
        "fetch-preconnect import install jsx-factory jsx-fragment jsx-import-source jsx-runtime loader main-fields "
        "max-http-header-size port preload print require shell title tsconfig-override unhandled-rejections user-agent",
        Take.REST: "config inspect inspect-brk inspect-wait",
    }
)
_BUN_LOADS: Final = names(
    "-r --preload --require --import -c --config --env-file --tsconfig-override --inspect --inspect-brk --inspect-wait"
)

DENO: Final = table({Take.FLAG: "A q", Take.VALUE: "c L", Take.REST: "E I N P R r S W"})
DENO_LONG: Final = table(
    {
        Take.FLAG: "allow-all allow-hrtime cached-only no-clear-screen no-code-cache no-config no-lock no-npm "
        "no-prompt "
        "no-remote quiet strace-ops unstable",
        Take.VALUE: "cert config ext import import-map location log-level node-modules-linker preload seed "
        "watch-exclude",
        Take.REST: "allow-env allow-ffi allow-import allow-net allow-read allow-run allow-scripts allow-sys "
        "allow-write "
        "check conditions coverage deny-env deny-ffi deny-import deny-net deny-read deny-run deny-sys deny-write "
        "env-file "
        "frozen inspect inspect-brk inspect-wait lock minimum-dependency-age no-check node-modules-dir "
        "permission-set reload "
        "unsafely-ignore-certificate-errors v8-flags vendor watch watch-hmr unstable-bare-node-builtins "
        "unstable-broadcast-channel "
        "unstable-byonm unstable-cron unstable-detect-cjs unstable-ffi unstable-fs unstable-http unstable-kv "
        "unstable-net "
        "unstable-node-globals unstable-otel unstable-process unstable-raw-imports unstable-sloppy-imports "
        "unstable-temporal unstable-unsafe-proto unstable-webgpu unstable-worker-options",
    }
)
_DENO_LOADS: Final = names(
    "-c --config --import --import-map --preload --env-file --inspect --inspect-brk --inspect-wait"
)


def parse_bun(words: Sequence[str]) -> ScriptSpec:
    """``words`` without argv[0]. Raises UnknownOptionError."""
    reader = Reader(words, short=BUN, long=BUN_LONG, loads=_BUN_LOADS)
    named = _bun_options(reader)
    if named is not None:
        return named
    rest = reader.rest()
    if rest and rest[0] == "run" and not reader.ended:
        reader.next_word("run")
        named = _bun_options(reader)
        if named is not None:
            return named
        rest = reader.rest()
        endings: tuple[str, ...] = ()
    else:
        endings = _BUN_ENDINGS
    if not rest:
        raise UnknownOptionError("bun")
    if rest[0] == "-":
        return finish(reader, "stdin")
    if rest[0].startswith((".", "/")) or (endings and rest[0].endswith(endings) and not _ADDRESS.match(rest[0])):
        return finish(reader, "script", rest[0])
    raise UnknownOptionError(rest[0])


def _bun_options(reader: Reader) -> ScriptSpec | None:
    for option, value in reader.options():
        if option in ("-e", "-p", "--eval", "--print"):
            return finish(reader, "inline", text=value)
    return None


def parse_deno(words: Sequence[str]) -> ScriptSpec:
    """``words`` without argv[0]. Raises UnknownOptionError."""
    reader = Reader(words, short=DENO, long=DENO_LONG, loads=_DENO_LOADS)
    for _ in reader.options():
        pass
    rest = reader.rest()
    if not rest:
        return finish(reader, "none")
    command = rest[0]
    if command == "eval":
        return _deno_eval(rest[1:])
    if command == "run":
        reader.next_word("run")
        for _ in reader.options():
            pass
        rest = reader.rest()
    elif not (command.startswith((".", "/")) or command.endswith(_BUN_ENDINGS)):
        raise UnknownOptionError(command)
    if not rest or _ADDRESS.match(rest[0]):
        raise UnknownOptionError("deno run")
    return finish(reader, "stdin") if rest[0] == "-" else finish(reader, "script", rest[0])


def _deno_eval(words: Sequence[str]) -> ScriptSpec:
    long = {**DENO_LONG, "print": Take.FLAG}
    reader = Reader(words, short={**DENO, "p": Take.FLAG}, long=long, loads=_DENO_LOADS)
    for _ in reader.options():
        pass
    rest = reader.rest()
    if not rest:
        raise UnknownOptionError("deno eval")
    return finish(reader, "inline", text=rest[0])
