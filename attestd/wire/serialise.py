r"""Values to bytes: compact, ASCII only, on one line.

Nothing that could end a line for any reader is ever written raw: control characters, U+0085, U+2028 and U+2029 leave
as ``\uXXXX``. Key order and the exact value of every number are kept.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from attestd.wire.model import Json, Message

_fast: Final = msgspec.json.Encoder()
_exact: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), allow_nan=False, check_circular=False)


def to_bytes(value: Json) -> bytes:
    """One JSON value as compact ASCII, without a line end.

    Raises:
        ValueError: The value holds NaN or an infinity beside text that is not ASCII. Parsed values never hold one.
    """
    encoded = _fast.encode(value)
    return encoded if encoded.isascii() else _exact.encode(value).encode("ascii")


def to_line(body: dict[str, Any]) -> bytes:
    """One message as a line, with its LF."""
    return to_bytes(body) + b"\n"


def message_line(message: Message) -> bytes:
    """A parsed message as a line, with its LF: what is forwarded."""
    encoded = message.encoded
    if encoded is not None and encoded.isascii():
        return encoded + b"\n"
    return to_line(message.body)
