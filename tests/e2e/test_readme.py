"""README's "Use it for yourself", run in a throw-away home; only the installation is left out."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestd.errors import Cause
from attestd.wire.refusal import refusal_text
from tests.support.instance import Client, Instance, cause, on_the_machine
from tests.support.repository import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Use it for yourself")[2].partition("\n## ")[0]
SHELL = re.findall(r"^    ((?:pip|attestd|attestctl) .+)$", SECTION, re.MULTILINE)
CONFIGURATION = json.loads(re.findall(r'^    (\{"mcpServers".+)$', SECTION, re.MULTILINE)[0])
ROWS = re.findall(r"^\| `(attestctl [^`]+)`", README, re.MULTILINE)
CLIENT = '''\
"""A client that starts its server as its configuration says, with pipes of its own, and copies lines both ways."""
import os, subprocess, sys, threading

server = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def inwards():
    while data := os.read(0, 65536):
        server.stdin.write(data)
        server.stdin.flush()
    server.stdin.close()


threading.Thread(target=inwards, daemon=True).start()
while data := server.stdout.read1(65536):
    os.write(1, data)
server.wait()
'''


@pytest.fixture
def home() -> Iterator[Instance]:
    """A home with the running daemon of README's second command; this test process may approve in it."""
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    instance = on_the_machine(root)
    instance.start()
    yield instance
    instance.stop()
    shutil.rmtree(root, ignore_errors=True)


def run(home: Instance, line: str) -> str:
    """One command line of README; its output."""
    program, *words = shlex.split(line)
    result = home.run(program, *words)
    assert result.returncode == 0, f"{line}: {result.stderr}"
    return result.stdout


def test_the_steps_are_the_four_that_are_run_here():
    """README installs, starts the daemon as these tests do, registers the server, and configures the client."""
    assert [line.split()[0] for line in SHELL] == ["pip", "attestd", "attestctl"]
    assert SHELL[1] == "attestd run --user &"
    assert CONFIGURATION["mcpServers"]["time"]["command"] == "attestd-connect"
    assert len(ROWS) > 7


def test_from_registration_to_the_first_answer(home: Instance):
    """The server is registered; the configured client is refused, approved, answered; each row's first command runs."""
    run(home, SHELL[2])
    entry = CONFIGURATION["mcpServers"]["time"]
    script = home.script("client.py", CLIENT)
    with home.client(argv=[sys.executable, str(script), entry["command"], *entry["args"]]) as client:
        refusal = client.initialize()
        assert cause(refusal) == "no_grant"
        code = refusal["error"]["data"]["code"]
        assert code in run(home, "attestctl pending")
        home.approve(code)
        assert client.initialize()["result"]["serverInfo"]["name"]
        assert answered(client)
        assert "client.py" in run(home, "attestctl ps")
    decision = home.records(kind="decision")[0]["id"]
    for line in ROWS:
        run(home, line.replace("DECISION", decision))


def test_the_refusal_is_what_is_said():
    """The refusal that README shows has the words of a real one."""
    shown = re.findall(r"^    (attestd refused .+)\n    (Approve .+)$", README, re.MULTILINE)[0]
    text = refusal_text(
        cause=Cause.NO_GRANT,
        method="tools/call",
        name="create_issue",
        server="github",
        caller="Claude Code 2.1.328 (L1, sha256 ab12cd34…, via zsh)",
        code="7F3K-9QRT",
    )
    assert "\n".join(shown) == text


def answered(client: Client) -> bool:
    """Whether a call gets through to mcp-server-time."""
    answer = client.call("get_current_time", timezone="UTC")
    if cause(answer) == "unproven":
        answer = client.call("get_current_time", timezone="UTC")
    return "UTC" in answer["result"]["content"][0]["text"]
