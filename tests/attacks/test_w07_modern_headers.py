"""W7: the routing headers of 2026-07-28 say something else than the body, twice, or in base64."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.http_client import PLACES, Booth, Caller, calling

pytestmark = pytest.mark.attack("W7")

CALL = {"name": "echo", "arguments": {"mark": "w7"}}


def sentinel(text: bytes) -> str:
    """A header's value in base64."""
    return f"=?base64?{base64.b64encode(text).decode()}?="


@pytest.fixture(params=PLACES, name="caller")
def _caller(http: Booth, request: pytest.FixtureRequest) -> Iterator[Caller]:
    with calling(http.instance, http.at(request.param)) as caller:
        assert "content" in caller.modern("tools/call", {"name": "echo", "arguments": {}}).json["result"]
        yield caller


@pytest.mark.parametrize(
    "headers",
    [
        {"mcp_name": "harmless"},
        {"mcp_name": "Echo"},
        {"mcp_name": None},
        {"mcp_name": "echo\r\nMcp-Name: echo"},
        {"mcp_name": "harmless\r\nMcp-Name: echo"},
        {"mcp_name": sentinel(b"harmless")},
        {"mcp_name": "=?base64?ZWNobx==?="},
        {"mcp_name": sentinel(b"\xff")},
        {"mcp_name": "=?base64?ZWNobw==?= "[:-3]},
        {"mcp_method": "tools/list"},
        {"mcp_method": None},
        {"mcp_method": "tools/list\r\nMcp-Method: tools/call"},
        {"mcp_protocol_version": "2025-11-25"},
        {"mcp_protocol_version": None},
        {"mcp_protocol_version": "2026-07-28\r\nMcp-Protocol-Version: 2025-11-25"},
    ],
)
def test_headers_that_disagree(http: Booth, caller: Caller, headers: dict[str, Any]):
    """400 with -32020, and nothing runs."""
    before = len(http.instance.executed())
    answer = caller.modern("tools/call", CALL, **headers)
    assert answer.status == 400
    if "\r\nMcp-Protocol-Version" not in str(headers):
        assert answer.json["error"]["code"] == -32020
    assert len(http.instance.executed()) == before


def test_a_head_that_is_known_vouches_for_no_other_body(http: Booth, caller: Caller):
    """The very bytes of a head that was accepted before, and a body of that length that names another tool."""
    for _ in range(3):
        assert "content" in caller.modern("tools/call", CALL).json["result"]
        before = len(http.instance.executed())
        answer = caller.modern("tools/call", {**CALL, "name": "slow"}, mcp_name="echo")
        assert (answer.status, answer.json["error"]["code"]) == (400, -32020)
        assert len(http.instance.executed()) == before


def test_a_name_in_base64_is_compared_decoded(http: Booth, caller: Caller):
    """What a careful proxy must let through."""
    answer = caller.modern("tools/call", CALL, mcp_name=sentinel(b"echo"))
    assert answer.status == 200
    assert "w7" in http.marks()


def test_a_version_that_nobody_speaks(caller: Caller):
    """-32022 with what is spoken."""
    meta = {"io.modelcontextprotocol/protocolVersion": "2099-01-01", "io.modelcontextprotocol/clientCapabilities": {}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    answer = caller.ask(body, mcp_protocol_version="2099-01-01", mcp_method="tools/list")
    assert (answer.status, answer.json["error"]["code"]) == (400, -32022)
    assert answer.json["error"]["data"]["supported"] == ["2026-07-28"]
