"""What a path means on the port of a sealed server, whose clients know only the server's own URL."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from attestd.enforcement.http_connection import HttpCaller
from attestd.enforcement.http_front import _sealed
from attestd.wire.http_request import HttpRequest, RequestHead, RequestReader


class Named(msgspec.Struct):
    """What of a caller is looked at."""

    server: str
    events: str


def head(method: str, target: str) -> RequestHead:
    """The head of a request as it is read from a connection."""
    reader = RequestReader(1000)
    reader.feed(f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n".encode())
    found = reader.next()
    assert isinstance(found, HttpRequest)
    return found.head


@pytest.mark.parametrize(
    ("method", "target", "endpoint"),
    [
        ("POST", "/mcp", "mcp"),
        ("POST", "/mcp/", "mcp"),
        ("GET", "/any/thing?x=1", "mcp"),
        ("DELETE", "/", "mcp"),
        ("GET", "/sse", "sse"),
        ("GET", "/a/sse/", "sse"),
        ("GET", "/events?key=1", "sse"),
        ("POST", "/sse", "mcp"),
        ("POST", "/events", "mcp"),
        ("POST", "/notes/message?sessionId=1", "message"),
        ("POST", "/other/message", "mcp"),
    ],
)
def test_every_path_is_of_that_server(method: str, target: str, endpoint: str):
    """Whatever it is called: the registry's url decides what is asked of the server itself."""
    caller = cast("Any", Named(server="notes", events="/events"))
    assert _sealed(head(method, target), cast("HttpCaller", caller)) == ("notes", endpoint)


def test_no_authorization_is_promised():
    """A client that looks for an authorization server finds none."""
    caller = cast("Any", Named(server="notes", events=""))
    target = "/.well-known/oauth-protected-resource/mcp"
    assert _sealed(head("GET", target), cast("HttpCaller", caller)) == (None, "")
