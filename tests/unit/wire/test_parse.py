"""Strict parsing. Attacks W1 to W6, on the parser."""

from __future__ import annotations

import json

import pytest

from attestd.errors import Cause
from attestd.wire.model import Kind, Limits, WireError
from attestd.wire.parse import load_json, parse_message, split_batch
from tests.support.wire import LIMITS, cause, line, parsed, refused

CALL = b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"echo"}}'


def with_value(value: bytes) -> bytes:
    """A call with one argument, written as given."""
    return b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"echo","arguments":{"x":' + value + b"}}}"


def test_request():
    """A request keeps its id, method, params and whole body."""
    message = parsed(CALL)
    assert (message.kind, message.id, message.method) == (Kind.REQUEST, 9, "tools/call")
    assert message.params == {"name": "echo"}
    assert message.body == json.loads(CALL)
    assert message.encoded == CALL


def test_notification_and_absent_params():
    """Without an id it is a notification; without params they are empty."""
    message = parsed(b'{"jsonrpc":"2.0","method":"notifications/initialized"}')
    assert (message.kind, message.id, message.params) == (Kind.NOTIFICATION, None, {})


def test_result_and_error():
    """Responses have no method."""
    result = parsed(b'{"jsonrpc":"2.0","id":"a","result":{}}')
    error = parsed(b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no"}}')
    assert (result.kind, result.id, result.method) == (Kind.RESULT, "a", None)
    assert (error.kind, error.id) == (Kind.ERROR, 1)


def test_key_order_does_not_matter_and_is_kept():
    """The TypeScript SDK writes jsonrpc and id last."""
    text = b'{"method":"ping","jsonrpc":"2.0","id":1}'
    assert list(parsed(text).body) == ["method", "jsonrpc", "id"]


@pytest.mark.attack("W1")
@pytest.mark.parametrize("char", [b"\r", b"\n", b"\r\n"])
def test_line_end_inside_a_message(char: bytes):
    """W1: the very bytes that made a Python server run a second message are refused."""
    smuggled = b'{"jsonrpc":"2.0","id":8,"method":"ping","params":{"x":' + char + CALL + char + b"}}"
    assert cause(smuggled) is Cause.MALFORMED
    assert cause(CALL.replace(b",", b"," + char)) is Cause.MALFORMED
    assert cause(CALL + char) is Cause.MALFORMED


@pytest.mark.attack("W2")
def test_batch_is_no_message():
    """W2: an array is refused as such."""
    assert cause(b"[" + CALL + b"]") is Cause.BATCH
    assert cause(b"[]") is Cause.BATCH


@pytest.mark.attack("W2")
@pytest.mark.parametrize("revision", [None, "2024-11-05", "2025-06-18", "2025-11-25", "2026-07-28"])
def test_batch_of_other_revisions(revision: str | None):
    """W2: only 2025-03-26 has batches."""
    with pytest.raises(WireError) as caught:
        split_batch(b"[" + CALL + b"]", revision, LIMITS)
    assert caught.value.cause is Cause.BATCH


@pytest.mark.attack("W2")
def test_batch_is_split_and_every_element_is_parsed_strictly():
    """W2: each element is judged alone, and a bad one does not hide the next."""
    bad = b'{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}'
    init = line("initialize", {})
    first, second, third, fourth, fifth = split_batch(
        b"[" + b",".join((CALL, bad, init, b"1", b"[" + CALL + b"]")) + b"]", "2025-03-26", LIMITS
    )
    assert getattr(first, "method", None) == "tools/call"
    assert [getattr(item, "cause", None) for item in (second, third, fourth, fifth)] == [
        Cause.MALFORMED,
        Cause.BATCH,
        Cause.MALFORMED,
        Cause.BATCH,
    ]


@pytest.mark.attack("W2")
def test_batch_sizes():
    """W2: none, too many, and what is no array are refused."""
    for text, expected in ((b"[]", Cause.BATCH), (b"[" + b"1," * 100 + b"1]", Cause.BATCH), (CALL, Cause.MALFORMED)):
        with pytest.raises(WireError) as caught:
            split_batch(text, "2025-03-26", LIMITS)
        assert caught.value.cause is expected
    assert len(split_batch(b"[" + b",".join([CALL] * 100) + b"]", "2025-03-26", LIMITS)) == 100


@pytest.mark.attack("W3")
@pytest.mark.parametrize(
    "text",
    [
        b'{"jsonrpc":"2.0","id":9,"method":"ping","method":"tools/call","params":{"name":"echo"}}',
        b'{"jsonrpc":"2.0","id":9,"id":10,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"a"},"params":{"name":"b"}}',
        b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"a","name":"b"}}',
        b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"a","\\u006eame":"b"}}',
        b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"a","arguments":{"x":{"y":1,"y":1}}}}',
        b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"a","arguments":{"x":[{"y":1,"y":2}]}}}',
        b'{"jsonrpc":"2.0","id":9,"method":"x","params":{"_meta":{"progressToken":1,"progressToken":2}}}',
    ],
)
def test_duplicate_keys(text: bytes):
    """W3: a key is there once, at any depth, however it is written."""
    error = refused(text)
    assert error.cause is Cause.MALFORMED
    assert "is there twice" in error.message


@pytest.mark.attack("W3")
@pytest.mark.parametrize(
    "text",
    [
        b'{"jsonrpc":"2.0","id":9,"Method":"tools/call","params":{}}',
        b'{"jsonrpc":"2.0","id":9,"method":"ping","Method":"tools/call"}',
        b'{"jsonrpc":"2.0","id":9,"method":"ping","method\\u0000":"tools/call"}',
        b'{"jsonrpc":"2.0","id":9,"method":"ping","param\\u017f":{}}',
        b'{"jsonrpc":"2.0","id":9,"method":"ping"," params":{}}',
        b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"a","Name":"b"}}',
        b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"a","name\\u0000":"b"}}',
        b'{"jsonrpc":"2.0","id":9,"method":"resources/read","params":{"uri":"a:b","URI":"a:c"}}',
        b'{"jsonrpc":"2.0","id":9,"method":"tasks/get","params":{"taskId":"a","tas\\u212aId":"b"}}',
        b'{"jsonrpc":"2.0","id":9,"method":"tasks/get","params":{"taskId":"a","task_id":"b"}}',
        b'{"jsonrpc":"2.0","id":9,"method":"x","params":{"_meta":{},"_Meta":{}}}',
    ],
)
def test_keys_that_look_like_others(text: bytes):
    """W3: keys that case-fold, NUL-strip or space-strip to a known one without being it are refused."""
    error = refused(text)
    assert error.cause is Cause.MALFORMED
    assert error.request_id == 9


@pytest.mark.attack("W4")
@pytest.mark.parametrize(
    "text",
    [
        b'{"jsonrpc":"2.0","id":9,"result":{},"method":"tools/call","params":{"name":"echo"}}',
        b'{"jsonrpc":"2.0","id":9,"method":"tools/call","error":{"code":1,"message":"x"}}',
        b'{"jsonrpc":"2.0","id":9,"result":{},"error":{"code":1,"message":"x"}}',
        b'{"jsonrpc":"2.0","id":9,"result":{},"params":{}}',
        b'{"jsonrpc":"2.0","id":9}',
        b'{"jsonrpc":"2.0","id":9,"params":{}}',
        b'{"jsonrpc":"2.0","id":9,"method":"ping","extra":1}',
    ],
)
def test_parts_that_exclude_each_other(text: bytes):
    """W4: exactly one of method, result and error, and nothing that is not in the envelope."""
    error = refused(text)
    assert (error.cause, error.request_id, error.rpc_code) == (Cause.MALFORMED, 9, -32600)


@pytest.mark.attack("W5")
@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig"])
def test_other_encodings(codec: str):
    """W5: UTF-8 without byte order mark and nothing else."""
    assert cause(CALL.decode().encode(codec)) is Cause.MALFORMED


@pytest.mark.attack("W5")
def test_utf7_polyglot_is_a_lookalike():
    """W5: +AG4-ame is another key than name, but a reader of UTF-7 takes it for that."""
    text = b'{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"nosuch","+AG4-ame":"echo"}}'
    assert "looks like 'name'" in refused(text).message


@pytest.mark.attack("W5")
@pytest.mark.parametrize(
    "value",
    [
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"-1e999",
        b"1" * 309,
        b"-" + b"9" * 400,
        b"1" * 5000,
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\\uD83D"',
        b'{"\\udfff":1}',
        b'"\xff"',
        b'"\xc0\xaf"',
        b'"\xed\xa0\x80"',
        b'"\xf4\x90\x80\x80"',
        b'"\xe2\x82"',
        b'"\x00"',
        b'"\x01"',
        b'"\t"',
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"0x1",
        b"tru",
        b"'a'",
        b"[1,]",
        b'{"a":1,}',
        b"/**/1",
        b"",
        b'"\\x41"',
        b'"\\u00g0"',
        b'"\\u"',
        b"1 2",
        "\u0661".encode(),
        b"\xc2\xa01",
    ],
)
def test_what_is_not_json(value: bytes):
    """W5: no NaN, infinity, lone surrogate, bad UTF-8, control character or private syntax; and it is answered."""
    error = refused(with_value(value))
    assert (error.cause, error.rpc_code, error.request_id) == (Cause.MALFORMED, -32700, 9)


@pytest.mark.parametrize(
    "value", [b"1" * 308, b"-" + b"9" * 307, b"9223372036854775808", b"1.7976931348623157e308", b"5e-324", b"-0.0"]
)
def test_numbers_that_a_double_holds(value: bytes):
    """Large and small numbers pass with their exact value."""
    assert parsed(with_value(value)).params["arguments"]["x"] == json.loads(value)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{}",
        b"1",
        b'"x"',
        b"null",
        b"true",
        CALL + CALL,
        CALL + b" " + CALL,
        CALL[:-1],
        b"\0" + CALL,
        b"{" + CALL,
        b"x" + CALL,
    ],
)
def test_what_is_no_message(text: bytes):
    """Anything but exactly one object is refused."""
    assert cause(text) is Cause.MALFORMED


@pytest.mark.attack("W6")
@pytest.mark.parametrize(
    "text",
    [
        b'{"jsonrpc":"2.0","id":9,"\\u006dethod":"tools\\u002fcall","params":{"n\\u0061me":"\\u0065cho"}}',
        b'{"jsonrpc":"2.0","id":9,"method":"tools\\/call","params":{"name":"echo"}}',
        b' { "jsonrpc" : "2.0", "id" : 9,\t"method":"tools/call","params":{"name":"echo"} } ',
    ],
)
def test_escapes_are_decoded(text: bytes):
    """W6: the value decides, not its spelling; and what is forwarded is spelt plainly."""
    message = parsed(text)
    assert (message.method, message.params["name"]) == ("tools/call", "echo")
    assert message.encoded is None


@pytest.mark.parametrize(
    "value",
    [
        "null",
        "true",
        "1.0",
        "9.0",
        "1e2",
        "[]",
        "{}",
        "9223372036854775808",
        "-9223372036854775809",
        '"' + "a" * 1025 + '"',
    ],
)
def test_ids_that_are_none(value: str):
    """An id is text or an integer of 64 bits: 9.0 made a notification for one server and a request for another."""
    assert cause(f'{{"jsonrpc":"2.0","id":{value},"method":"ping"}}'.encode()) is Cause.MALFORMED


@pytest.mark.parametrize("value", [0, -1, 2**53 + 1, 2**63 - 1, -(2**63), "", "a", "\u00e9"])
def test_ids_keep_their_value(value: int | str):
    """Integers lose no precision, text stays text."""
    assert parsed(json.dumps({"jsonrpc": "2.0", "id": value, "method": "ping"}).encode()).id == value


@pytest.mark.parametrize("version", ['"1.0"', "2.0", '"2.00"', "null", '["2.0"]'])
def test_version(version: str):
    """The version is the text 2.0."""
    assert cause(f'{{"jsonrpc":{version},"id":1,"method":"ping"}}'.encode()) is Cause.MALFORMED
    assert cause(b'{"id":1,"method":"ping"}') is Cause.MALFORMED


@pytest.mark.parametrize("params", ["null", "[]", "1", '"x"', "false"])
def test_params_are_an_object(params: str):
    """Positional and absent-but-present params are refused."""
    assert cause(f'{{"jsonrpc":"2.0","id":1,"method":"ping","params":{params}}}'.encode()) is Cause.MALFORMED


@pytest.mark.parametrize("method", ["1", "null", '""', '["ping"]', '"' + "x" * 257 + '"'])
def test_method_is_text(method: str):
    """A method is short text."""
    assert cause(f'{{"jsonrpc":"2.0","id":1,"method":{method}}}'.encode()) is Cause.MALFORMED


@pytest.mark.parametrize(
    "text",
    [
        b'{"jsonrpc":"2.0","result":{}}',
        b'{"jsonrpc":"2.0","id":null,"result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":[]}',
        b'{"jsonrpc":"2.0","id":1,"result":null}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":1.5,"message":"x"}}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":true,"message":"x"}}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":1}}',
        b'{"jsonrpc":"2.0","id":1,"error":"x"}',
    ],
)
def test_responses_have_their_shape(text: bytes):
    """A response has an id, and a result or a proper error."""
    assert cause(text) is Cause.MALFORMED


@pytest.mark.attack("W13")
def test_depth_is_limited():
    """W13: 64 levels pass, 65 do not, and a million end no stack."""
    assert parsed(with_value(b"[" * 61 + b"]" * 61)).id == 9
    assert cause(with_value(b"[" * 62 + b"]" * 62)) is Cause.TOO_DEEP
    assert cause(b"[" * 1_000_000) in {Cause.TOO_DEEP, Cause.TOO_LARGE}
    assert cause(b'{"a":' * 200_000) in {Cause.TOO_DEEP, Cause.TOO_LARGE}


@pytest.mark.attack("W13")
def test_size_is_limited():
    """W13: more bytes or values than allowed are refused before they are parsed, on their id."""
    error = refused(with_value(b'"' + b"x" * 2000 + b'"'), Limits(message_bytes=1000))
    assert (error.cause, error.request_id) == (Cause.TOO_LARGE, 9)
    error = refused(with_value(b"[" + b"1," * 300_000 + b"1]"))
    assert (error.cause, error.request_id) == (Cause.TOO_LARGE, 9)


def test_digits_in_text_are_not_an_integer():
    """A long run of digits inside a string is text."""
    assert parsed(with_value(b'"' + b"1" * 5000 + b'"')).params["arguments"]["x"] == "1" * 5000


def test_quick_and_exact_way_agree():
    """What comes back unchanged from decoding and encoding is what the exact decoder sees."""
    for text in (CALL, with_value(b"[1,2.5,true,null,{}]"), with_value('"é\u2028"'.encode()), with_value(b"-5e-324")):
        spaced = text.replace(b'"id":', b'"id": ')
        assert parse_message(text, LIMITS).body == parse_message(spaced, LIMITS).body


def test_load_json_has_the_same_rules():
    """Other texts than messages can be read as strictly."""
    assert load_json(b'[1, "a"]', LIMITS) == [1, "a"]
    with pytest.raises(WireError):
        load_json(b'{"a":1,"a":1}', LIMITS)
