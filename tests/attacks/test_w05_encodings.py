"""W5: UTF-16, UTF-32, UTF-7 polyglot, byte order mark, NaN, lone surrogates, invalid UTF-8."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.naive_proxy import Reader, proxied
from tests.support.wire_attacks import CONVERT, TIME, Ring, call, lenient, notes, refused, tools

pytestmark = pytest.mark.attack("W5")

PID = call("pid").decode()
HEAD = b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":'
NOW = HEAD + b'{"name":"get_current_time","arguments":{"timezone":"UTC"}%s}}'
OTHER_ENCODINGS = {
    "UTF-16-LE": PID.encode("utf-16-le"),
    "UTF-16-BE": PID.encode("utf-16-be"),
    "UTF-16 with mark": PID.encode("utf-16"),
    "UTF-32-LE": PID.encode("utf-32-le"),
    "UTF-32-BE": PID.encode("utf-32-be"),
    "UTF-8 with mark": PID.encode("utf-8-sig"),
}
POLYGLOT = b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"echo","+AG4-ame":"pid"}}'
"""Read as UTF-7 the second key is ``name`` too."""
UNREADABLE = {"invalid UTF-8": NOW % b',"x":"\xff\xfe"', "NaN": NOW % b',"x":NaN', "Infinity": NOW % b',"x":-Infinity'}
ONLY_REFUSED = {
    "lone surrogate": NOW % rb',"x":"\ud800"',
    "lone low surrogate": NOW % rb',"x":"\udc00\ud800"',
    "surrogate in UTF-8": NOW % b',"x":"\xed\xa0\x80"',
    "overlong": NOW % b',"x":"\xc0\xae"',
    "beyond U+10FFFF": NOW % b',"x":"\xf4\x90\x80\x80"',
    "huge float": NOW % b',"x":1e999',
    "huge integer": NOW % (b',"x":1' + b"0" * 400),
    "NUL in front": b"\0" + NOW % b"",
    "cut short": NOW[:-4],
}


def exactly(data: bytes) -> object:
    """JSON by the standard: other encodings, NaN and bytes that are not UTF-8 are no JSON."""
    import json

    def constant(text: str) -> None:
        raise ValueError(text)

    return json.loads(data.decode("utf-8"), parse_constant=constant)


READS: Reader = exactly


def test_servers_read_what_the_proxy_cannot(short_tmp: Path):
    """Without the control: what the proxy cannot read is no call to it; the server guesses the encoding."""
    log = short_tmp / "log"
    with proxied(lenient(log), "echo", reads=READS) as proxy:
        assert not proxy.offer(PID.encode())
        for way, data in {**OTHER_ENCODINGS, "UTF-7": POLYGLOT}.items():
            assert proxy.offer(data), way
            assert "result" in proxy.answer(9), way
    assert tools(notes(log)) == ["pid"] * (len(OTHER_ENCODINGS) + 1)


@pytest.mark.linux("no attestd stands between")
def test_the_python_sdk_executes_bytes_that_are_not_utf8():
    """Without the control, on a real server: invalid UTF-8 and NaN in a key that nobody looks at."""
    for way, data in UNREADABLE.items():
        with proxied(TIME, "convert_time", reads=READS) as proxy:
            assert proxy.offer(data), way
            assert "datetime" in str(proxy.answer(9)["result"]), way


def test_other_encodings_are_refused(wire: Ring):
    """UTF-8 without a mark is the only encoding."""
    with wire.recorded() as recorded, wire.reached("lenient") as reached:
        with wire.client("lenient") as client:
            for data in (*OTHER_ENCODINGS.values(), POLYGLOT):
                refused(client, data, "malformed")
            assert "result" in client.call("echo", text="päöß 漢字 😀")
        assert tools(reached()) == ["echo"]
        assert reached()[-1]["params"]["arguments"]["text"] == "päöß 漢字 😀"
        assert len(recorded("malformed")) == len(OTHER_ENCODINGS) + 1


def test_what_is_not_json_is_refused(wire: Ring):
    """Bytes, numbers and surrogates that two readers could take differently."""
    every = UNREADABLE | ONLY_REFUSED
    with wire.recorded() as recorded, wire.reached("time") as reached:
        with wire.client("time") as client:
            for data in every.values():
                refused(client, data, "malformed")
            assert "result" in client.call("convert_time", **CONVERT)
        assert tools(reached()) == ["convert_time"]
        assert len(recorded("malformed")) == len(every)
