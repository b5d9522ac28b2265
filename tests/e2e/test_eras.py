"""Clients of one protocol era before servers of the other: real SDK clients and servers, through shim and daemon."""

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

from tests.support.instance import Instance, running

SUPPORT = Path(__file__).parents[1] / "support"
EVERY = ("--all-tools", "--resource", "*", "--prompt", "*")
ASKS = tuple(word for kind in ("sampling", "elicitation", "roots") for word in ("--server-request", kind))
MODERN = "2026-07-28"
PAIRS = [
    (MODERN, "old"),
    ("auto", "old"),
    (MODERN, "quiet"),
    ("legacy", "new"),
    (MODERN, "old-shared"),
    ("legacy", "new-shared"),
]
ASKING = [(MODERN, "old"), ("auto", "old"), ("legacy", "new")]


class Desk:
    """An instance with servers of one era, and a client for them."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.client = instance.script("sdk_client.py", (SUPPORT / "sdk_client.py").read_text(encoding="utf-8"))

    def run(self, mode: str, server: str, *steps: Any) -> list[Any]:
        """What each step said."""
        words = [sys.executable, str(self.client), "mcp", mode, str(self.instance.scripts / "attestd-connect")]
        words += [str(self.instance.socket(server)), server, *map(json.dumps, steps)]
        done = subprocess.run(
            words, env=self.instance.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def good(self, mode: str, server: str, *steps: Any) -> list[Any]:
        """What each step said, all of them well."""
        said = self.run(mode, server, *steps)
        assert all("ok" in each for each in said), said
        return [each["ok"] for each in said]


@pytest.fixture(scope="module", name="desk")
def _desk() -> Iterator[Desk]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with running(root) as instance:
        desk = Desk(instance)
        everything = [sys.executable, str(SUPPORT / "sdk_server.py")]
        for name, era, shared in (
            ("old", "legacy", False),
            ("old-auto", "legacy", False),
            ("quiet", "quiet", False),
            ("new", "modern", False),
            ("old-part", "legacy", False),
            ("own", "modern", False),
            ("old-shared", "legacy", True),
            ("new-shared", "modern", True),
        ):
            keys = {"bridge": {"own": "never", "old-auto": "auto"}.get(name, "always")}
            command = [sys.executable, str(SUPPORT / "one_era.py"), era, *everything]
            instance.server(name, command=command, shared=shared, **keys)
        instance.ctl("reload")
        for name, words in (
            ("old", (*EVERY, *ASKS)),
            ("quiet", EVERY),
            ("old-auto", EVERY),
            ("new", (*EVERY, *ASKS)),
            ("old-part", ("--tool", "add", "--tool", "greet")),
            ("own", EVERY),
            ("old-shared", EVERY),
            ("new-shared", EVERY),
        ):
            (refused,) = desk.run("legacy", name)
            instance.approve(refused["data"]["code"], *words)
        for name in ("old", "old-shared", "new-shared"):  # the launcher and shared servers live on from the first call
            desk.good("auto", name, ["tools"])
        yield desk
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize(("mode", "server"), PAIRS)
def test_tools_resources_and_prompts(desk: Desk, mode: str, server: str):
    """Lists, calls, reads, prompts, completion and an error come through in the client's own era."""
    era, tools, added, failed, read, prompts, prompt, completed = desk.good(
        mode,
        server,
        ["era"],
        ["tools"],
        ["call", "add", {"a": 2, "b": 3}],
        ["call", "fail", {}],
        ["read", "notes://one"],
        ["prompts"],
        ["prompt", "hello", {"name": "Ada"}],
        ["complete", "notes://{name}", "name", "o"],
    )
    assert era == ("2025-11-25" if mode == "legacy" else MODERN)
    assert tools == ["add", "big", "fail", "greet", "note", "slow", "think", "where"]
    assert added == "5"
    assert failed == {"error": "Error executing tool fail"}
    assert read
    assert prompts == ["hello", "hidden"]
    assert prompt == "say hello to Ada"
    assert completed == ["one"]


@pytest.mark.parametrize(("mode", "server"), ASKING)
def test_questions_of_the_server(desk: Desk, mode: str, server: str):
    """Elicitation, sampling and roots are asked and answered across the eras."""
    assert desk.good(mode, server, ["call", "greet", {}], ["call", "think", {}], ["call", "where", {}]) == [
        "hello Ada",
        "it says 42",
        "file:///project/here",
    ]


@pytest.mark.parametrize(("mode", "server"), ASKING)
def test_progress_and_cancellation(desk: Desk, mode: str, server: str):
    """Progress arrives under the caller's own token; a cancelled call ends and the session goes on."""
    progress, cancelled = desk.good(mode, server, ["progress"], ["cancel"])
    assert progress == [[1.0, 2.0, "half"]]
    assert cancelled is True


@pytest.mark.parametrize(("mode", "server"), ASKING)
def test_a_result_of_ten_megabytes(desk: Desk, mode: str, server: str):
    """It arrives whole, whatever era it was made in."""
    assert desk.good(mode, server, ["size", "big", {"size": 10 << 20}]) == [10 << 20]


def test_a_modern_client_listens_to_a_legacy_server(desk: Desk):
    """``subscriptions/listen`` hears what the legacy server tells its subscribers."""
    said = desk.good(MODERN, "old", ["call", "add", {"a": 1, "b": 1}], ["listen", "notes://one", "one"])
    assert "notes://one" in said[1]


def test_a_legacy_client_subscribes_to_a_modern_server(desk: Desk):
    """resources/subscribe hears what the modern server tells its listeners; ping is answered."""
    said = desk.good(
        "legacy",
        "new",
        ["subscribe", "notes://one"],
        ["call", "note", {"name": "one", "text": "new"}],
        ["told", "updated"],
        ["ping"],
    )
    assert said[2:] == ["notes://one", True]


def test_a_question_that_no_grant_accepts(desk: Desk):
    """The call is refused with an approval code, the legacy server is told, and the session goes on."""
    asked, added = desk.run(MODERN, "old-part", ["call", "greet", {}], ["call", "add", {"a": 1, "b": 1}])
    assert asked["data"]["cause"] == "server_request"
    assert asked["data"]["code"]
    assert added == {"ok": "2"}


def test_a_client_that_may_fall_back(desk: Desk):
    """By default a client that asks server/discover is left to fall back, and one that does not ask is translated for."""
    assert desk.good("auto", "old-auto", ["era"]) == ["2025-11-25"]
    assert desk.good(MODERN, "old-auto", ["call", "add", {"a": 1, "b": 1}]) == ["2"]


def test_without_the_bridge(desk: Desk):
    """A server that is declared so speaks its own era only: a legacy client gets the server's own error."""
    (said,) = desk.run("legacy", "own", ["tools"])
    assert said["data"]["supported"] == [MODERN]
    assert desk.good("auto", "own", ["era"]) == [MODERN]
