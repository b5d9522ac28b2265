"""``Mcp-Param-*`` of 2026-07-28: headers that repeat arguments of a tool, where its definition says so.

The definition is the one that the server itself listed last. A header that says something else than its argument, that
is missing, or whose argument is missing, is refused: something on the way may have decided on it. Without a definition
nothing can be compared.
"""

from __future__ import annotations

from typing import Final

from attestd.errors import Cause
from attestd.wire.http_request import RequestHead
from attestd.wire.http_rules import HEADER_MISMATCH
from attestd.wire.model import Message, WireError
from attestd.wire.repeated import Annotations, argument_text, decoded

_PREFIX: Final = "mcp-param-"


def demand_params(head: RequestHead, message: Message, annotations: Annotations) -> None:
    """Every annotated argument and its header say the same, or neither is there. Raises WireError (-32020)."""
    for path, spelt in annotations.items():
        token = spelt.lower()
        values = head.headers.get(_PREFIX + token, ())
        rendered = argument_text(message.params, path)
        if len(values) > 1:
            raise _mismatch(message, token, f"is there {len(values)} times")
        if not values and rendered is None:
            continue
        if not values:
            raise _mismatch(message, token, "is missing")
        if rendered is None or decoded(values[0]) != rendered:
            raise _mismatch(message, token, "says something else than the body")


def _mismatch(message: Message, token: str, why: str) -> WireError:
    return WireError(
        Cause.MALFORMED,
        f"cannot accept the request: headers and body disagree: {_PREFIX}{token} {why}",
        request_id=message.id,
        rpc_code=HEADER_MISMATCH,
    )
