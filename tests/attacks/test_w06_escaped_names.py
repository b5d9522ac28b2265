"""W6: escaped method and tool names are decided on the decoded value."""

from __future__ import annotations

import pytest

from tests.support.naive_proxy import by_bytes, proxied
from tests.support.wire_attacks import CONVERT, TIME, Ring, refused, tools

pytestmark = pytest.mark.attack("W6")

HEAD = b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":'
NOW = HEAD + b'{"name":"get_current_time","arguments":{"timezone":"UTC"}}}'
ESCAPED = {
    "key": NOW.replace(b'"method"', rb'"\u006dethod"'),
    "solidus": NOW.replace(b"tools/call", rb"tools\/call"),
    "solidus by number": NOW.replace(b"tools/call", rb"tools\u002fcall"),
    "letters": NOW.replace(b"tools/call", rb"\u0074ools/cal\u006C"),
}
NAMES = {
    "name": NOW.replace(b"get_current", rb"\u0067et\u005Fcurrent"),
    "name's key": NOW.replace(b'"name"', rb'"n\u0061me"'),
    "params' key": NOW.replace(b'"params"', rb'"p\u0061rams"'),
}


@pytest.mark.linux("no attestd stands between")
def test_the_server_sees_through_escapes():
    """Without the control: a proxy that looks for the words finds none, the server decodes them."""
    with proxied(TIME, "convert_time", reads=by_bytes) as proxy:
        assert not proxy.offer(NOW)
        for way, data in ESCAPED.items():
            assert proxy.offer(data), way
            assert "datetime" in str(proxy.answer(9)["result"]), way


def test_escapes_change_nothing(wire: Ring):
    """The decision names the decoded tool: refused if it is not granted, served if it is."""
    every = ESCAPED | NAMES
    with wire.recorded() as recorded, wire.reached("time") as reached:
        with wire.client("time") as client:
            for data in every.values():
                answer = refused(client, data, "out_of_scope")
                assert answer["error"]["data"]["name"] == "get_current_time"
                assert answer["error"]["data"]["method"] == "tools/call"
            granted = rb'{"jsonrpc":"2.0","id":7,"\u006dethod":"tools\/call","params":'
            granted += rb'{"n\u0061me":"\u0063onvert_time","arguments":%s}}'
            client.send_line(granted % str(CONVERT).replace("'", '"').encode())
            assert "result" in client.answer(7)
        assert tools(reached()) == ["convert_time"]
        assert {r["name"] for r in recorded("out_of_scope")} == {"get_current_time"}
    assert b"\\u00" not in wire.log("time").read_bytes()
