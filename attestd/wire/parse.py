"""Bytes to one message, strictly. Everything else is a ``WireError``.

1. UTF-8 without byte order mark; no CR, LF or NUL byte.
2. Bounded depth and number of values, proven before a parser runs (``shape``).
3. JSON as RFC 8259 has it: no NaN, no infinity (also not by overflow, of floats or of integers that a double cannot
   hold), no lone surrogate, no duplicate key at any depth, nothing after the value.
4. Exactly one JSON-RPC message: ``jsonrpc`` is "2.0"; exactly one of method, result, error; no other key; ``id`` a
   string of at most 1024 characters or an integer of 64 bits; params, result and error are objects.
5. No key that a lenient reader would take for a routing key (``lookalike``).

Most clients write JSON exactly as our serialiser does. Then decoding and encoding again gives back the same bytes,
which proves rule 3 at once: a duplicate key, an escape or a space would not have survived. Whatever does not come
back goes to the slow, exact decoder.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

import msgspec

from attestd.errors import Cause
from attestd.wire.hint import WINDOW, id_hint
from attestd.wire.lookalike import ENVELOPE, demand_exact_keys
from attestd.wire.model import Json, Kind, Limits, Message, WireError
from attestd.wire.shape import bound, is_bounded

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
DIFFERENT: Final = object()
"""See ``round_trip``."""
BATCH_REVISION: Final = "2025-03-26"
"""The only revision that has batches."""

_DIGITS_MAX: Final = 308
"""Decimal digits that every integer below the largest double may have."""
_ID_CHARACTERS: Final = 1024
_METHOD_CHARACTERS: Final = 256
_ID_LIMIT: Final = 2**63

_REQUEST: Final = frozenset({"jsonrpc", "id", "method", "params"})
_NOTIFICATION, _REQUESTED = Kind.NOTIFICATION, Kind.REQUEST
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG_INTEGER: Final = b"0" * (_DIGITS_MAX + 1)
_BOM: Final = b"\xef\xbb\xbf"


def parse_message(line: bytes, limits: Limits) -> Message:
    """Parse one line.

    Args:
        line: The bytes between two line ends.
        limits: Those of the session.

    Returns:
        The message.

    Raises:
        WireError: With the id of the message where that is known. The cause is TOO_LARGE, TOO_DEEP, BATCH or
            MALFORMED.
    """
    size = len(line)
    if size <= _DIGITS_MAX and size <= limits.message_bytes and is_bounded(line, limits):
        value = round_trip(line)  # as ``_load`` does, for the short lines that most are
        if value is not DIFFERENT:
            return _message(value, line if line.isascii() else None)
    body, encoded = _load_hinted(line, limits)
    return _message(body, encoded)


def split_batch(line: bytes, revision: str | None, limits: Limits) -> tuple[Message | WireError, ...]:
    """Parse a batch into its messages, each as strictly as if it had come alone.

    Args:
        line: A JSON array.
        revision: The negotiated revision. Only 2025-03-26 has batches.
        limits: Those of the session.

    Returns:
        One item per element, in order: a message, or why that element is none. ``initialize`` may not be in a batch.

    Raises:
        WireError: The array as a whole is refused.
    """
    body, _ = _load_hinted(line, limits)
    if type(body) is not list:
        raise WireError(Cause.MALFORMED, f"cannot split a batch: got {_kind(body)}, expected an array")
    if revision != BATCH_REVISION:
        raise _batch_refused(revision)
    if not 1 <= len(body) <= limits.batch:
        message = f"cannot accept the batch: got {len(body)} messages, expected 1 to {limits.batch}"
        raise WireError(Cause.BATCH, message)
    return tuple(_element(item) for item in body)


def load_json(data: bytes, limits: Limits) -> Json:
    """Decode one JSON value by rules 1 to 3.

    Raises:
        WireError: TOO_LARGE, TOO_DEEP or MALFORMED.
    """
    return _load(data, limits)[0]


def _load(line: bytes, limits: Limits) -> tuple[Json, bytes | None]:
    """The value, and its serialisation if that is ASCII and has come for free."""
    if len(line) > limits.message_bytes:
        message = f"cannot accept the message: got {len(line)} bytes, expected at most {limits.message_bytes}"
        raise WireError(Cause.TOO_LARGE, message)
    bound(line, limits)
    if len(line) <= _DIGITS_MAX or not _has_long_integer(line.translate(_ZEROS)):
        value = round_trip(line)
        if value is not DIFFERENT:
            return value, line if line.isascii() else None
    return _load_exactly(line), None


def _has_long_integer(zeros: bytes) -> bool:
    """Whether so many digits stand side by side. They are counted first, which is faster, and enough for most lines."""
    return zeros.count(b"0") > _DIGITS_MAX and _LONG_INTEGER in zeros


def _load_hinted(line: bytes, limits: Limits) -> tuple[Json, bytes | None]:
    try:
        return _load(line, limits)
    except WireError as error:
        error.request_id = id_hint(line[:WINDOW], line[-WINDOW:])
        raise


def round_trip(line: bytes) -> Json:
    """The value of a text that is exactly what our encoder writes, else ``DIFFERENT``.

    The caller has bounded the depth, or the length to what cannot nest too deep.
    """
    try:
        value = _fast_decoder.decode(line)
    except ValueError:
        return DIFFERENT
    return value if _fast_encoder.encode(value) == line else DIFFERENT


def _load_exactly(line: bytes) -> Json:
    if b"\r" in line or b"\n" in line:
        _malformed("it has a CR or LF inside")
    if b"\0" in line:
        _malformed("it has a NUL byte; is it UTF-16 or UTF-32, expected UTF-8?")
    if line.startswith(_BOM):
        _malformed("it begins with a byte order mark, expected none")
    try:
        value = _exact_decoder.decode(line.decode("utf-8"))
        if _SURROGATE.search(line):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        _malformed(f"byte {error.start} is not UTF-8")
    except UnicodeEncodeError:
        _malformed("it has a lone surrogate")
    except json.JSONDecodeError as error:
        _malformed(f"{error.msg.lower()} at character {error.pos}")
    return value


def _message(body: Json, encoded: bytes | None) -> Message:
    if type(body) is not dict:
        if type(body) is list:
            raise _batch_refused(None)
        raise WireError(Cause.MALFORMED, f"cannot accept the message: got {_kind(body)}, expected an object")
    message_id = body.get("id")
    known_id = message_id if _is_id(message_id) else None
    if not body.keys() <= _REQUEST:
        return _response(body, message_id, known_id, encoded)
    method = body.get("method")
    if type(method) is not str or not 0 < len(method) <= _METHOD_CHARACTERS:
        _invalid(f"method is {_kind(method)}, expected text of 1 to {_METHOD_CHARACTERS} characters", known_id)
    if body.get("jsonrpc") != "2.0":
        _demand_version(body, known_id)
    if known_id is None and "id" in body:
        _invalid(f"id is {_kind(message_id)}, expected text or an integer of 64 bits", None)
    params = body.get("params", {})
    if type(params) is not dict:
        _invalid(f"params is {_kind(params)}, expected an object", known_id)
    demand_exact_keys(params, known_id)
    kind = _NOTIFICATION if known_id is None else _REQUESTED
    return Message(kind=kind, id=known_id, method=method, params=params, body=body, encoded=encoded)


def _response(body: dict[str, Any], message_id: Json, known_id: str | int | None, encoded: bytes | None) -> Message:
    foreign = body.keys() - ENVELOPE.known
    if foreign:
        ENVELOPE.demand("the envelope", body, known_id)
        _invalid(f"unknown key {min(foreign)[:64]!a}", known_id)
    parts = sorted(body.keys() & {"method", "params", "result", "error"})
    if len(parts) != 1:
        _invalid(f"it has {' and '.join(parts)} together", known_id)
    kind = Kind(parts[0])
    _demand_version(body, known_id)
    if known_id is None:
        _invalid(f"id is {_kind(message_id)}, expected text or an integer of 64 bits", None)
    content = body[kind.value]
    if type(content) is not dict:
        _invalid(f"{kind.value} is {_kind(content)}, expected an object", known_id)
    if kind is Kind.ERROR and (type(content.get("code")) is not int or type(content.get("message")) is not str):
        _invalid("error lacks an integer code or a text message", known_id)
    return Message(kind=kind, id=known_id, method=None, params={}, body=body, encoded=encoded)


def _element(body: Json) -> Message | WireError:
    try:
        message = _message(body, None)
    except WireError as error:
        return error
    if message.method == "initialize":
        return WireError(Cause.BATCH, "cannot accept initialize inside a batch", request_id=message.id)
    return message


def _demand_version(body: dict[str, Any], known_id: str | int | None) -> None:
    version = body.get("jsonrpc")
    if type(version) is not str or version != "2.0":
        _invalid('jsonrpc is not "2.0"', known_id)


def _is_id(value: Json) -> bool:
    if type(value) is int:
        return -_ID_LIMIT <= value < _ID_LIMIT
    return type(value) is str and len(value) <= _ID_CHARACTERS


def _pairs(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                _malformed(f"key {key[:64]!a} is there twice")
            seen.add(key)
    return value


def _integer(text: str) -> int:
    if len(text) > _DIGITS_MAX:
        _malformed(f"an integer has {len(text)} characters, expected at most {_DIGITS_MAX}")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if value in _INFINITIES:
        _malformed(f"number {text[:32]} is out of range")
    return value


def _constant(text: str) -> NoReturn:
    _malformed(f"{text} is not JSON")


def _malformed(reason: str) -> NoReturn:
    raise WireError(Cause.MALFORMED, f"cannot parse the message: {reason}", rpc_code=PARSE_ERROR)


def _invalid(reason: str, request_id: str | int | None) -> NoReturn:
    raise WireError(
        Cause.MALFORMED, f"cannot accept the message: {reason}", request_id=request_id, rpc_code=INVALID_REQUEST
    )


def _batch_refused(revision: str | None) -> WireError:
    return WireError(
        Cause.BATCH, f"cannot accept a batch at revision {revision or 'unknown'}: only {BATCH_REVISION} has them"
    )


def _kind(value: Json) -> str:
    return _NAMES.get(type(value), "something else")


_NAMES: Final = {
    dict: "an object", list: "an array", str: "text", int: "an integer", float: "a fraction", bool: "a truth value",
    type(None): "nothing",
}  # fmt: skip
_INFINITIES: Final = (float("inf"), float("-inf"))
_fast_decoder: Final = msgspec.json.Decoder()
_fast_encoder: Final = msgspec.json.Encoder()
_exact_decoder: Final = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
