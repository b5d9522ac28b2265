"""The members of one JSON object as slices, without decoding what they hold.

A result may be 16 MiB of text that nobody here reads. So an object is split into its keys and the raw bytes of their
values, which are views into the line and copy nothing. The values are checked to be JSON, and to have no duplicate
sibling at this level: msgspec keeps the last of two equal keys and says nothing, so the text is walked from member to
member, and every value must stand where the walk expects it.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

import msgspec

from attestd.errors import Cause
from attestd.wire.model import WireError

_OPEN: Final = re.compile(rb"[ \t\r\n]*\{")
_KEY: Final = re.compile(rb'[ \t\r\n]*,?[ \t\r\n]*("(?:[^"\\]++|\\.)*+")[ \t\r\n]*:[ \t\r\n]*')
_CLOSE: Final = re.compile(rb"[ \t\r\n]*\}[ \t\r\n]*")

_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text_decoder: Final = msgspec.json.Decoder(str)


class Member(msgspec.Struct, frozen=True):
    """One member."""

    raw: msgspec.Raw
    start: int
    """Offset of the value in the line."""
    end: int


def members(line: bytes, start: int = 0, end: int | None = None) -> dict[str, Member]:
    """Split an object.

    Args:
        line: The bytes that hold it. The values are views into them.
        start: Where in the line the object begins; white space may come first.
        end: Where it ends, or None for the end of the line.

    Returns:
        The members in the order of the text.

    Raises:
        WireError: MALFORMED: not one JSON object, or a key is there twice. TOO_DEEP.
    """
    stop = len(line) if end is None else end
    whole = start == 0 and stop == len(line)
    try:
        raws = _decoder.decode(line if whole else memoryview(line)[start:stop])
    except RecursionError:
        raise WireError(Cause.TOO_DEEP, "cannot accept the message: it nests too deep") from None
    except ValueError as error:
        _malformed(str(error).lower())
    return _walk(line, raws, start, stop)


def _walk(line: bytes, raws: dict[str, msgspec.Raw], start: int, stop: int) -> dict[str, Member]:
    found: dict[str, Member] = {}
    opening = _OPEN.match(line, start, stop)
    if opening is None:
        _malformed("it is not an object")
    position = opening.end()
    while (match := _KEY.match(line, position, stop)) is not None:
        key = _text_decoder.decode(match.group(1))
        raw = raws.get(key)
        begin = match.end()
        if raw is None or key in found or not line.startswith(memoryview(raw), begin):
            _malformed(f"key {key[:64]!a} is there twice")
        position = begin + len(memoryview(raw))
        found[key] = Member(raw, begin, position)
    if len(found) != len(raws) or _CLOSE.fullmatch(line, position, stop) is None:
        _malformed("its members cannot be told apart")
    return found


def _malformed(reason: str) -> NoReturn:
    raise WireError(Cause.MALFORMED, f"cannot parse the message: {reason}", rpc_code=-32700)
