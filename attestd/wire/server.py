"""One line of a server, as cheaply as its size allows.

Requests and notifications of a server are small and are parsed as strictly as those of a client. A result is not
decoded: its envelope is split, its first level is looked through for what the session must know (``ResultHead``), and
the rest stays a view into the line that was received. What is forwarded is a new envelope around that view, so
nothing of the server's envelope survives.

Demanded of a result: UTF-8, one JSON object, an envelope of exactly jsonrpc, id and result, no duplicate and no
look-alike key at its first level. Not demanded, because the client is no worse off than without attestd: unique keys
further down, finite numbers. Bytes that some reader takes for a line end (CR, U+0085, U+2028, U+2029) are rewritten
before they are forwarded.
"""

from __future__ import annotations

import codecs
from typing import Any, Final, NoReturn

import msgspec

from attestd.errors import Cause
from attestd.wire.hint import WINDOW, id_hint
from attestd.wire.lookalike import META, RESULT
from attestd.wire.members import Member, members
from attestd.wire.model import Json, Kind, Limits, WireError
from attestd.wire.parse import load_json, parse_message, round_trip
from attestd.wire.serialise import message_line, to_bytes
from attestd.wire.shape import bound

_RESULT_KEYS: Final = {"jsonrpc", "id", "result"}
_RESULT_MEMBERS: Final = len(_RESULT_KEYS)
_RESULT: Final = Kind.RESULT
_ID_LIMIT: Final = 2**63
_ERROR_KEYS: Final = {"jsonrpc", "id", "error"}
_COLONS_MAX: Final = 100_000
"""Colons below which an object cannot have enough members to matter for memory."""
_SMALL: Final = 64 * 1024
_SMALL_DEPTH: Final = 256
_UTF8_STEP: Final = 64 * 1024
_ENDS: Final = ((b"\xe2\x80\xa8", rb"\u2028"), (b"\xe2\x80\xa9", rb"\u2029"), (b"\xc2\x85", rb"\u0085"))


class ResultHead(msgspec.Struct, frozen=True, kw_only=True):
    """What the session must know of a result, without its content."""

    result_type: str | None = None
    """complete, input_required, task or an extension's; None in the legacy era."""
    task_id: str | None = None
    """Of a task that the result creates or describes, in either era's place."""
    questions: tuple[str, ...] = ()
    """Methods of the server requests in inputRequests."""
    request_state: str | None = None
    is_error: bool = False
    protocol_version: str | None = None
    capabilities: Json = None


class ServerMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a server."""

    kind: Kind
    id: str | int | None
    method: str | None = None
    params: Json = None
    """Of a request or notification: the object. Otherwise None."""
    result: msgspec.Raw | None = None
    """Of a result: its bytes, a view into the received line."""
    error: Json = None
    """Of an error: the object."""
    head: ResultHead | None = None
    """Of a result; and of a notification that carries questions."""
    line: bytes | None = None
    """Of a request or notification: the line that is forwarded."""


def parse_server_line(line: bytes, limits: Limits) -> ServerMessage:
    """Parse one line of a server.

    Args:
        line: The bytes between two line ends.
        limits: Those of the session.

    Returns:
        The message. A result is not copied.

    Raises:
        WireError: TOO_LARGE, TOO_DEEP or MALFORMED; with the id of the client's request that the line appears to
            answer, so that the client need not wait for an answer that will not come.
    """
    try:
        return _parse(line, limits)
    except WireError as error:
        if _tells(line):
            error.request_id = None
        elif error.request_id is None:
            error.request_id = id_hint(line[:WINDOW], line[-WINDOW:])
        raise


def _tells(line: bytes) -> bool:
    """Whether a refused line is a request or notification: its id is then the server's own and no client's."""
    if line.count(b":") > _COLONS_MAX:
        return False
    try:
        return "method" in members(line)
    except WireError:
        return False


def _parse(line: bytes, limits: Limits) -> ServerMessage:
    if len(line) > limits.message_bytes:
        message = f"cannot accept the message: got {len(line)} bytes, expected at most {limits.message_bytes}"
        raise WireError(Cause.TOO_LARGE, message)
    small = _small_result(line)
    if small is not None:
        return small
    if line.count(b":") > _COLONS_MAX:
        bound(line, limits)
    _demand_utf8(line)
    parts = members(line)
    if "method" in parts:
        return _told(line, limits)
    line, parts = _one_line(line, parts)
    message_id = _envelope(parts, limits)
    if "error" in parts:
        return ServerMessage(kind=Kind.ERROR, id=message_id, error=_error(parts["error"], limits))
    result = parts["result"]
    return ServerMessage(kind=Kind.RESULT, id=message_id, result=result.raw, head=_split_result(line, result, limits))


def forward(message: ServerMessage, *, message_id: str | int | None = None) -> tuple[bytes | memoryview, ...]:
    """The bytes to write to the client, as chunks; a large result is among them as a view.

    Args:
        message: What the server sent.
        message_id: The id that the client knows, where a shared back end has mapped it. Results and errors only.

    Returns:
        Chunks that together are one line with its LF.
    """
    if message.line is not None:
        return (message.line,)
    told = message.id if message_id is None else message_id
    own = b"%d" % told if type(told) is int else to_bytes(told)
    if message.result is None:
        return (b'{"jsonrpc":"2.0","id":' + own + b',"error":' + to_bytes(message.error) + b"}\n",)
    content = memoryview(message.result)
    start = _result_start(own)
    if len(content) <= _SMALL:
        return (b"".join((start, content, b"}\n")),)
    return (start, content, b"}\n")


def result_of(message: ServerMessage, limits: Limits) -> dict[str, Any]:
    """Decode a whole result, strictly: for lists, which are rewritten.

    Raises:
        WireError: TOO_LARGE, TOO_DEEP or MALFORMED.
    """
    if message.result is None:
        _malformed("it has no result")
    value = load_json(bytes(message.result), limits)
    if type(value) is not dict:
        _malformed("its result is not an object")
    return value


def _told(line: bytes, limits: Limits) -> ServerMessage:
    message = parse_message(line.replace(b"\r", b" "), limits)
    head = None
    if "inputRequests" in message.params:
        head = ResultHead(questions=_questions(message.params["inputRequests"]))
    return ServerMessage(
        kind=message.kind,
        id=message.id,
        method=message.method,
        params=message.params,
        head=head,
        line=message_line(message),
    )


def _envelope(parts: dict[str, Member], limits: Limits) -> str | int:
    if parts.keys() != _RESULT_KEYS and parts.keys() != _ERROR_KEYS:
        _malformed("it is neither a request nor a notification, a result or an error")
    if bytes(parts["jsonrpc"].raw) != b'"2.0"':
        _malformed('jsonrpc is not "2.0"')
    return _demand_id(load_json(bytes(parts["id"].raw), limits))


def _demand_id(value: Json) -> str | int:
    if type(value) is str or (type(value) is int and -_ID_LIMIT <= value < _ID_LIMIT):
        return value
    return _malformed("id is neither text nor an integer of 64 bits")


def _error(member: Member, limits: Limits) -> Json:
    error = load_json(bytes(member.raw), limits)
    if type(error) is not dict or type(error.get("code")) is not int or type(error.get("message")) is not str:
        _malformed("error lacks an integer code or a text message")
    return error


def _small_result(line: bytes) -> ServerMessage | None:
    """The quick way for what most servers send: a small result, written as our encoder writes it."""
    if len(line) > _SMALL or line.count(b"[") + line.count(b"{") > _SMALL_DEPTH:
        return None
    value = round_trip(line)
    if type(value) is not dict or len(value) != _RESULT_MEMBERS or value.get("jsonrpc") != "2.0":
        return None
    result, message_id = value.get("result"), value.get("id")
    if type(result) is not dict:
        return None
    if type(message_id) is int and -_ID_LIMIT <= message_id < _ID_LIMIT:
        start = b'{"jsonrpc":"2.0","id":%d,"result":' % message_id
    elif type(message_id) is str:
        start = _result_start(to_bytes(message_id))
    else:
        return None
    # Written as we would write it, so the result is already there in the line; another order of keys is encoded again.
    raw = line[len(start) : -1] if line.startswith(start) and line.isascii() else to_bytes(result)
    return ServerMessage(kind=_RESULT, id=message_id, result=msgspec.Raw(raw), head=_head(result, result))


def _result_start(message_id: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":' + message_id + b',"result":'


def _split_result(line: bytes, result: Member, limits: Limits) -> ResultHead:
    parts = members(line, result.start, result.end)
    held: dict[str, Json] = {key: load_json(bytes(parts[key].raw), limits) for key in _HEAD_KEYS if key in parts}
    return _head(dict.fromkeys(parts), held)


def _head(keys: dict[str, Json], held: dict[str, Json]) -> ResultHead:
    """Args: keys: every key of the result. held: the values of those in ``_HEAD_KEYS``."""
    if keys.keys() <= _CALL_KEYS:
        kind = held.get("resultType")
        if kind is None:
            return _FAILED if held.get("isError") is True else _FINE
        if kind == "complete":
            return _COMPLETE_FAILED if held.get("isError") is True else _COMPLETE
    RESULT.demand("the result", keys, None)
    task = held.get("task")
    task_id = held.get("taskId", task.get("taskId") if type(task) is dict else None)
    version = held.get("protocolVersion")
    return ResultHead(
        result_type=_text(held.get("resultType")),
        task_id=_text(task_id),
        questions=_questions(held.get("inputRequests")),
        request_state=_text(held.get("requestState")),
        is_error=held.get("isError") is True,
        protocol_version=version if type(version) is str else None,
        capabilities=held.get("capabilities"),
    )


def _text(value: Json) -> str | None:
    if value is None or type(value) is str:
        return value
    return _malformed("resultType, requestState or taskId is not text")


def _questions(value: Json) -> tuple[str, ...]:
    if value is None:
        return ()
    if type(value) is not dict:
        _malformed("inputRequests is not an object")
    return tuple(_question(question) for question in value.values())


def _question(value: Json) -> str:
    method = value.get("method") if type(value) is dict else None
    return method if type(method) is str else _malformed("a question in inputRequests has no method")


def _one_line(line: bytes, parts: dict[str, Member]) -> tuple[bytes, dict[str, Member]]:
    """Valid JSON has a raw CR or LF only between tokens, and the other line ends only inside strings."""
    clean = line
    if b"\r" in line or b"\n" in line:
        clean = clean.replace(b"\r", b" ").replace(b"\n", b" ")
    if not line.isascii():
        for raw, escaped in _ENDS:
            clean = clean.replace(raw, escaped)
    return (line, parts) if clean is line else (clean, members(clean))


def _demand_utf8(line: bytes) -> None:
    if line.isascii():
        return
    decode = codecs.getincrementaldecoder("utf-8")().decode
    view = memoryview(line)
    try:
        for start in range(0, len(view), _UTF8_STEP):
            decode(view[start : start + _UTF8_STEP], start + _UTF8_STEP >= len(view))
    except UnicodeDecodeError:
        _malformed("it is not UTF-8")


def _malformed(reason: str) -> NoReturn:
    raise WireError(Cause.MALFORMED, f"cannot accept the message of the server: {reason}")


_CALL_KEYS: Final = frozenset({"content", "structuredContent", "isError", "resultType", META})
"""Of the result of nearly every call: none of them looks like a key that matters, and only two matter themselves."""
_FINE, _FAILED = ResultHead(), ResultHead(is_error=True)
_COMPLETE = ResultHead(result_type="complete")
_COMPLETE_FAILED = ResultHead(result_type="complete", is_error=True)
_HEAD_KEYS: Final = (
    "resultType",
    "task",
    "taskId",
    "inputRequests",
    "requestState",
    "isError",
    "protocolVersion",
    "capabilities",
)
