"""Real SDK servers over HTTP behind a real daemon: what works over standard streams works over HTTP, in both eras."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.http_desk import ASKS, EVERY, SUPPORT, HttpDesk, serving
from tests.support.instance import running

pytestmark = pytest.mark.linux("TCP peers: who listens is attested")

MODES = ["auto", "legacy"]
STATEFUL = ["stream", "json", "events", "unix", "sse"]
"""Servers that can ask the client and send on their own."""
HTTP = [*STATEFUL, "stateless", "plain"]
CASES = [(server, mode) for server in HTTP for mode in MODES]
KINDS = {
    "stream": ("http", "0"),
    "json": ("http", "0", "json"),
    "events": ("http", "0", "events"),
    "stateless": ("http", "0", "stateless"),
    "plain": ("http", "0", "stateless", "json"),
    "sse": ("sse", "0"),
}


@pytest.fixture(scope="module", name="desk")
def _desk() -> Iterator[HttpDesk]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with running(root) as instance, ExitStack() as servers:
        desk = HttpDesk(instance)
        for name, (kind, *words) in KINDS.items():
            server = servers.enter_context(serving(kind, *words))
            path = "sse" if kind == "sse" else "mcp"
            desk.register(name, f"http://127.0.0.1:{server.port}/{path}", *EVERY, *ASKS, transport=kind)
        place = str(root / "h.sock")
        servers.enter_context(serving("http", place))
        desk.register("unix", "http://localhost:8000/mcp", *EVERY, *ASKS, socket=place)
        yield desk
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize(("server", "mode"), CASES)
def test_what_works_without_attestd(desk: HttpDesk, server: str, mode: str):
    """Lists, calls, reads, prompts, completion, an error, ten megabytes, and where the server streams: progress and
    cancelling, on one connection."""
    streams = "json" not in KINDS.get(server, ())
    tools, added, failed, resources, read, prompt, completed, large, *streamed = desk.good(
        "mcp",
        mode,
        server,
        ["tools"],
        ["call", "add", {"a": 2, "b": 3}],
        ["call", "fail", {}],
        ["resources"],
        ["read", "notes://one"],
        ["prompt", "hello", {"name": "Ada"}],
        ["complete", "notes://{name}", "name", "o"],
        ["size", "big", {"size": 10 << 20}],
        *([["progress"], ["cancel"]] if streams else []),
    )
    assert tools == ["add", "big", "fail", "greet", "note", "slow", "think", "where"]
    assert added == "5"
    assert failed == {"error": "Error executing tool fail"}
    assert resources == ["notes://all", "secret://key"]
    assert read in {"first", "new"}
    assert prompt == "say hello to Ada"
    assert completed == ["one"]
    assert large == 10 << 20
    assert streamed == ([[[1.0, 2.0, "half"]], True] if streams else [])


@pytest.mark.parametrize(("server", "mode"), [("stream", "auto"), ("stream", "legacy"), ("sse", "legacy")])
def test_the_server_asks_the_client(desk: HttpDesk, server: str, mode: str):
    """Elicitation, sampling and roots, in either era's way."""
    said = desk.good("mcp", mode, server, ["call", "greet", {}], ["call", "think", {}], ["call", "where", {}])
    assert said == ["hello Ada", "it says 42", "file:///project/here"]


@pytest.mark.parametrize("server", ["stream", "sse"])
def test_what_a_legacy_server_sends_on_its_own(desk: HttpDesk, server: str):
    """Log messages and updates come on the server's own stream."""
    steps = [["subscribe", "notes://one"], ["call", "note", {"name": "one", "text": "new"}]]
    said = desk.good("mcp", "legacy", server, *steps, ["told", "updated"], ["told", "log"], ["ping"])
    assert said[2:] == ["notes://one", "noted one", True]


def test_a_modern_subscription(desk: HttpDesk):
    """The stream of a subscription stays open beside other requests."""
    _, event = desk.good("mcp", "auto", "stream", ["call", "add", {"a": 1, "b": 1}], ["listen", "notes://one", "one"])
    assert "notes://one" in event


def test_another_sdk(desk: HttpDesk):
    """The client of fastmcp gets along, too."""
    tools, added = desk.good("fastmcp", "auto", "stream", ["tools"], ["call", "add", {"a": 2, "b": 3}])
    assert ("add" in tools, added) == (True, "5")


@pytest.mark.parametrize("mode", MODES)
def test_a_server_of_another_sdk(desk: HttpDesk, mode: str):
    """A server made with fastmcp lists and answers."""
    with serving(program=SUPPORT / "fastmcp_server.py") as server:
        desk.register(f"fast-{mode}", f"http://localhost:{server.port}/mcp")
        tools, added = desk.good("mcp", mode, f"fast-{mode}", ["tools"], ["call", "add", {"a": 2, "b": 3}])
    assert (tools, added) == (["add"], "5")


@pytest.mark.parametrize("kind", ["stream", "sse"])
def test_a_shared_server(desk: HttpDesk, kind: str):
    """One session of attestd at the server serves every caller, before and after the server was started again."""
    words = KINDS[kind]
    with serving(*words) as server:
        path = "sse" if kind == "sse" else "mcp"
        desk.register(f"shared-{kind}", f"http://127.0.0.1:{server.port}/{path}", transport=words[0], shared=True)
        steps = [["tools"], ["call", "add", {"a": 2, "b": 3}]]
        for mode in MODES:
            tools, added = desk.good("mcp", mode, f"shared-{kind}", *steps)
            assert ("add" in tools, added) == (True, "5")
        server.restart()
        deadline = time.monotonic() + 30
        said = desk.run("mcp", "legacy", f"shared-{kind}", *steps)
        while not all("ok" in each for each in said):
            assert time.monotonic() < deadline, said
            said = desk.run("mcp", "legacy", f"shared-{kind}", *steps)


def test_who_answers_is_known(desk: HttpDesk):
    """The process is in the audit log before its first byte, and its program is pinned once."""
    records = desk.instance.records(server="stream")
    hops = [each for each in records if each["method"] == "server"]
    assert hops
    assert "http_server.py" in str(hops[0]["detail"])
    assert len([each for each in records if each["method"] == "server.pin"]) == 1
