"""W1: CR inside a line smuggles a second message."""

from __future__ import annotations

import pytest

from tests.support.naive_proxy import proxied
from tests.support.wire_attacks import CONVERT, NOW, TIME, Ring, line, refused, tools

pytestmark = pytest.mark.attack("W1")

CALL = line("tools/call", NOW)
IN_PARAMS = b'{"jsonrpc":"2.0","id":8,"method":"ping","params":{"x":\r' + CALL + b"\r}}"
SMUGGLED = {
    "in params": IN_PARAMS,
    "after a message": line("ping", message_id=8) + b"\r" + CALL,
    "before the line end": b"\r" + CALL + b"\r\r",
    "in an allowed call": line("tools/call", {"name": "convert_time", "arguments": {}}, 8)[:-2]
    + b',"x":\r'
    + CALL
    + b"\r}}",
}


@pytest.mark.linux("no attestd stands between")
def test_the_python_sdk_executes_what_stands_between_two_crs():
    """Without the control: the proxy sees a ping, the server reads three lines and calls the forbidden tool."""
    with proxied(TIME, "convert_time") as proxy:
        assert not proxy.offer(CALL)
        assert proxy.offer(IN_PARAMS)
        assert "result" in proxy.answer(9)


def test_a_cr_inside_a_line_is_refused(wire: Ring):
    """Every place where a CR could split the line is refused as malformed, and nothing of it reaches the server."""
    with wire.recorded() as recorded, wire.reached("time") as reached:
        with wire.client("time") as client:
            for smuggled in SMUGGLED.values():
                refused(client, smuggled, "malformed", ids=(8, 9, None))
            refused(client, CALL, "out_of_scope")
            assert "result" in client.call("convert_time", **CONVERT)
        assert tools(reached()) == ["convert_time"]
        assert b"\r" not in wire.log("time").read_bytes()
        assert len(recorded("malformed")) == len(SMUGGLED)
        assert len(recorded("out_of_scope")) == 1


def test_crlf_is_a_line_end(wire: Ring):
    """The contrast: one CR right before LF ends the line, and is not forwarded."""
    with wire.client("time") as client:
        client.send_line(line("tools/call", {"name": "convert_time", "arguments": CONVERT}) + b"\r")
        assert "result" in client.answer(9)
    assert b"\r" not in wire.log("time").read_bytes()


def test_other_line_ends_are_escaped(wire: Ring):
    """U+2028, U+2029, U+0085 and their like inside a string arrive as data: no reader sees a line end there."""
    text = "a\u2028b\u2029c\u0085d\x0be\x0cf"
    with wire.reached("lenient") as reached, wire.client("lenient") as client:
        raw = '{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"echo","arguments":{"t":'
        raw += '"a\u2028b\u2029c\u0085d\\u000be\\u000cf"}}}'
        client.send_line(raw.encode())
        assert "result" in client.answer(9)
        assert reached()[-1]["params"]["arguments"]["t"] == text
