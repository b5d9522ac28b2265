"""``Mcp-Param-*`` and the arguments that they repeat."""

from __future__ import annotations

from typing import Any

import pytest

from attestd.wire.model import WireError
from attestd.wire.param_headers import demand_params
from attestd.wire.repeated import annotated
from tests.unit.wire.test_http_rules import head, message

SCHEMA = {
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "deep": {"properties": {"count": {"type": "integer", "x-mcp-header": "Count"}}},
        "flag": {"type": "boolean", "x-mcp-header": "Flag"},
        "plain": {"type": "string"},
        "number": {"type": "number", "x-mcp-header": "Number"},
        "bad": {"type": "string", "x-mcp-header": "no token"},
        "one": {"type": "string", "x-mcp-header": "Twice"},
        "two": {"type": "string", "x-mcp-header": "twice"},
    }
}
FOUND = annotated({"tools": [{"name": "t", "inputSchema": SCHEMA}, "no tool"]})["t"]


def test_what_a_definition_annotates():
    """Texts, integers and truth values, by names that stand only once."""
    assert {path: token.lower() for path, token in FOUND.items()} == {
        ("region",): "region",
        ("deep", "count"): "count",
        ("flag",): "flag",
    }
    assert annotated({"tools": None}) == {}
    assert annotated({"tools": [{"name": "t"}]}) == {"t": {}}


@pytest.mark.parametrize(
    ("headers", "arguments", "fine"),
    [
        ({}, {}, True),
        ({"mcp_param_region": "eu"}, {"region": "eu"}, True),
        ({"mcp_param_region": "=?base64?ZXU=?="}, {"region": "eu"}, True),
        ({"mcp_param_count": "3", "mcp_param_flag": "true"}, {"deep": {"count": 3}, "flag": True}, True),
        ({"mcp_param_other": "x"}, {}, True),
        ({}, {"region": None}, True),
        ({"mcp_param_region": "us"}, {"region": "eu"}, False),
        ({"mcp_param_region": "EU"}, {"region": "eu"}, False),
        ({"mcp_param_region": "=?base64?ZXU?="}, {"region": "eu"}, False),
        ({"mcp_param_region": ("eu", "eu")}, {"region": "eu"}, False),
        ({"mcp_param_region": "eu"}, {}, False),
        ({"mcp_param_region": "eu"}, {"region": ["eu"]}, False),
        ({}, {"region": "eu"}, False),
        ({"mcp_param_flag": "True"}, {"flag": True}, False),
        ({"mcp_param_count": "1.0"}, {"deep": {"count": 1.0}}, True),
        ({"mcp_param_count": "1"}, {"deep": {"count": 1.0}}, False),
        ({}, {"deep": {"count": 1.0}}, False),
    ],
)
def test_header_and_argument(headers: dict[str, Any], arguments: dict[str, Any], fine: bool):
    """They say the same, or neither is there."""
    call = message(name="t", arguments=arguments)
    if fine:
        demand_params(head(**headers), call, FOUND)
        return
    with pytest.raises(WireError) as caught:
        demand_params(head(**headers), call, FOUND)
    assert (caught.value.rpc_code, caught.value.request_id) == (-32020, 1)
