"""Node.js 18 to 25. Source: src/node_options.cc, src/node_options-inl.h, and the table that ``node`` itself prints.

Node reads ``_`` as ``-`` in option names and ``--no-x`` as the negation of a boolean; it hands unknown options to V8,
whose options never take the next word. A boolean never takes a value, a string takes ``=value`` or the next word,
which must not begin with a dash. Modes in which node runs something other than the named file are unresolved: tests,
watching, ``inspect``, ``--run``, snapshots, ``--entry-url``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attestd.evidence.interpreters.spec import ScriptSpec, UnknownOptionError, names

_ALIASES: Final = {
    "-C": "--conditions", "-i": "--interactive", "-r": "--require", "-e": "--eval", "-p": "--print", "--debug-port":
    "--inspect-port", "--loader": "--experimental-loader", "--report-directory": "--report-dir", "--security-reverts":
    "--security-revert", "--es-module-specifier-resolution": "--experimental-specifier-resolution", "-v": "--version",
    "-h": "--help",
}  # fmt: skip

_FLAGS: Final = names(
    """
    abort-on-uncaught-exception addons allow-addons allow-child-process allow-ffi allow-inspector allow-net allow-wasi
    allow-worker async-context-frame completion-bash cpu-prof debug-arraybuffer-allocations deprecation disable-sigusr1
    disable-wasm-trap-handler disallow-code-generation-from-strings enable-etw-stack-walking enable-fips
    enable-network-family-autoselection enable-source-maps experimental-abortcontroller experimental-addon-modules
    experimental-async-context-frame experimental-default-config-file experimental-detect-module
    experimental-eventsource
    experimental-fetch experimental-global-customevent experimental-global-navigator experimental-global-webcrypto
    experimental-import-meta-resolve experimental-import-text experimental-inspector-network-resource
    experimental-json-modules experimental-modules experimental-network-imports experimental-network-inspection
    experimental-permission experimental-print-required-tla experimental-quic experimental-repl-await
    experimental-report
    experimental-require-module experimental-shadow-realm experimental-sqlite experimental-storage-inspection
    experimental-strip-types experimental-test-coverage experimental-test-module-mocks experimental-top-level-await
    experimental-transform-types experimental-vm-modules experimental-wasi-unstable-preview1 experimental-wasm-modules
    experimental-websocket experimental-webstorage experimental-worker experimental-worker-inspection
    expose-gc expose-internals extra-info-on-fatal-exception force-async-hooks-checks force-context-aware force-fips
    force-node-api-uncaught-exceptions-policy frozen-intrinsics global-search-paths harmony harmony-shadow-realm
    heap-prof
    help huge-max-old-generation-size insecure-http-parser inspect inspect-brk inspect-brk-node inspect-wait interactive
    interpreted-frames-native-stack jitless napi-modules network-family-autoselection node-memory-debug node-snapshot
    openssl-legacy-provider openssl-shared-config pending-deprecation perf-basic-prof perf-basic-prof-only-functions
    perf-prof perf-prof-unwinding-info permission permission-audit preserve-symlinks preserve-symlinks-main prof
    report-compact report-exclude-env report-exclude-network report-on-fatalerror report-on-signal
    report-uncaught-exception require-module strip-types throw-deprecation tls-max-v1.2 tls-max-v1.3 tls-min-v1.0
    tls-min-v1.1 tls-min-v1.2 tls-min-v1.3 trace-atomics-wait trace-deprecation trace-env trace-env-js-stack
    trace-env-native-stack trace-events-enabled trace-exit trace-promises trace-sigint trace-sync-io trace-tls
    trace-uncaught trace-warnings track-heap-objects use-bundled-ca use-env-proxy use-openssl-ca use-system-ca
    verify-base-objects version warnings webstorage zero-fill-buffers sqlite
    """
)
_VALUES: Final = names(
    """
    allow-fs-read allow-fs-write conditions cpu-prof-dir cpu-prof-interval cpu-prof-name diagnostic-dir disable-proto
    disable-warning dns-result-order env-file env-file-if-exists experimental-config-file experimental-default-type
    experimental-loader experimental-policy experimental-specifier-resolution heap-prof-dir heap-prof-interval
    heap-prof-name heapsnapshot-near-heap-limit heapsnapshot-signal icu-data-dir import input-type inspect-port
    inspect-publish-uid localstorage-file max-http-header-size network-family-autoselection-attempt-timeout
    openssl-config
    policy-integrity redirect-warnings report-dir report-filename report-signal require secure-heap secure-heap-min
    security-revert title tls-cipher-list tls-keylog trace-event-categories trace-event-file-pattern
    trace-require-module unhandled-rejections use-largepages v8-pool-size
    """
)
_V8: Final = names(
    """
    max-old-space-size max-semi-space-size min-semi-space-size max-heap-size max-old-space-size-percentage stack-size
    stack-trace-limit initial-old-space-size initial-heap-size optimize-for-size lite-mode single-threaded
    max-lazy always-opt opt turbo-filter trace-gc trace-opt trace-deopt gc-interval random-seed semi-space-growth-factor
    use-strict allow-natives-syntax max-inlined-bytecode-size-cumulative wasm-max-mem-pages gc-global expose-gc-as
    """
)
_BOOLEAN_OR_PORT: Final = frozenset({"inspect", "inspect-brk", "inspect-brk-node", "inspect-wait"})
_LOADS: Final = names(
    "--require --import --experimental-loader --env-file --env-file-if-exists --experimental-config-file "
    "--experimental-default-config-file --experimental-policy --openssl-config --openssl-shared-config --inspect "
    "--inspect-brk "
    "--inspect-brk-node --inspect-wait --inspect-port --interactive --expose-internals --security-revert"
)
_SUBCOMMANDS: Final = frozenset({"inspect", "debug"})


class _Seen:
    def __init__(self) -> None:
        self.loads: list[tuple[str, str]] = []
        self.printing = False
        self.inline: str | None = None


def parse(words: Sequence[str]) -> ScriptSpec:
    """``words`` without argv[0]. Raises UnknownOptionError."""
    seen = _Seen()
    at = 0
    while at < len(words) and len(words[at]) > 1 and words[at].startswith("-"):
        if words[at] == "--":
            at += 1
            break
        at = _option(words, at, seen)
    return _ending(words[at:], seen)


def _ending(rest: Sequence[str], seen: _Seen) -> ScriptSpec:
    loads = tuple(seen.loads)
    if seen.inline is not None:
        return ScriptSpec(kind="inline", text=seen.inline, loads=loads)
    if not rest:
        return ScriptSpec(kind="stdin" if seen.printing else "none", loads=loads)
    if rest[0] == "-":
        return ScriptSpec(kind="stdin", loads=loads)
    if not rest[0] or rest[0] in _SUBCOMMANDS:
        raise UnknownOptionError(rest[0])
    return ScriptSpec(kind="script", argument=rest[0], loads=loads)


def _option(words: Sequence[str], at: int, seen: _Seen) -> int:
    """Read the option at ``at``; the index behind it."""
    word = words[at]
    following = words[at + 1] if at + 1 < len(words) else None
    name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
    name = "--" + name[2:].replace("_", "-") if name.startswith("--") else name
    name = _ALIASES.get(name, name)
    if name == "-pe" or (name == "--print" and not equals and following is not None and not following.startswith("-")):
        name, seen.printing = "--eval", True
    bare = name[2:]
    if name == "--print" and not equals:
        seen.printing = True
        return at + 1
    if name == "--eval" or bare in _VALUES:
        if not equals:
            if following is None or following.startswith("-"):
                raise UnknownOptionError(word)
            value = following
        _note(seen, name, value)
        return at + (1 if equals else 2)
    if not _stands_alone(bare, valued=bool(equals)):
        raise UnknownOptionError(word)
    _note(seen, name, value)
    return at + 1


def _note(seen: _Seen, name: str, value: str) -> None:
    if name == "--eval":
        seen.inline = value
    if name in _LOADS:
        seen.loads.append((name, value))


def _stands_alone(bare: str, *, valued: bool) -> bool:
    positive = bare.removeprefix("no-")
    if valued:
        return bare in _V8 or bare in _BOOLEAN_OR_PORT
    return positive in _FLAGS or positive in _V8 or bare.startswith("harmony-")
