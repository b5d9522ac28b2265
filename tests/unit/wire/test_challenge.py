"""The two challenges of ADR 7 against the real Python SDK client, over stdio."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

ROOT = Path(__file__).parents[3]
SERVER = ROOT / "tests/support/challenging_server.py"


def client(era: str) -> Client:
    """The SDK's client on a server that challenges it."""
    parameters = StdioServerParameters(
        command=sys.executable, args=[str(SERVER), era], env={"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    )
    return Client(parameters, read_timeout_seconds=20)


async def call(era: str) -> list[dict[str, Any]]:
    """Call the tool; return the server's transcript."""
    async with client(era) as session:
        result = await session.call_tool("t", {"a": 1})
    return json.loads(result.content[0].text)  # type: ignore[union-attr]


async def test_modern_client_retries_with_the_state_echoed():
    """A result with only a state is retried at once, under a new id, with the state and no answers."""
    first, second = await call("modern")
    assert (first["state"], second["state"]) == (None, "challenge-6f1c")
    assert first["id"] != second["id"]
    assert set(second["params"]) - set(first["params"]) == {"requestState"}


@pytest.mark.parametrize("method", ["get_prompt", "read_resource"])
async def test_modern_client_retries_the_other_methods_too(method: str):
    """prompts/get and resources/read can be challenged like tools/call."""
    async with client("modern") as session:
        if method == "get_prompt":
            prompt = await session.get_prompt("p")
            text = prompt.messages[0].content.text  # type: ignore[union-attr]
        else:
            resource = await session.read_resource("memo://a")
            text = resource.contents[0].text  # type: ignore[union-attr]
    assert [item["state"] for item in json.loads(text)] == [None, "challenge-6f1c"]


async def test_legacy_client_answers_the_ping():
    """While its call is open the client answers a ping that has text as its id, with an empty result."""
    first, pong = await call("legacy")
    assert first["state"] is None
    assert pong == {"pong": {}}
