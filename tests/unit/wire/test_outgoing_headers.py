"""Headers of the modern era, computed from the body: what the SDK's server computes must agree."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import decode_header_value, encode_header_value, mcp_param_headers, x_mcp_header_map

from attestd.wire import outgoing_headers
from attestd.wire.outgoing_headers import NAME_CHARACTERS, modern_headers, modern_revision
from attestd.wire.repeated import annotations_of, encoded

META = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}


def body(method: str, **params: Any) -> dict[str, Any]:
    """A modern request."""
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, **META}}


@pytest.mark.parametrize(
    ("message", "revision"),
    [
        (body("tools/list"), "2026-07-28"),
        ({"method": "tools/list", "params": {}}, None),
        ({"method": "tools/list"}, None),
        ({"id": 1, "result": {"params": META}}, None),
        ({"method": "x", "params": {"_meta": {"io.modelcontextprotocol/protocolVersion": 5}}}, None),
        ({"method": "x", "params": {"_meta": []}}, None),
    ],
)
def test_which_era(message: dict[str, Any], revision: str | None):
    """By what the message says itself."""
    assert modern_revision(message) == revision


@pytest.mark.parametrize(
    ("method", "params", "name"),
    [
        ("tools/call", {"name": "echo"}, "echo"),
        ("prompts/get", {"name": "hello"}, "hello"),
        ("resources/read", {"uri": "file:///a"}, "file:///a"),
        ("tasks/get", {"taskId": "t1"}, "t1"),
        ("tools/list", {"name": "echo"}, None),
        ("tools/call", {"name": 5}, None),
    ],
)
def test_method_and_name(method: str, params: dict[str, Any], name: str | None):
    """Mcp-Name stands where the specification wants it, and nowhere else."""
    headers = dict(modern_headers(body(method, **params), "2026-07-28", {}))
    assert headers["MCP-Protocol-Version"] == "2026-07-28"
    assert headers["Mcp-Method"] == method
    assert headers.get("Mcp-Name") == name


def test_no_long_name_is_remembered():
    """What servers and clients call things stays bounded; the headers are the same."""
    for size in (NAME_CHARACTERS, NAME_CHARACTERS + 1):
        before = outgoing_headers._remembered.cache_info().currsize
        for _ in range(2):
            name = dict(modern_headers(body("tools/call", name="\xe9" * size), "2026-07-28", {}))["Mcp-Name"]
            assert decode_header_value(name) == "\xe9" * size
        assert outgoing_headers._remembered.cache_info().currsize - before == (size == NAME_CHARACTERS)


@given(st.text(max_size=40))
def test_values_are_encoded_as_the_sdk_does(value: str):
    """Invariant: any text comes back, in one printable line, the way the SDK's server reads it."""
    try:
        expected = encode_header_value(value)
    except UnicodeEncodeError:
        return  # lone surrogates do not pass the parser
    assert encoded(value) == expected
    assert decode_header_value(encoded(value)) == value
    assert encoded(value).isascii()
    assert encoded(value).isprintable()


SCHEMA = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "deep": {"type": "object", "properties": {"n": {"type": "integer", "x-mcp-header": "N"}}},
        "flag": {"type": "boolean", "x-mcp-header": "Flag"},
        "plain": {"type": "string"},
        "list": {"type": "array", "items": {"type": "string", "x-mcp-header": "No"}},
    },
}


def test_annotated_arguments():
    """They stand in headers as the SDK's client writes them; what is not there has none."""
    annotations = annotations_of({"inputSchema": SCHEMA})
    assert annotations == {path: token for path, token in x_mcp_header_map(SCHEMA).items() if token != "No"}
    arguments = {"region": " west ", "deep": {"n": 7}, "flag": False, "plain": "x"}
    headers = modern_headers(body("tools/call", name="t", arguments=arguments), "2026-07-28", annotations)
    assert dict(headers[3:]) == mcp_param_headers(annotations, arguments)
    assert len(modern_headers(body("tools/call", name="t"), "2026-07-28", annotations)) == 3
    assert len(modern_headers(body("tools/list"), "2026-07-28", annotations)) == 2


@pytest.mark.parametrize(
    "schema",
    [
        None,
        [],
        {"properties": 5},
        {"properties": {"a": 5}},
        {"properties": {"a": {"type": "number", "x-mcp-header": "A"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "A\r\nB"}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": 5}}},
        {"properties": {"a": {"type": "string", "x-mcp-header": "X"}, "b": {"type": "string", "x-mcp-header": "x"}}},
    ],
)
def test_annotations_that_are_not_as_specified(schema: Any):
    """They are left out: no header can be injected through a schema."""
    assert annotations_of({"inputSchema": schema}) == {}
