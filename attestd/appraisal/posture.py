"""What preloads and their like do to the level.

A variable or option that *names code to load* (LD_PRELOAD, NODE_OPTIONS=--require) puts unknown code into the
process: the digest no longer says what runs, so the cap is 0 and the process is no member of any class. A *search
path* (PYTHONPATH, LD_LIBRARY_PATH) only may lead to other code and is ordinary on developers' machines: the cap is 1.
A native library that was really loaded from a place the caller can write is seen as ``map`` and is 0; a module that
an interpreter loaded through a search path is not seen, which is why the relay accepts no search path at all (see
``references``). What is not in the table is treated as code. Values are shortened by the collector; a value that is
not shown is not trusted.
"""

from __future__ import annotations

import msgspec

from attestd.evidence.model import Link

LOADS_CODE = 0
SEARCH_PATH = 1
HARMLESS = 4

_ANY: frozenset[str] = frozenset()
_NATIVE = frozenset({"app"})


class PostureRule(msgspec.Struct, frozen=True):
    """``source name`` caps at ``cap`` in interpreters of these families (empty: in every image)."""

    source: str
    name: str
    cap: int
    families: frozenset[str] = _ANY


def _rules(cap: int, source: str, families: frozenset[str], names: str) -> tuple[PostureRule, ...]:
    return tuple(PostureRule(source, name, cap, families) for name in names.split())


_SHELL = frozenset({"shell"})
_PYTHON = frozenset({"python"})
_NODE = frozenset({"node", "bun", "deno"})
_PERL = frozenset({"perl"})
_RUBY = frozenset({"ruby"})
_JAVA = frozenset({"java"})
_PHP = frozenset({"php"})

POSTURE: tuple[PostureRule, ...] = (
    *_rules(LOADS_CODE, "env", _ANY, "LD_PRELOAD LD_AUDIT GCONV_PATH DYLD_INSERT_LIBRARIES"),
    *_rules(SEARCH_PATH, "env", _ANY, "LD_LIBRARY_PATH DYLD_LIBRARY_PATH DYLD_FALLBACK_LIBRARY_PATH"),
    *_rules(SEARCH_PATH, "env", _ANY, "DYLD_FRAMEWORK_PATH OPENSSL_CONF OPENSSL_ENGINES OPENSSL_MODULES"),
    *_rules(LOADS_CODE, "env", _NATIVE, "ELECTRON_RUN_AS_NODE"),
    *_rules(LOADS_CODE, "env", _SHELL, "BASH_ENV ENV"),
    *_rules(SEARCH_PATH, "env", _SHELL, "SHELLOPTS BASHOPTS PS4 FPATH ZDOTDIR BASH_FUNC_*"),
    *_rules(LOADS_CODE, "env", _PYTHON, "PYTHONHOME PYTHONPYCACHEPREFIX PYTHONPLATLIBDIR PYTHONEXECUTABLE"),
    *_rules(LOADS_CODE, "env", _PYTHON, "PYTHON_PRESITE"),
    *_rules(SEARCH_PATH, "env", _PYTHON, "PYTHONPATH PYTHONUSERBASE PYTHONSTARTUP PYTHONINSPECT"),
    *_rules(SEARCH_PATH, "env", _PYTHON, "PYTHONBREAKPOINT PYTHONWARNINGS __PYVENV_LAUNCHER__"),
    *_rules(LOADS_CODE, "env", _NODE, "NODE_OPTIONS NODE_COMPILE_CACHE NODE_REPL_EXTERNAL_MODULE"),
    *_rules(SEARCH_PATH, "env", _NODE, "NODE_PATH DENO_DIR"),
    *_rules(LOADS_CODE, "env", _PERL, "PERL5OPT PERL5DB"),
    *_rules(SEARCH_PATH, "env", _PERL, "PERL5LIB PERLLIB"),
    *_rules(LOADS_CODE, "env", _RUBY, "RUBYOPT"),
    *_rules(SEARCH_PATH, "env", _RUBY, "RUBYLIB GEM_HOME GEM_PATH BUNDLE_GEMFILE"),
    *_rules(LOADS_CODE, "env", _JAVA, "JAVA_TOOL_OPTIONS JDK_JAVA_OPTIONS _JAVA_OPTIONS"),
    *_rules(LOADS_CODE, "env", _JAVA, "IBM_JAVA_OPTIONS OPENJ9_JAVA_OPTIONS"),
    *_rules(SEARCH_PATH, "env", _JAVA, "CLASSPATH"),
    *_rules(LOADS_CODE, "env", _PHP, "PHPRC PHP_INI_SCAN_DIR"),
    *_rules(SEARCH_PATH, "argv", _SHELL, "-i -l --login --interactive"),
    *_rules(SEARCH_PATH, "argv", _PERL | _RUBY, "-I"),
    *_rules(SEARCH_PATH, "argv", _JAVA, "-cp -classpath --class-path"),
)

_BY_NAME = {(rule.source, rule.name): rule for rule in POSTURE}

_CUT = ("...", "…")
"""How the collector ends a value that it shortened."""

_HARMLESS_OPTIONS = frozenset(
    {
        "--dns-result-order",
        "--enable-source-maps",
        "--max-http-header-size",
        "--max-old-space-size",
        "--max-semi-space-size",
        "--no-deprecation",
        "--no-warnings",
        "--trace-warnings",
        "--use-openssl-ca",
        "--use-system-ca",
    }
)


def posture_cap(entry: str, link: Link, *, member: bool) -> int:
    """The cap of one posture entry of this link: 0, 1, or 4 for no cap.

    ``member``: the link is a known program of the class table or a reference value, so that only its own loader and
    its own interpreter family count; of an unknown image every variable counts, because it may embed any interpreter.
    """
    source, _, rest = entry.partition(" ")
    if source == "venv":
        return SEARCH_PATH
    name, has_value, value = rest.partition("=")
    rule = _BY_NAME.get((source, name)) or _BY_NAME.get((source, _family_name(name)))
    if rule is None:
        return LOADS_CODE
    if not _applies(rule, link, member=member):
        return HARMLESS
    if has_value and not value.strip():
        return HARMLESS
    if name == "NODE_OPTIONS" and has_value and _harmless_options(value):
        return HARMLESS
    return rule.cap


def caps(link: Link, *, member: bool) -> tuple[tuple[int, str], ...]:
    """Each posture entry of the link with its cap, in the order of the evidence."""
    return tuple((posture_cap(entry, link, member=member), entry) for entry in link.posture)


def loads_code(link: Link, *, member: bool) -> bool:
    """Whether unknown code was put into the process."""
    return any(cap == LOADS_CODE for cap, _ in caps(link, member=member))


def _applies(rule: PostureRule, link: Link, *, member: bool) -> bool:
    if not rule.families:
        return True
    if link.script is None:
        return not member
    return link.script.interpreter in rule.families


def _family_name(name: str) -> str:
    """Exported shell functions carry their own name in the variable's."""
    return "BASH_FUNC_*" if name.startswith("BASH_FUNC_") else name


def _harmless_options(value: str) -> bool:
    if value.endswith(_CUT):
        return False
    return all(word.partition("=")[0] in _HARMLESS_OPTIONS for word in value.split())
