"""What a client is told, byte for byte."""

from __future__ import annotations

import json

import pytest

from attestd.errors import Cause
from attestd.wire.model import Refusal
from attestd.wire.refusal import (
    ADVICE,
    CLAUSES,
    error_line,
    input_required_line,
    ping_line,
    refusal_text,
    refuse,
    result_line,
    shown,
)

CALLER = "Claude Code 2.1.328 (L1, sha256 ab12cd34\u2026, via zsh)"


def text(**changes: str | None) -> str:
    """The example of README, with changes."""
    values = {
        "method": "tools/call",
        "name": "create_issue",
        "server": "github",
        "caller": CALLER,
        "code": "7F3K-9QRT",
        **changes,
    }
    return refusal_text(cause=Cause(values.pop("cause", Cause.NO_GRANT)), **values)  # type: ignore[arg-type]


def test_text_of_the_example():
    """The two lines of README."""
    assert text() == (
        'attestd refused tools/call "create_issue" on "github": no grant for '
        "Claude Code 2.1.328 (L1, sha256 ab12cd34\u2026, via zsh).\n"
        "Approve it with: attestctl approve 7F3K-9QRT"
    )


def test_refusal_line_of_the_example():
    """Code, text and data, pinned byte for byte."""
    refusal = Refusal(
        cause=Cause.NO_GRANT,
        text="why.\nApprove it",
        retry=True,
        server="github",
        method="tools/call",
        name="create_issue",
        decision="d-1",
        code="7F3K-9QRT",
        program="ab12",
        level=1,
        display="Claude Code 2.1.328",
    )
    assert refuse("a-1", refusal) == (
        b'{"jsonrpc":"2.0","id":"a-1","error":{"code":-31403,"message":"why.\\nApprove it","data":{"cause":"no_grant",'
        b'"code":"7F3K-9QRT","decision":"d-1","server":"github","method":"tools/call","name":"create_issue",'
        b'"caller":{"program":"ab12","level":1,"display":"Claude Code 2.1.328"},"retry":true}}}\n'
    )


def test_refusal_without_code_keeps_the_key():
    """A program reads null where nobody can approve."""
    refusal = Refusal(cause=Cause.TRACED, text="t", retry=False, server="s", method="m", name="", decision="d")
    data = json.loads(refuse(0, refusal))["error"]["data"]
    assert data["code"] is None
    assert list(data) == ["cause", "code", "decision", "server", "method", "name", "caller", "retry"]


def test_every_cause_has_its_clause():
    """The table is exhaustive, in plain words, and has nothing that is no cause."""
    assert set(CLAUSES) == set(Cause)
    assert set(ADVICE) <= set(Cause)
    for clause in CLAUSES.values():
        assert clause
        assert not clause.endswith(".")
        assert clause[0].islower() or clause.startswith("{caller}")


@pytest.mark.parametrize("cause", list(Cause))
def test_text_of_every_cause(cause: Cause):
    """Each is one line on what and why, and at most one on what to do."""
    lines = text(cause=cause, code=None, detail="level 1 of 2", decision="d-9").split("\n")
    assert lines[0].startswith('attestd refused tools/call "create_issue" on "github": ')
    assert lines[0].endswith("(level 1 of 2).")
    assert len(lines) <= 2
    assert "{caller}" not in lines[0]


def test_text_without_name_caller_or_advice():
    """What is not there leaves no gap."""
    assert text(name="", caller="", code=None) == 'attestd refused tools/call on "github": no grant for the caller.'
    assert text(code=None, decision="d-1").endswith("\nSee why: attestctl explain d-1")
    assert text(cause=Cause.UNPROVEN, code=None).endswith("\nTry again.")


def test_names_of_others_cannot_dress_up_the_text():
    """Control and direction characters, quotes and length are tamed."""
    evil = text(name='x"\n\x1b[2Jattestd allowed\u202e' + "y" * 500, caller="c\r\nApproved", detail="d\n", code=None)
    assert evil.count("\n") == 0
    assert evil.isprintable()
    assert "x???[2Jattestd allowed?" in evil
    assert len(evil) < 400
    assert "{caller}" in text(name="{caller}")


@pytest.mark.parametrize(
    ("value", "expected"),
    [("plain", "plain"), ("a" * 121, "a" * 119 + "\u2026"), ("\u00e9 \u4e2d", "\u00e9 \u4e2d"), ("\u2028", "?")],
)
def test_shown(value: str, expected: str):
    """Text stays readable, and stays text."""
    assert shown(value) == expected


def test_other_lines():
    """Errors, results, and the two challenges, pinned."""
    assert error_line(None, -32700, "no") == b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}\n'
    assert error_line(1, -32022, "v", {"supported": ["2026-07-28"]}).endswith(
        b'"message":"v","data":{"supported":["2026-07-28"]}}}\n'
    )
    assert result_line("q", {"a": 1}) == b'{"jsonrpc":"2.0","id":"q","result":{"a":1}}\n'
    assert ping_line("c-1") == b'{"jsonrpc":"2.0","id":"c-1","method":"ping"}\n'
    assert (
        input_required_line(4, "s")
        == b'{"jsonrpc":"2.0","id":4,"result":{"resultType":"input_required","requestState":"s"}}\n'
    )


def test_a_detail_that_repeats_the_cause_is_left_out():
    """What the clause says already is not said again in brackets; what says more is."""
    words = {"cause": Cause.TRACED, "method": "tools/call", "name": "x", "server": "s", "caller": "me"}
    plain = refusal_text(**words)  # type: ignore[arg-type]
    assert refusal_text(**words, detail="a debugger is attached to the caller") == plain  # type: ignore[arg-type]
    assert "(by pid 7)" in refusal_text(**words, detail="by pid 7")  # type: ignore[arg-type]
