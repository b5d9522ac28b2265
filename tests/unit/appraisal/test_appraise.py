"""The result as a whole: names, sessions, packages, claims."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from attestd.appraisal.appraise import appraise, client_claim_mismatch
from attestd.appraisal.model import AttestationResult, Launcher
from attestd.errors import Cause, EvidenceError
from attestd.evidence.model import Link, Script
from tests.support.evidence import (
    BOOT,
    HOME,
    NAMING,
    REFERENCES,
    claude,
    evidence_of,
    evil,
    init,
    inline_of,
    link_of,
    node_program,
    npm_tool,
    origin_of,
    python_client,
    script_of,
    shell,
    shim,
    shipped_table,
    terminal,
    tmux,
    user_systemd,
)

TABLE = shipped_table()


def appraised(*links: Link, **facts: Any) -> AttestationResult:
    """Result of a chain."""
    return appraise(evidence_of(*links, **facts), TABLE, REFERENCES, NAMING)


def test_nobody():
    """Evidence without a process is refused, not appraised."""
    with pytest.raises(EvidenceError) as caught:
        appraised()
    assert caught.value.cause is Cause.PEER_GONE


def test_login_session():
    """The first edge names the session; where that is pid 1, the session leader; else the number of the session."""
    assert appraised(claude(), shell(), tmux(), init()).login_session == f"{BOOT}/{7_000 + 980}"
    leader = appraised(claude(), shell(pid=77), init())
    assert leader.login_session == f"{BOOT}/{7_000 + 1000}"
    assert appraised(claude(session=55), shell(session=55), init()).login_session == f"{BOOT}/session-55"


def test_login_session_is_shared_by_programs_of_one_terminal():
    """Two clients in one terminal are one login session; in two terminals they are two."""
    one = appraised(claude(), shell(), terminal(pid=500), init())
    other = appraised(python_client(), terminal(pid=500), init())
    third = appraised(python_client(), terminal(pid=501), init())
    assert one.login_session == other.login_session != third.login_session


def test_terminal():
    """Only an edge at which a person sits is a terminal."""
    assert appraised(claude(), shell(), terminal(), init()).terminal
    assert appraised(claude(), shell(), tmux(), init()).terminal
    assert not appraised(claude(), user_systemd(), init()).terminal
    assert not appraised(claude(), shell(), link_of(None, uid=0), init()).terminal


@pytest.mark.parametrize(
    ("link", "package", "lineage"),
    [
        (claude(), "", f"npm:@anthropic-ai/claude-code {HOME}/.npm-global/lib/node_modules/@anthropic-ai/claude-code"),
        (node_program("/o/node_modules/a/b/x.js", origin_of("npm:a", "2")), "npm:a@2", "npm:a /o/node_modules/a"),
        (node_program("/o/a/x.js", origin_of("npm:a", "2")), "npm:a@2", "npm:a /o/a"),
        (link_of("/usr/bin/socat", "dpkg:socat"), "dpkg:socat@1.0", "dpkg:socat /"),
        (python_client(), "", ""),
        (
            python_client(script=script_of("python", "/v/site-packages/a/x.py", origin_of("python:a"))),
            "python:a@1.0",
            "python:a /v/site-packages",
        ),
        (python_client(script=inline_of("python", "x")), "", ""),
        (link_of(None), "", ""),
    ],
)
def test_package_and_lineage(link: Link, package: str, lineage: str):
    """A package is a verified one; lineage is origin and install root; an interpreter's package is not its script's."""
    result = appraised(link, shell(), terminal(), init())
    assert (result.package, result.lineage) == (package, lineage)


@pytest.mark.parametrize(
    ("link", "durable"),
    [
        (claude(), True),
        (evil(), True),
        (python_client(script=inline_of("python", "x")), False),
        (python_client(script=Script(kind="stdin", interpreter="python")), False),
        (python_client(script=Script(kind="none", interpreter="python")), False),
        (python_client(script=Script(kind="unresolved", interpreter="python")), False),
        (link_of(None), False),
        (evil(reparented=True), False),
        (shell(), False),
    ],
)
def test_durable(link: Link, durable: bool):
    """Only known code that stands in a file is durable, and neither a person nor an orphan."""
    assert appraised(link, terminal(), init()).durable is durable


def test_launchers():
    """Launchers are given by program, with None for what cannot be known, and build steps are marked."""
    result = appraised(claude(), evil(), link_of(None, comm="x"), npm_tool("npm", "ci"), terminal(), init())
    digests = [launcher.program for launcher in result.launchers]
    assert digests[0] is not None
    assert digests[1] is None
    assert [launcher.build_step for launcher in result.launchers] == [False, False, True]
    assert result.launchers[1] == Launcher(program=None, display='unreadable process "x"')


def test_unknown_launcher():
    """A launcher that perhaps was adopted brings an unknown one along, which a grant must accept as such."""
    result = appraised(claude(), evil(), shell(reparented=None), init())
    assert [launcher.program is None for launcher in result.launchers] == [False, True]
    assert result.launchers[1].display == "unknown, whoever started bash"


def test_launchers_of_unknown_code_have_no_program():
    """A launcher whose digest many programs share cannot be named by it."""
    bare = python_client(script=Script(kind="stdin", interpreter="python"))
    (launcher,) = appraised(claude(), bare, terminal(), init()).launchers
    assert launcher.program is None


def test_same_evidence_same_result():
    """Appraisal is a function of its arguments, and the result survives JSON."""
    one, other = (appraised(shim(), claude(), shell(), terminal(), init()) for _ in range(2))
    assert one == other
    assert msgspec.json.decode(msgspec.json.encode(one), type=AttestationResult) == one


@pytest.mark.parametrize(
    ("link", "claim", "mismatch"),
    [
        (claude(), "claude-code", False),
        (claude(), "Claude Code", False),
        (claude(), "cursor", True),
        (claude(), "", False),
        (claude(), "x", True),
        (python_client(), "claude-code", True),
        (python_client(), "client", False),
        (node_program("/o/x.js", origin_of("npm:@a/mcp-chat", "2")), "mcp-chat", False),
        (evil(), "evil", False),
    ],
)
def test_client_claim(link: Link, claim: str, mismatch: bool):
    """The name in clientInfo is compared with title and package."""
    assert client_claim_mismatch(appraised(link, shell(), terminal(), init()), claim) is mismatch
