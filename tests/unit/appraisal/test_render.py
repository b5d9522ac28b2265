"""The fixed line."""

from __future__ import annotations

from typing import Any

import pytest

from attestd.appraisal.appraise import appraise
from attestd.evidence.model import Link
from tests.support.evidence import (
    NAMING,
    REFERENCES,
    claude,
    evidence_of,
    evil,
    init,
    node_program,
    npm_tool,
    origin_of,
    shell,
    shim,
    shipped_table,
    terminal,
)

TABLE = shipped_table()
CLAUDE = "Claude Code 2.1.328 · npm @anthropic-ai/claude-code"
VERIFIED = node_program("/usr/share/claude/cli.js", origin_of("npm:@anthropic-ai/claude-code", "2.1.328"))


def shown(*links: Link, **facts: Any) -> str:
    """The line without its digest."""
    result = appraise(evidence_of(*links, terminal(), init(), **facts), TABLE, REFERENCES, NAMING)
    return result.display.replace(result.program[:8], "D")


@pytest.mark.parametrize(
    ("links", "line"),
    [
        (
            (shim(), shell("x", "zsh"), VERIFIED, shell()),
            f"{CLAUDE} · sha256 D · L1 | via zsh, attestd-connect | inline | in ghostty | tty pts/3",
        ),
        ((VERIFIED,), f"{CLAUDE} · sha256 D · L1 | in ghostty | tty pts/3"),
        ((evil(tty=None),), "evil · sha256 D · L1 | in ghostty"),
        ((shim(), evil(), evil()), "evil · sha256 D · L1 | via attestd-connect | in ghostty | tty pts/3"),
        (
            (evil(), claude(), npm_tool("npm", "run", "x")),
            'evil · sha256 D · L1 | launched by "Claude Code 2.1.328", npm (build step) | in ghostty | tty pts/3',
        ),
        ((shim(), shell()), "person at bash · sha256 D · L1 | via attestd-connect | in ghostty | tty pts/3"),
        ((evil(reparented=True),), "orphan evil · sha256 D · L0 | tty pts/3"),
    ],
)
def test_line(links: tuple[Link, ...], line: str):
    """The parts stand in their fixed order and only where they apply."""
    assert shown(*links) == line
