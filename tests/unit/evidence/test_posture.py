"""Signs of other code in a process: which variables, options and mappings count, and how they are shown."""

from __future__ import annotations

import pytest

from attestd.evidence import posture


@pytest.mark.parametrize(
    ("family", "name", "value", "counts"),
    [
        (None, "LD_PRELOAD", "/x/evil.so", True),
        ("node", "LD_PRELOAD", "", False),
        (None, "LD_AUDIT", "x", True),
        ("shell", "LD_LIBRARY_PATH", "x", True),
        (None, "GCONV_PATH", "x", True),
        (None, "OPENSSL_CONF", "x", True),
        (None, "ELECTRON_RUN_AS_NODE", "1", True),
        ("node", "NODE_OPTIONS", "--require x", True),
        (None, "NODE_OPTIONS", "--require x", False),
        ("python", "NODE_OPTIONS", "--require x", False),
        ("node", "NODE_PATH", "x", True),
        ("node", "NODE_ENV", "production", False),
        ("python", "PYTHONPATH", "x", True),
        ("python", "PYTHONBREAKPOINT", "0", False),
        ("python", "PYTHONBREAKPOINT", "evil.hook", True),
        ("python", "PYTHONWARNINGS", "ignore", False),
        ("python", "PYTHONWARNINGS", "ignore,error::evil.Category", True),
        ("python", "PYTHONUNBUFFERED", "1", False),
        ("shell", "BASH_ENV", "x", True),
        ("shell", "ENV", "x", True),
        (None, "ENV", "production", False),
        ("shell", "PS4", "+ ", False),
        ("shell", "PS4", "$(evil)", True),
        ("shell", "BASH_FUNC_ls%%", "() { evil; }", True),
        ("perl", "PERL5OPT", "-Mevil", True),
        ("ruby", "RUBYOPT", "-revil", True),
        ("java", "_JAVA_OPTIONS", "-javaagent:x", True),
        ("java", "CLASSPATH", "x", True),
        ("deno", "DENO_V8_FLAGS", "x", True),
        ("deno", "DENO_NO_PROMPT", "1", False),
        ("bun", "BUN_INSPECT_PRELOAD", "x", True),
        ("bun", "BUN_INSTALL", "x", False),
        ("php", "PHPRC", "x", True),
        ("other", "HOME", "x", False),
    ],
)
def test_variables(family: str | None, name: str, value: str, counts: bool):
    """A variable counts for its family only, and never when it is empty."""
    assert posture.from_environ({name: value}, family) == ((f"env {name}={value}",) if counts else ())


def test_electron_as_node_reads_nodes_variables():
    """An Electron program told to be node loads what node loads."""
    environ = {"ELECTRON_RUN_AS_NODE": "1", "NODE_OPTIONS": "--require x"}
    assert posture.from_environ(environ, None) == ("env ELECTRON_RUN_AS_NODE=1", "env NODE_OPTIONS=--require x")


def test_doubled_variables_all_count():
    """An empty double does not hide the first: readers differ in which one they take."""
    pairs = posture.entries(b"LD_PRELOAD=/evil.so\0LD_PRELOAD=\0=x\0nothing\0A=\xff\0")
    assert pairs == (("LD_PRELOAD", "/evil.so"), ("LD_PRELOAD", ""), ("", "x"), ("A", "\N{REPLACEMENT CHARACTER}"))
    assert posture.from_environ(pairs, None) == ("env LD_PRELOAD=/evil.so",)


def test_options():
    """Options that load code, sorted, with their values."""
    argv = ["node", "--require", "./z.js", "--import=./a.mjs", "main.js"]
    assert posture.from_argv("node", argv) == ("argv --import=./a.mjs", "argv --require=./z.js")
    assert posture.from_argv("python", ["python3", "-i", "a.py"]) == ("argv -i",)
    assert posture.from_argv(None, argv) == ()


def test_mappings():
    """Foreign mappings other than the executable itself, sorted."""
    paths = [("/x/b.so", True), ("/usr/lib/libc.so", False), ("/x/a.so", True), ("/x/prog", True)]
    assert posture.from_mappings(paths, "/x/prog") == ("map /x/a.so", "map /x/b.so")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain value", "plain value"),
        ("\x1b[31mred\r\n", "\\x1b[31mred\\r\\n"),
        ("\u202eevil", "\\u202eevil"),
        ("back\\slash", "back\\\\slash"),
        ("\ud800", "\\ud800"),
        ("x" * 80, "x" * 80),
        ("x" * 81, "x" * 77 + "..."),
        ("\x00" * 1000, "\\x00" * 19 + "\\..."),
    ],
)
def test_shown_is_fit_for_a_terminal(text: str, expected: str):
    """Only printable ASCII comes out, at most 80 characters of it."""
    assert posture.shown(text) == expected
    assert len(posture.shown(text)) <= posture.MAX_VALUE_CHARACTERS


def test_the_number_of_entries_is_bounded():
    """A thousand exported functions become a count."""
    found = posture.from_environ({f"BASH_FUNC_f{number}%%": "() { :; }" for number in range(1000)}, "shell")
    assert len(found) == posture.MAX_ENTRIES + 1
    assert "env and 968 more" in found
