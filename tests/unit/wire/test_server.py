"""Lines of a server: cheap for large results, strict for what routes."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from attestd.errors import Cause
from attestd.wire.framing import Line, LineFramer
from attestd.wire.model import Kind, Limits, WireError
from attestd.wire.server import ResultHead, ServerMessage, forward, parse_server_line, result_of
from tests.support.wire import LIMITS

MIB = 1024 * 1024


def parse(text: bytes) -> ServerMessage:
    """Parse with the default limits."""
    return parse_server_line(text, LIMITS)


def sent(text: bytes, **keywords: int | str) -> bytes:
    """What is forwarded, as one piece."""
    return b"".join(forward(parse(text), **keywords))  # type: ignore[arg-type]


def refused(text: bytes) -> WireError:
    """The error that parsing ends with."""
    with pytest.raises(WireError) as caught:
        parse(text)
    return caught.value


def variants(result: str) -> list[bytes]:
    """One result as different servers write it: quick way, order of the TypeScript SDK, spaces, CRLF-ish, large."""
    large = result[:-1] + ("," if len(result) > 2 else "") + f'"pad":"{"x" * 70_000}"}}'
    return [
        f'{{"jsonrpc":"2.0","id":1,"result":{result}}}'.encode(),
        f'{{"result":{result},"jsonrpc":"2.0","id":1}}'.encode(),
        f' {{"jsonrpc" : "2.0", "id": 1, "result" : {result} }} '.encode(),
        f'{{"jsonrpc":"2.0",\r"id":1,"result":{result}}}'.encode(),
        f'{{"jsonrpc":"2.0","id":1,"result":{large}}}'.encode(),
    ]


@pytest.mark.parametrize(
    "result", ["{}", '{"content":[{"type":"text","text":"a\\nb"}],"isError":false}', '{"a":1e3,"b":[1,{"c":null}]}']
)
def test_result_is_forwarded_with_its_content(result: str):
    """A new envelope around the same content, on one line, whichever way it was written."""
    for text in variants(result):
        message = parse(text)
        line = b"".join(forward(message))
        assert (message.kind, message.id, message.method) == (Kind.RESULT, 1, None)
        assert json.loads(line) == json.loads(text)
        assert line.startswith(b'{"jsonrpc":"2.0","id":1,"result":')
        assert line.endswith(b"}\n")
        assert line.count(b"\n") == 1
        assert b"\r" not in line


def test_head_of_every_variant():
    """What the session must know is found whichever way the result was written."""
    head = (
        '{"resultType":"input_required","requestState":"s","inputRequests":{"q":{"method":"roots/list"}},'
        '"isError":true,"_meta":{"k":1}}'
    )
    for text in variants(head):
        found = parse(text).head
        assert found is not None
        assert (found.result_type, found.request_state, found.questions) == ("input_required", "s", ("roots/list",))
        assert found.is_error


@pytest.mark.parametrize(
    ("result", "task_id"),
    [
        ('{"task":{"taskId":"t","status":"working"}}', "t"),
        ('{"resultType":"task","taskId":"t2"}', "t2"),
        ('{"content":[]}', None),
        ('{"task":"x"}', None),
    ],
)
def test_task_id(result: str, task_id: str | None):
    """Found in the place of either era."""
    for text in variants(result):
        head = parse(text).head
        assert head is not None
        assert head.task_id == task_id


def test_initialize_result():
    """Version and capabilities are decoded, the rest is not."""
    head = parse(
        b'{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"x"}}}'
    ).head
    assert head is not None
    assert (head.protocol_version, head.capabilities) == ("2025-11-25", {"tools": {}})


@pytest.mark.parametrize(
    "result",
    [
        '{"resultType":"complete","resultType":"input_required"}',
        '{"inputRequests":{},"inputRequests":{"a":{"method":"sampling/createMessage"}}}',
        '{"InputRequests":{"a":{"method":"sampling/createMessage"}}}',
        '{"input_requests":{"a":{"method":"sampling/createMessage"}}}',
        '{"Task\\u212aid":"x"}'.replace("\\u212a", ""),
        '{"inputRequests":{"a":{"method":"roots/list","method":"sampling/createMessage"}}}',
        '{"inputRequests":[]}',
        '{"inputRequests":{"a":{}}}',
        '{"inputRequests":{"a":5}}',
        '{"inputRequests":{"a":{"method":5}}}',
        '{"resultType":5}',
        '{"requestState":{}}',
        '{"taskId":7}',
        "[]",
        '"x"',
        "null",
    ],
)
def test_questions_cannot_be_smuggled_past_the_gate(result: str):
    """A duplicate, a look-alike or a wrong type where the gate reads is refused."""
    for text in variants(result) if result.startswith("{") else variants(result)[:4]:
        assert refused(text).cause is Cause.MALFORMED


@pytest.mark.parametrize(
    "text",
    [
        b'{"jsonrpc":"2.0","id":1,"id":2,"result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"result":{"a":1}}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":"x"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"extra":1}',
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"1.0","id":1,"result":{}}',
        b'{"jsonrpc":"2.0","id":1.0,"result":{}}',
        b'{"jsonrpc":"2.0","id":true,"result":{}}',
        b'{"jsonrpc":"2.0","id":null,"result":{}}',
        b'{"jsonrpc":"2.0","id":9223372036854775808,"result":{}}',
        b'{"jsonrpc":"2.0","result":{}}',
        b'[{"jsonrpc":"2.0","id":1,"result":{}}]',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":NaN}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":"\xff"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":"\xed\xa0\x80"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":"\\ud800"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":"\r"}}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":"x","message":"x"}}',
        b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"x"}}',
        b"hello",
        b"",
    ],
)
def test_what_is_no_server_message(text: bytes):
    """The envelope is exact, the text is UTF-8 and JSON."""
    assert refused(text).cause is Cause.MALFORMED


def test_refusal_tells_the_id():
    """The client that waits for a malformed answer can be told."""
    assert refused(b'{"jsonrpc":"2.0","id":31,"result":{"taskId":7}}').request_id == 31
    assert refused(b'{"result":{"taskId":7},"jsonrpc":"2.0","id":32}').request_id == 32


def test_utf8_is_checked_across_the_steps_of_the_decoder():
    """A character on the border of two steps is whole, a broken one at the very end is found."""
    for pad in range(60, 70):
        text = (
            b'{"jsonrpc":"2.0","id":1,"result":{"a":"' + b"x" * (65536 - pad) + "\U0001f600".encode() * 100_000 + b'"}}'
        )
        assert parse(text).kind is Kind.RESULT
    assert (
        refused(b'{"jsonrpc":"2.0","id":1,"result":{"a":"' + b"x" * 200_000 + b'\xf0\x9f\x98"}}').cause
        is Cause.MALFORMED
    )


@pytest.mark.parametrize("pad", [0, 70_000])
def test_line_ends_of_some_readers_are_escaped(pad: int):
    """No U+0085, U+2028 or U+2029 is forwarded raw, and the text stays the same."""
    value = "a\u0085b\u2028c\u2029d\\\u2028" + "x" * pad
    text = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"t": value}}, ensure_ascii=False).encode()
    line = sent(text)
    assert len(line.decode().splitlines()) == 1
    assert json.loads(line)["result"]["t"] == value


def test_error_is_decoded_and_written_anew():
    """Errors are small."""
    message = parse(b'{"jsonrpc": "2.0", "id": "a", "error": {"code": -32602, "message": "no\xc3\xa9", "data": [1]}}')
    assert message.kind is Kind.ERROR
    assert (
        b"".join(forward(message))
        == b'{"jsonrpc":"2.0","id":"a","error":{"code":-32602,"message":"no\\u00e9","data":[1]}}\n'
    )


def test_requests_and_notifications_are_parsed_like_those_of_a_client():
    """Method and params are there, and what is forwarded is written anew."""
    request = parse(b'{"jsonrpc":"2.0","id":3,"method":"sampling/createMessage","params": {"maxTokens":5}}')
    assert (request.kind, request.method, request.params) == (Kind.REQUEST, "sampling/createMessage", {"maxTokens": 5})
    assert (
        b"".join(forward(request))
        == b'{"jsonrpc":"2.0","id":3,"method":"sampling/createMessage","params":{"maxTokens":5}}\n'
    )
    told = parse(b'{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"\xe2\x80\xa8"}}')
    assert (told.kind, told.head) == (Kind.NOTIFICATION, None)
    assert b"".join(forward(told)).isascii()
    assert refused(b'{"jsonrpc":"2.0","id":3,"method":"roots/list","method":"ping"}').cause is Cause.MALFORMED


def test_questions_inside_a_notification():
    """notifications/tasks carries questions as results do."""
    params = b'{"taskId":"t","inputRequests":{"a":{"method":"roots/list"}}}'
    text = b'{"jsonrpc":"2.0","method":"notifications/tasks","params":' + params + b"}"
    head = parse(text).head
    assert head is not None
    assert head.questions == ("roots/list",)


def test_mapped_id():
    """Where a shared back end knows another id, the client's is written."""
    assert (
        sent(b'{"jsonrpc":"2.0","id":1,"result":{"a":1}}', message_id="c-7")
        == b'{"jsonrpc":"2.0","id":"c-7","result":{"a":1}}\n'
    )
    assert sent(b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}', message_id=0).startswith(
        b'{"jsonrpc":"2.0","id":0,'
    )


def test_result_of_decodes_strictly():
    """Lists are decoded whole; duplicate keys anywhere are then refused."""
    assert result_of(parse(b'{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}'), LIMITS) == {"tools": []}
    with pytest.raises(WireError):
        result_of(parse(b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a","name":"b"}]}}'), LIMITS)
    with pytest.raises(WireError):
        result_of(parse(b'{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}'), LIMITS)


def test_limits():
    """Size, depth and number of values are bounded."""
    assert (
        refused(b'{"jsonrpc":"2.0","id":1,"result":{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}}").cause
        is Cause.TOO_DEEP
    )
    assert (
        refused(b'{"jsonrpc":"2.0","id":1,"result":{' + b",".join(b'"%d":1' % n for n in range(300_000)) + b"}}").cause
        is Cause.TOO_LARGE
    )
    with pytest.raises(WireError) as caught:
        parse_server_line(b'{"jsonrpc":"2.0","id":1,"result":{}}', Limits(message_bytes=10))
    assert caught.value.cause is Cause.TOO_LARGE


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\u2028"])
def test_sixteen_mebibytes_pass_in_bounded_memory(letter: str):
    """From chunks to chunks a 16 MiB result takes less than 48 MiB beside what was received, the framer included."""
    text = b'{"jsonrpc":"2.0","id":12,"result":{"content":[{"type":"text","text":"'
    text += (f'{letter}: [a] \\"q\\" \\n'.encode() * (2 * MIB))[: 16 * MIB - 200].rsplit(b"\\n", 1)[0] + b'"}]}}'
    chunks = [text[at : at + 65536] for at in range(0, len(text), 65536)] + [b"\n"]
    tracemalloc.start()
    framer = LineFramer(LIMITS.message_bytes)
    (line,) = [item for chunk in chunks for item in framer.feed(chunk)]
    assert isinstance(line, Line)
    parts = forward(parse_server_line(line.data, LIMITS))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(len(part) for part in parts) >= len(text)
    assert peak < 48 * MIB


@pytest.mark.parametrize(
    "result", ['{"content":[],"isError":true}', '{"isError":true,"structuredContent":{"a":1}}', "{}"]
)
def test_the_head_of_an_ordinary_call(result: str):
    """The usual keys of a call's result say nothing but whether it failed, whichever way it was written."""
    for text in variants(result):
        assert parse(text).head == ResultHead(is_error="isError" in result)


@pytest.mark.parametrize("text", ['"\u00e9"', '"\u2028"', '"\x7f"'])
def test_what_is_not_ascii_is_written_anew(text: str):
    """A result is taken from the received line only where that is what would be written anyway."""
    value = json.loads(text)
    line = sent(f'{{"jsonrpc":"2.0","id":1,"result":{{"x":{json.dumps(value, ensure_ascii=False)}}}}}'.encode())
    assert line.isascii()
    assert json.loads(line)["result"] == {"x": value}


@pytest.mark.parametrize(
    ("line", "request_id"),
    [
        (b'{"jsonrpc":"2.0","id":7,"result":{"a":1,"a":2}}', 7),
        (b'{"jsonrpc":"2.0","id":"x","error":{"code":1}}', "x"),
        (b'{"jsonrpc":"2.0","id":7,"resu', 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"roots/list","params":[]}', None),
        (b'{"jsonrpc":"2.0","method":"notifications/message","params":[]}', None),
        (b'{"jsonrpc":"2.0","id":7,"method":"roots/list","params":{"a":1,"a":2}}', None),
    ],
)
def test_which_request_a_refused_line_appears_to_answer(line: bytes, request_id: str | int | None):
    """The id of an answer is told; that of the server's own request is no client's, and is not."""
    assert refused(line).request_id == request_id
