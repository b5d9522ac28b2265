"""Host, Origin, types, and the routing headers."""

from __future__ import annotations

from typing import Any

import pytest

from attestd.wire.http_request import HttpRefusal, RequestHead
from attestd.wire.http_rules import (
    accepted,
    decoded,
    demand_headers,
    demand_json,
    demand_own,
    demand_token,
    is_modern,
    own_hosts,
    routing,
)
from attestd.wire.model import Limits, Message, WireError
from attestd.wire.parse import parse_message
from attestd.wire.serialise import to_bytes

META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}


def head(**headers: str | tuple[str, ...]) -> RequestHead:
    """A head with these headers."""
    values = {key.replace("_", "-"): (each,) if isinstance(each, str) else each for key, each in headers.items()}
    return RequestHead(method="POST", path="/mcp", query="", headers=values, length=0)


def message(method: str = "tools/call", meta: dict[str, str] | None = META, **params: Any) -> Message:
    """A request of 2026-07-28."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, **({"_meta": meta} if meta else {})}}
    return parse_message(to_bytes(body), Limits())


def test_own_hosts():
    """With the port, unless it is the one that needs no saying."""
    assert own_hosts(8080) == {"127.0.0.1:8080", "localhost:8080", "[::1]:8080"}
    assert "localhost" in own_hosts(80)


@pytest.mark.parametrize(
    ("headers", "fine"),
    [
        ({"host": "localhost:8080"}, True),
        ({"host": "LocalHost:8080"}, True),
        ({"host": "localhost"}, False),
        ({"host": "localhost:8080", "origin": "http://localhost:8080"}, True),
        ({"host": "localhost:8080", "origin": "https://localhost:8080"}, False),
        ({"host": "localhost:8080", "origin": "null"}, False),
        ({"host": "localhost:8080", "origin": "https://trusted.example"}, True),
        ({}, False),
    ],
)
def test_who_may_ask(headers: dict[str, str], fine: bool):
    """Host always, Origin where a browser says it."""
    if fine:
        demand_own(head(**headers), own_hosts(8080), ("https://trusted.example",))
        return
    with pytest.raises(HttpRefusal) as caught:
        demand_own(head(**headers), own_hosts(8080), ("https://trusted.example",))
    assert caught.value.status == 403


def test_a_unix_socket_has_no_name_but_may_have_a_page():
    """Host is not looked at there; Origin is."""
    demand_own(head(host="whatever"), None, ())
    with pytest.raises(HttpRefusal):
        demand_own(head(host="whatever", origin="http://localhost"), None, ())


@pytest.mark.parametrize("found", ["application/json; charset=utf-8", "text/json", "application/json;", ""])
def test_only_json(found: str):
    """Without parameters."""
    demand_json(head(content_type="Application/JSON"))
    with pytest.raises(HttpRefusal) as caught:
        demand_json(head(content_type=found))
    assert caught.value.status == 415


@pytest.mark.parametrize(
    ("accept", "found"),
    [
        ((), (True, True)),
        (("",), (True, True)),
        (("*/*",), (True, True)),
        (("application/json",), (True, False)),
        (("application/json;q=0.5", "text/event-stream"), (True, True)),
        (("text/html",), (False, False)),
    ],
)
def test_accept(accept: tuple[str, ...], found: tuple[bool, bool]):
    """What the client takes."""
    assert accepted(head(accept=accept)) == found


def test_names_of_ours():
    """Printable, bounded, once."""
    assert demand_token(head(), "mcp-session-id") is None
    assert demand_token(head(mcp_session_id="a-b"), "mcp-session-id") == "a-b"
    for wrong in ("", "a b", "ü", "x" * 300, ("a", "b")):
        with pytest.raises(HttpRefusal):
            demand_token(head(mcp_session_id=wrong), "mcp-session-id")


@pytest.mark.parametrize(
    ("version", "found"), [("2025-11-25", False), ("2024-10-07", False), ("2026-07-28", True), ("2099-01-01", True)]
)
def test_which_era_the_headers_say(version: str, found: bool):
    """Whatever is not old is modern."""
    assert is_modern(head(mcp_protocol_version=version)) is found
    assert not is_modern(head())


GOOD = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/call", "mcp_name": "echo"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"mcp_name": "=?base64?ZWNobw==?="}, 0),
        ({"mcp_name": "Echo"}, -32020),
        ({"mcp_name": ("echo", "echo")}, -32020),
        ({"mcp_name": ()}, -32020),
        ({"mcp_method": "tools/list"}, -32020),
        ({"mcp_method": ()}, -32020),
        ({"mcp_protocol_version": "2025-11-25"}, -32020),
        ({"mcp_protocol_version": ()}, -32020),
    ],
)
def test_routing_headers(changes: dict[str, Any], code: int):
    """They say what the body says, once."""
    headers = {key: value for key, value in {**GOOD, **changes}.items() if value != ()}
    assert routing(head(**headers)).agrees(message(name="echo")) is (code == 0)
    if code == 0:
        demand_headers(head(**headers), message(name="echo"))
        return
    with pytest.raises(WireError) as caught:
        demand_headers(head(**headers), message(name="echo"))
    assert (caught.value.rpc_code, caught.value.request_id) == (code, 1)


def test_versions_in_the_body():
    """It must be there, and one that is spoken."""
    with pytest.raises(WireError) as caught:
        demand_headers(head(**GOOD), message(meta=None, name="echo"))
    assert caught.value.rpc_code == -32602
    future = {"io.modelcontextprotocol/protocolVersion": "2099-01-01"}
    with pytest.raises(WireError) as caught:
        demand_headers(head(**{**GOOD, "mcp_protocol_version": "2099-01-01"}), message(meta=future, name="echo"))
    assert caught.value.rpc_code == -32022


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("plain", "plain"),
        ("=?base64?w7w=?=", "ü"),
        ("=?base64?w7w?=", None),
        ("=?base64?w7x=?=", None),
        ("=?base64?/w==?=", None),
        ("=?base64?!!?=", None),
        ("=?base64?w7w=", "=?base64?w7w="),
        ("=?base64?ü?=", None),
    ],
)
def test_base64(value: str, found: str | None):
    """Canonical, and UTF-8, or nothing."""
    assert decoded(value) == found
