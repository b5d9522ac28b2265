"""What a forgetful server is told again."""

from __future__ import annotations

import json
from typing import Any

from attestd.enforcement.handshake import OWN_ID, SESSION_ID, Handshake
from attestd.wire.model import Limits
from attestd.wire.server import ServerMessage, parse_server_line

INITIALIZE = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}


def result(content: dict[str, Any]) -> ServerMessage:
    """An answer of the server."""
    return parse_server_line(json.dumps({"jsonrpc": "2.0", "id": 1, "result": content}).encode(), Limits())


def request(method: str, **params: Any) -> dict[str, Any]:
    """A request of the client."""
    return {"jsonrpc": "2.0", "id": 5, "method": method, "params": params}


def test_nothing_is_known_at_first():
    """Nothing to say again, and a failed initialize changes nothing."""
    handshake = Handshake()
    error = parse_server_line(b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no"}}', Limits())
    handshake.answered(INITIALIZE, error)
    assert not handshake.repeatable
    assert handshake.afterwards() == []


def test_everything_is_said_again_in_order():
    """Initialize in the client's words, its notification, the level, what is still subscribed; with ids of our own."""
    handshake = Handshake()
    handshake.answered(INITIALIZE, result({"protocolVersion": "2025-06-18"}))
    handshake.told({"jsonrpc": "2.0", "method": "notifications/initialized"})
    handshake.told({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"})
    for message in (
        request("logging/setLevel", level="debug"),
        request("resources/subscribe", uri="a:b"),
        request("resources/subscribe", uri="a:c"),
        request("resources/unsubscribe", uri="a:b"),
        request("tools/call", name="x"),
    ):
        handshake.answered(message, result({}))
    assert handshake.repeatable
    assert handshake.revision == "2025-06-18"
    again = handshake.again()
    assert again["params"] == INITIALIZE["params"]
    assert again["id"].startswith(OWN_ID)
    methods = [(each["method"], each.get("params")) for each in handshake.afterwards()]
    assert methods == [
        ("notifications/initialized", None),
        ("logging/setLevel", {"level": "debug"}),
        ("resources/subscribe", {"uri": "a:c"}),
    ]


def test_session_ids():
    """Visible ASCII of a bounded length, and nothing that could end a header."""
    assert SESSION_ID.match("abc-123_~!")
    for bad in ("", "a b", "a\r\nb", "ü", "x" * 1025, "a\n"):
        assert not SESSION_ID.match(bad)
