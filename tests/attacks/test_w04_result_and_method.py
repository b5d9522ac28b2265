"""W4: ``result`` and ``method`` in one message."""

from __future__ import annotations

import json

import pytest

from tests.support.naive_proxy import no_responses, proxied
from tests.support.wire_attacks import CONVERT, NOW, TIME, Ring, line, refused, tools

pytestmark = pytest.mark.attack("W4")

BOTH = line("tools/call", NOW, result={})
OTHERS = (
    json.dumps({"result": {}, **json.loads(BOTH)}).encode(),
    line("tools/call", NOW, error={"code": 1, "message": "x"}),
    line("tools/call", NOW, result=None),
    line("tools/call", NOW, result={}, error={"code": 1, "message": "x"}),
    line("tools/call", NOW, None, result={}),
    line("tools/call", NOW, unknown=1),
    json.dumps({"jsonrpc": "2.0", "id": 9, "result": {}, "params": NOW}).encode(),
    b'{"jsonrpc":"2.0","id":9}',
)


@pytest.mark.linux("no attestd stands between")
def test_the_python_sdk_executes_a_call_that_looks_like_a_response():
    """Without the control: the proxy lets responses pass, the server sees a call."""
    with proxied(TIME, "convert_time", reads=no_responses) as proxy:
        assert not proxy.offer(line("tools/call", NOW))
        assert proxy.offer(BOTH)
        assert "datetime" in str(proxy.answer(9)["result"])


def test_a_message_is_exactly_one_of_the_three(wire: Ring):
    """More or less than one of method, result and error is refused, and so is any further key."""
    with wire.recorded() as recorded, wire.reached("time") as reached:
        with wire.client("time") as client:
            for data in (BOTH, *OTHERS):
                refused(client, data, "malformed")
            assert "result" in client.call("convert_time", **CONVERT)
        assert tools(reached()) == ["convert_time"]
        assert len(recorded("malformed")) == 1 + len(OTHERS)


def test_a_response_that_nobody_asked_for(wire: Ring):
    """A real response whose id matches no request of the server is dropped and recorded."""
    with wire.recorded() as recorded, wire.reached("time") as reached:
        with wire.client("time") as client:
            for number in (0, 1, "1"):
                client.send({"jsonrpc": "2.0", "id": number, "result": {"roots": []}})
            assert "result" in client.call("convert_time", **CONVERT)
        assert [m.get("method") for m in reached()] == ["tools/call"]
        assert len(recorded("not_outstanding")) == 3
