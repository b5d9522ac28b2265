"""What headers repeat: one reading for front and back, the same as the SDK's."""

from __future__ import annotations

from typing import Any

import pytest
from mcp.shared.inbound import mcp_param_headers

from attestd.wire.repeated import NAMED, annotations_of, argument_text

PLACES = annotations_of({"inputSchema": {"properties": {"a": {"type": "integer", "x-mcp-header": "A"}}}})


@pytest.mark.parametrize("value", [1, -7, 1.0, 1.5, 1e30, True, False, "", "text", None, [], {}, [1]])
def test_an_argument_reads_as_the_sdk_writes_it(value: Any):
    """Texts, numbers and truth values; nothing else has a header."""
    written = mcp_param_headers(PLACES, {"a": value}).get("Mcp-Param-A")
    read = argument_text({"arguments": {"a": value}}, ("a",))
    assert read == written


def test_a_path_through_what_is_no_object_leads_nowhere():
    """Neither an error nor a header."""
    assert argument_text({"arguments": {"a": "text"}}, ("a", "b")) is None
    assert argument_text({}, ("a",)) is None


def test_names_are_parameters():
    """Each method's name stands in one member of its params."""
    assert NAMED["resources/read"] == "uri"
