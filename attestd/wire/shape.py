"""How deep and how many: the bounds that are proven before a parser sees the bytes.

The parsers recurse, and build objects many times larger than the text they come from. So nesting and the number of
values are counted first, on the *skeleton* of the text: its brackets and commas outside strings. Where the text stops
being JSON the skeleton may be wrong, but only behind the place where the parser stops too.
"""

from __future__ import annotations

from typing import Final

from attestd.errors import Cause
from attestd.wire.model import Limits, WireError

_KEPT: Final = b"[]{},"
_DROPPED: Final = bytes(sorted(set(range(256)) - set(_KEPT)))
_SQUARE: Final = bytes.maketrans(b"{}", b"[]")


def is_bounded(line: bytes, limits: Limits) -> bool:
    """Whether a text has too few brackets to nest too deep, and too few bytes for too many values. False: not known."""
    return line.count(b"[") + line.count(b"{") <= limits.depth and len(line) <= limits.values


def bound(line: bytes, limits: Limits) -> None:
    """Refuse what nests too deep or holds too many values. Linear in the bytes for all that passes.

    Raises:
        WireError: TOO_DEEP, TOO_LARGE, or MALFORMED for brackets that do not match.
    """
    if is_bounded(line, limits):
        return
    plain = line.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') // 2 > 2 * limits.values:
        raise _too_many(limits)
    skeleton = b"".join(plain.split(b'"')[::2]).translate(_SQUARE, _DROPPED)
    if skeleton.count(b",") + skeleton.count(b"[") > limits.values:
        raise _too_many(limits)
    _bound_depth(skeleton.replace(b",", b""), limits.depth)


def _bound_depth(brackets: bytes, depth: int) -> None:
    """Every pass removes the innermost pairs, so what is left after ``depth`` passes is deeper, or does not match."""
    too_deep = b"[" * (depth + 1)
    for _ in range(depth):
        if not brackets or too_deep in brackets:
            break
        rest = brackets.replace(b"[]", b"")
        if len(rest) == len(brackets):
            raise WireError(Cause.MALFORMED, "cannot parse the message: its brackets do not match", rpc_code=-32700)
        brackets = rest
    if brackets:
        raise WireError(Cause.TOO_DEEP, f"cannot accept the message: it nests deeper than {depth} levels")


def _too_many(limits: Limits) -> WireError:
    return WireError(Cause.TOO_LARGE, f"cannot accept the message: it holds more than {limits.values} values")
