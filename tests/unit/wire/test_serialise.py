"""Values to bytes."""

from __future__ import annotations

import json

import pytest

from attestd.wire.serialise import message_line, to_bytes, to_line
from tests.support.wire import parsed


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": [True, None, "x"]}, b'{"b":1,"a":[true,null,"x"]}'),
        ({"a": "\u2028\u2029\u0085"}, b'{"a":"\\u2028\\u2029\\u0085"}'),
        ({"a": "\r\n\0\x1f"}, b'{"a":"\\r\\n\\u0000\\u001f"}'),
        ({"a": "\u00e9\U0001f600"}, b'{"a":"\\u00e9\\ud83d\\ude00"}'),
        ({"a": 2**63, "b": -(10**200)}, b'{"a":9223372036854775808,"b":-1' + b"0" * 200 + b"}"),
        ({"a": 0.1, "b": -0.0, "c": 1.0}, b'{"a":0.1,"b":-0.0,"c":1.0}'),
    ],
)
def test_bytes(value: object, expected: bytes):
    """Compact ASCII; order, integers and fractions as they were."""
    assert to_bytes(value) == expected
    assert json.loads(expected) == value


def test_line_ends_with_one_newline_and_holds_none():
    """A line is one line for every reader."""
    line = to_line({"text": "a\nb\u2028c\x0b\x0c\x1c\x1d\x1e\u0085d"})
    assert line.endswith(b"}\n")
    assert len(line.decode().splitlines()) == 1


def test_infinity_beside_other_text_is_our_bug():
    """NaN never leaves: a value that was parsed has none."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_bytes({"a": float("nan"), "b": "\u00e9"})


@pytest.mark.parametrize(
    "text",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"ping"}',
        b' {"jsonrpc": "2.0", "id":1, "method":"p\\u0069ng"} ',
        '{"jsonrpc":"2.0","id":"é\u2028","method":"ping"}'.encode(),
    ],
)
def test_message_line_is_the_body_again(text: bytes):
    """Whatever way the message was parsed, what is forwarded is its body, plainly spelt."""
    line = message_line(parsed(text))
    assert line == to_line(json.loads(text))
    assert line.isascii()
