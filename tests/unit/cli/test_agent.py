"""The agent that asks for passwords, as far as attestctl brings it: a stand-in with pkttyagent's options and habits."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import ROOT

ASK = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from attestd.cli.agent import terminal_agent
with terminal_agent(Path(sys.argv[2])) as there:
    print("there:", there, flush=True)
"""
AGENT = """#!/bin/sh
echo "asked as $*" > "{log}"
trap 'echo ended >> "{log}"; exit 0' TERM
while [ "$1" != --notify-fd ]; do shift; done
eval "exec $2>&-"
{then}
"""


def asked(tmp_path: Path, then: str | None, *, terminal: bool = True) -> tuple[str, str]:
    """What the agent's user prints, and what the agent wrote down. ``then`` None: there is no agent."""
    agent, log = tmp_path / "agent", tmp_path / "log"
    if then is not None:
        agent.write_text(AGENT.format(log=log, then=then), encoding="utf-8")
        agent.chmod(0o755)
    ours, theirs = pty.openpty()
    stdio = theirs if terminal else subprocess.DEVNULL
    process = subprocess.run(
        [sys.executable, "-c", ASK, str(ROOT), str(agent)],
        stdin=stdio,
        stderr=stdio,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    os.close(theirs)
    os.close(ours)
    return process.stdout, log.read_text(encoding="utf-8") if log.exists() else ""


def test_it_is_there_once_it_has_said_so_and_ends_with_the_question(tmp_path: Path):
    """It serves this very process, by pid and start time, until the question is over."""
    said, log = asked(tmp_path, "while :; do sleep 0.05; done")
    assert said == "there: True\n"
    assert log.startswith("asked as --process ")
    assert log.endswith("ended\n")


@pytest.mark.parametrize(("then", "terminal"), [(None, True), ("sleep 60", False)])
def test_no_agent_is_said(tmp_path: Path, then: str | None, terminal: bool):
    """One that is not installed, and one without a terminal to ask on."""
    said, _ = asked(tmp_path, then, terminal=terminal)
    assert said == "there: False\n"
