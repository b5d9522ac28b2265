"""Real SDK clients and real servers, through the shim and the daemon: what works without attestd works with it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import SCRIPTS, Instance, running

SUPPORT = Path(__file__).parents[1] / "support"
KINDS = [("mcp", "auto"), ("mcp", "legacy"), ("fastmcp", "auto")]
MODES = ["auto", "legacy"]
GIT = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]


class Desk:
    """An instance with real servers, and clients of both SDKs for them."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.client = instance.script("sdk_client.py", (SUPPORT / "sdk_client.py").read_text(encoding="utf-8"))
        self.stranger = instance.script(
            "stranger.py", (SUPPORT / "sdk_client.py").read_text(encoding="utf-8") + "# somebody else\n"
        )
        self.repository = instance.root / "repository"

    def run(self, kind: str, mode: str, server: str, *steps: Any, script: Path | None = None) -> list[Any]:
        """What each step said."""
        words = [sys.executable, str(script or self.client), kind, mode, str(self.instance.scripts / "attestd-connect")]
        words += [str(self.instance.socket(server)), server, *map(json.dumps, steps)]
        environment = {**self.instance.environment, "FASTMCP_CHECK_FOR_UPDATES": "off"}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def good(self, kind: str, mode: str, server: str, *steps: Any) -> list[Any]:
        """What each step said, all of them well."""
        said = self.run(kind, mode, server, *steps)
        assert all("ok" in each for each in said), said
        return [each["ok"] for each in said]

    def approve(self, server: str, *words: str) -> None:
        """Let the client be refused once, and approve it."""
        (refused,) = self.run("mcp", "auto", server)
        self.instance.approve(refused["data"]["code"], *words)


@pytest.fixture(scope="module", name="desk")
def _desk() -> Iterator[Desk]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with running(root) as instance:
        desk = Desk(instance)
        git = shutil.which("git")
        assert git is not None
        for words in (
            ["init", "-q", str(desk.repository)],
            ["-C", str(desk.repository), *GIT, "commit", "-q", "--allow-empty", "-m", "first"],
        ):
            subprocess.run(
                [git, *(GIT if words[0] == "init" else []), *words], check=True, cwd=root, env=instance.environment
            )
        instance.server("time", command=[str(SCRIPTS / "mcp-server-time"), "--local-timezone", "UTC"])
        instance.server("git", command=[str(SCRIPTS / "mcp-server-git"), "--repository", str(desk.repository)])
        everything = [sys.executable, str(SUPPORT / "sdk_server.py")]
        for name in ("everything", "part", "asking"):
            instance.server(name, command=everything)
        instance.server("shared", command=everything, shared=True)
        instance.ctl("reload")
        every = ("--all-tools", "--resource", "*", "--prompt", "*")
        for server in ("time", "git", "everything", "shared"):
            desk.approve(server, *every)
        desk.approve("part", "--tool", "add", "--resource", "notes://*", "--prompt", "hello")
        asks = [word for kind in ("sampling", "elicitation", "roots") for word in ("--server-request", kind)]
        desk.approve("asking", *every, *asks)
        for server in ("time", "shared"):  # the launcher and the shared server live on from the first call
            desk.good("mcp", "auto", server, ["tools"])
        yield desk
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_mcp_server_time(desk: Desk, kind: str, mode: str):
    """The time server from PyPI lists its tools, answers, and errs as it does on its own."""
    arguments = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
    tools, converted, wrong = desk.good(
        kind,
        mode,
        "time",
        ["tools"],
        ["call", "convert_time", arguments],
        ["call", "get_current_time", {"timezone": "Nowhere/Else"}],
    )
    assert tools == ["convert_time", "get_current_time"]
    assert "21:00" in converted
    assert "Nowhere/Else" in wrong["error"]


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_mcp_server_git(desk: Desk, kind: str, mode: str):
    """The git server from PyPI works on its repository."""
    path = str(desk.repository)
    tools, log = desk.good(kind, mode, "git", ["tools"], ["call", "git_log", {"repo_path": path}])
    assert {"git_status", "git_log", "git_commit"} <= set(tools)
    assert "first" in log


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_tools_resources_and_prompts(desk: Desk, kind: str, mode: str):
    """Lists, calls, reads, and an error of the server, on one connection."""
    tools, added, failed, resources, read = desk.good(
        kind,
        mode,
        "everything",
        ["tools"],
        ["call", "add", {"a": 2, "b": 3}],
        ["call", "fail", {}],
        ["resources"],
        ["read", "notes://one"],
    )
    assert tools == ["add", "big", "fail", "greet", "note", "slow", "think", "where"]
    assert added == "5"
    assert failed == {"error": "Error executing tool fail"}
    assert resources == ["notes://all", "secret://key"]
    assert read == "first"


@pytest.mark.parametrize("mode", MODES)
def test_prompts_templates_and_completion(desk: Desk, mode: str):
    """The rest of the lists, and completion of both kinds of reference."""
    assert desk.good(
        "mcp",
        mode,
        "everything",
        ["prompts"],
        ["prompt", "hello", {"name": "Ada"}],
        ["templates"],
        ["complete", "notes://{name}", "name", "o"],
        ["complete", "hello", "name", "o"],
    ) == [["hello", "hidden"], "say hello to Ada", ["notes://{name}", "secret://{name}/key"], ["one"], ["one"]]


@pytest.mark.parametrize("mode", MODES)
def test_progress_and_cancellation(desk: Desk, mode: str):
    """Progress arrives under the caller's own token; a cancelled call ends and the session goes on."""
    progress, cancelled = desk.good("mcp", mode, "everything", ["progress"], ["cancel"])
    assert progress == [[1.0, 2.0, "half"]]
    assert cancelled is True


@pytest.mark.parametrize("mode", MODES)
def test_a_result_of_ten_megabytes(desk: Desk, mode: str):
    """It arrives whole through server, daemon, shim and SDK."""
    assert desk.good("mcp", mode, "everything", ["size", "big", {"size": 10 << 20}]) == [10 << 20]


def test_legacy_subscription_log_and_ping(desk: Desk):
    """A legacy client subscribes, hears of the change and of the log, and pings."""
    said = desk.good(
        "mcp",
        "legacy",
        "everything",
        ["era"],
        ["subscribe", "notes://one"],
        ["call", "note", {"name": "one", "text": "new"}],
        ["told", "updated"],
        ["told", "log"],
        ["ping"],
    )
    assert said[0] == "2025-11-25"
    assert said[3:] == ["notes://one", "noted one", True]


def test_modern_subscription(desk: Desk):
    """A modern client that has called a tool listens, and hears of the change on its stream; one whose first word is
    subscriptions/listen is told to send it again, because that method can carry no challenge."""
    first = ["listen", "notes://one", "one"]
    early, called, event = desk.run("mcp", "auto", "everything", first, ["call", "add", {"a": 1, "b": 1}], first)
    assert early["data"]["cause"] == "unproven"
    assert early["data"]["retry"] is True
    assert called == {"ok": "2"}
    assert "notes://one" in event["ok"]


def test_modern_subscription_after_a_list(desk: Desk):
    """A modern client that turns the pages of a list, as the specification has it, is proven by that: its first listen
    and its first completion are served, without any call before, and it sees every tool once."""
    complete = ["complete", "hello", "name", "a"]
    refused, tools, completed, event = desk.run(
        "mcp", "auto", "everything", complete, ["pages"], complete, ["listen", "notes://one", "one"]
    )
    assert refused["data"]["cause"] == "unproven"
    assert len(tools["ok"]) == len(set(tools["ok"])) > 3
    assert "ok" in completed
    assert "notes://one" in event["ok"]


@pytest.mark.parametrize("mode", MODES)
def test_server_requests_need_a_grant(desk: Desk, mode: str):
    """Sampling, elicitation and roots are refused with a code where no grant accepts them, and the session goes on."""
    *said, added = desk.run(
        "mcp",
        mode,
        "everything",
        ["call", "greet", {}],
        ["call", "think", {}],
        ["call", "where", {}],
        ["call", "add", {"a": 1, "b": 1}],
    )
    assert added == {"ok": "2"}
    for each in said:
        text = json.dumps(each)
        assert "attestd refused" in text
        assert "Ada" not in text
        assert "file:///work" not in text
    wants = {w["method"] for p in desk.instance.pending() if p["server"] == "everything" for w in p["wants"]}
    assert {"elicitation/create", "sampling/createMessage", "roots/list"} <= wants


@pytest.mark.parametrize("mode", MODES)
def test_server_requests_with_a_grant(desk: Desk, mode: str):
    """With a grant that accepts them, all three are asked and answered, in either era's way."""
    assert desk.good("mcp", mode, "asking", ["call", "greet", {}], ["call", "think", {}], ["call", "where", {}]) == [
        "hello Ada",
        "it says 42",
        "file:///project/here",
    ]


@pytest.mark.parametrize("mode", MODES)
def test_a_grant_for_a_part(desk: Desk, mode: str):
    """Lists show what the grant names, templates what it could reach, and everything else is refused by name."""
    said = desk.run(
        "mcp",
        mode,
        "part",
        ["tools"],
        ["resources"],
        ["templates"],
        ["prompts"],
        ["call", "add", {"a": 1, "b": 2}],
        ["read", "notes://one"],
        ["complete", "notes://{name}", "name", "o"],
        ["call", "big", {"size": 1}],
        ["read", "secret://key"],
        ["prompt", "hidden", {}],
        ["complete", "secret://{name}/key", "name", "o"],
    )
    assert said[:7] == [
        {"ok": each} for each in (["add"], ["notes://all"], ["notes://{name}"], ["hello"], "3", "first", ["one"])
    ]
    for each in said[7:]:
        assert each["data"]["cause"] == "out_of_scope"
        assert each["data"]["retry"] is True


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_another_program_is_refused(desk: Desk, kind: str, mode: str):
    """The same SDK in another script is somebody else: refused at connect, with text and data."""
    (refused,) = desk.run(kind, mode, "time", ["tools"], script=desk.stranger)
    assert "attestd refused" in refused["message"]
    assert "Approve it with: attestctl approve " in refused["message"]
    if refused["data"] is not None:
        assert refused["data"]["cause"] == "no_grant"
        assert refused["data"]["server"] == "time"


@pytest.mark.parametrize(("kind", "mode"), KINDS)
def test_a_shared_server(desk: Desk, kind: str, mode: str):
    """SDK clients of either era get along with a shared back end, which speaks the legacy era."""
    tools, added = desk.good(kind, mode, "shared", ["tools"], ["call", "add", {"a": 2, "b": 3}])
    assert "add" in tools
    assert added == "5"
