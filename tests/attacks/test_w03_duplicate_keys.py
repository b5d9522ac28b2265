"""W3: duplicate keys in envelope and params; case-folded and NUL-suffixed keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.naive_proxy import first_wins, proxied
from tests.support.wire_attacks import CONVERT, TIME, Ring, call, lenient, notes, refused, tools

pytestmark = pytest.mark.attack("W3")

NOW = b'"name":"get_current_time","arguments":{"timezone":"UTC"}'
HEAD = b'{"jsonrpc":"2.0","id":9,'
DUPLICATES = {
    "method": HEAD + b'"method":"ping","method":"tools/call","params":{' + NOW + b"}}",
    "name": HEAD + b'"method":"tools/call","params":{"name":"convert_time",' + NOW + b"}}",
    "params": HEAD + b'"method":"tools/call","params":{"name":"convert_time"},"params":{' + NOW + b"}}",
    "escaped name": HEAD
    + b'"method":"tools/call","params":{"name":"convert_time",'
    + NOW.replace(b'"name"', b'"n\\u0061me"')
    + b"}}",
}
ONLY_REFUSED = {
    "id": b'{"jsonrpc":"2.0","id":8,"id":9,"method":"ping"}',
    "jsonrpc": b'{"jsonrpc":"2.0","jsonrpc":"2.0","id":9,"method":"ping"}',
    "inside arguments": HEAD
    + b'"method":"tools/call","params":{"name":"convert_time","arguments":{"a":{"b":1,"b":2}}}}',
    "inside _meta": HEAD + b'"method":"ping","params":{"_meta":{"progressToken":1,"progressToken":2}}}',
}
PID = b'"params":{"name":"echo","arguments":{},'
LOOKALIKES = {
    "case": HEAD + b'"method":"tools/call",' + PID + b'"Name":"pid"}}',
    "long s": HEAD + '"method":"tools/call","params":{"name":"echo"},"param\u017f":{"name":"pid"}}'.encode(),
    "NUL": HEAD + b'"method":"tools/call",' + PID + b'"name\\u0000":"pid"}}',
    "envelope case": HEAD + b'"method":"ping","Method":"tools/call","params":{"name":"pid"}}',
    "envelope NUL": HEAD + b'"method":"ping","method\\u0000x":"tools/call","params":{"name":"pid"}}',
}
FOLDED_ONLY_REFUSED = {
    "Kelvin": HEAD + '"method":"tasks/get","params":{"taskId":"1","tas\u212aId":"2"}}'.encode(),
    "full width": HEAD + '"method":"tools/call","params":{"name":"echo","\uff4eame":"pid"}}'.encode(),
    "underscore": HEAD + b'"method":"tools/call","params":{"name":"echo","na_me":"pid"}}',
    "ref": HEAD + b'"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"a","Name":"b"}}}',
}  # fmt: skip


@pytest.mark.linux("no attestd stands between")
def test_the_python_sdk_takes_the_last_of_two_keys():
    """Without the control: a proxy that takes the first sees an allowed call, the server executes the forbidden one."""
    for way, data in DUPLICATES.items():
        with proxied(TIME, "convert_time", reads=first_wins) as proxy:
            assert proxy.offer(data), way
            assert "datetime" in str(proxy.answer(9)["result"]), way


def test_a_server_that_folds_keys(short_tmp: Path):
    """Without the control: an exact proxy sees the allowed name, a folding server takes the look-alike."""
    log = short_tmp / "log"
    with proxied(lenient(log), "echo") as proxy:
        for way, data in LOOKALIKES.items():
            assert proxy.offer(data), way
            assert "result" in proxy.answer(9), way
    assert tools(notes(log)) == ["pid"] * len(LOOKALIKES)


def test_duplicates_are_refused(wire: Ring):
    """At any depth, whatever the two values are."""
    every = DUPLICATES | ONLY_REFUSED
    with wire.recorded() as recorded, wire.reached("time") as reached:
        with wire.client("time") as client:
            for data in every.values():
                refused(client, data, "malformed", ids=(8, 9, None))
            assert "result" in client.call("convert_time", **CONVERT)
        assert tools(reached()) == ["convert_time"]
        assert len(recorded("malformed")) == len(every)


def test_lookalikes_are_refused(wire: Ring):
    """A key that some reader takes for a routing key is refused where it could route."""
    every = LOOKALIKES | FOLDED_ONLY_REFUSED
    with wire.recorded() as recorded, wire.reached("lenient") as reached:
        with wire.client("lenient") as client:
            for data in every.values():
                refused(client, data, "malformed")
            client.send_line(call("echo", 9, Name="pid", name="pid"))
            assert "result" in client.answer(9)
        assert tools(reached()) == ["echo"]
        assert len(recorded("malformed")) == len(every)
