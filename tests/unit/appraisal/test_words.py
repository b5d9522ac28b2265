"""Text of others, made fit to be shown."""

from __future__ import annotations

import pytest

from attestd.appraisal.model import LinkClass
from attestd.appraisal.words import escape, label, quoted, short_name
from attestd.evidence.model import Link, Script
from tests.support.evidence import (
    claude,
    evil,
    init,
    inline_of,
    link_of,
    node_program,
    origin_of,
    python_client,
    script_of,
    shipped_table,
    terminal,
)

TABLE = shipped_table()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("client.py", "client.py"),
        ("Grüße 1", "Grüße 1"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\nb\r\t\x00", "a\\x0ab\\x0d\\x09\\x00"),
        ("\u202eyp", "\\u202eyp"),
        ("a\u2028b\u00a0c\u3000", "a\\u2028b\\xa0c\\u3000"),
        ("\U000e0041", "\\U000e0041"),
        ('a" | b · c \\', "a\\x22 \\x7c b \\xb7 c \\x5c"),
        ("x" * 90, "x" * 80 + "…"),
        ("x" * 79 + "\n\n", "x" * 79 + "\\x0a…"),
        (" !#[]{}~ ", " !#[]{}~ "),
        ("\x7f", "\\x7f"),
    ],
)
def test_escape(text: str, shown: str):
    """Nothing that moves, hides or poses as punctuation comes through; long text is cut."""
    assert escape(text) == shown
    assert quoted(text) == f'"{shown}"'


@pytest.mark.parametrize(
    ("link", "title", "origin"),
    [
        (claude(), '"Claude Code 2.1.328"', "npm @anthropic-ai/claude-code (claimed)"),
        (
            node_program("/x/a.js", origin_of("npm:@anthropic-ai/claude-code", "2")),
            "Claude Code 2",
            "npm @anthropic-ai/claude-code",
        ),
        (node_program("/x/a.js", origin_of("npm:a|b", "2", verified=False)), '"a\\x7cb 2"', "npm a\\x7cb (claimed)"),
        (link_of("/usr/bin/socat", "dpkg:socat"), "socat", "dpkg socat"),
        (link_of("/usr/share/code/code", "dpkg:code"), "Visual Studio Code 1.0", "dpkg code"),
        (python_client(), "client.py", ""),
        (python_client(script=script_of("python", "/x/y.py", kind="module", name="y")), "python3.11 -m y", ""),
        (python_client(script=inline_of("python", "x")), "python3.11 with inline code", ""),
        (python_client(script=Script(kind="none", interpreter="python")), "python3.11", ""),
        (python_client(script=Script(kind="stdin", interpreter="python")), "python3.11 with code from stdin", ""),
        (python_client(script=Script(kind="unresolved", interpreter="python")), "python3.11 with unresolved code", ""),
        (evil("/tmp/x (deleted)"), "x", ""),
        (evil("/"), "?", ""),
        (link_of(None, comm="a\x07b"), 'unreadable process "a\\x07b"', ""),
        (init(), "init", ""),
    ],
)
def test_label(link: Link, title: str, origin: str):
    """Titles say what is verified plainly and quote what is only claimed."""
    found = label(link, TABLE)
    assert (found.title, found.origin) == (title, origin)


def test_short_names():
    """The shim by our name, members by the table's, others by their file."""
    assert short_name(python_client(), LinkClass.RELAY, None) == "attestd-connect"
    assert short_name(terminal(), LinkClass.EDGE, None) == "ghostty"
    assert short_name(init(), LinkClass.EDGE, None) == "init"
