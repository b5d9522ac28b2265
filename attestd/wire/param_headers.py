"""``Mcp-Param-*`` of 2026-07-28: headers that repeat arguments of a tool, where its definition says so.

The definition is the one that the server itself listed last. A header that says something else than its argument, that
is missing, or whose argument is missing, is refused: something on the way may have decided on it. Without a definition
nothing can be compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from attestd.errors import Cause
from attestd.wire.http_request import HttpRequest
from attestd.wire.http_rules import HEADER_MISMATCH, decoded
from attestd.wire.model import Json, Message, WireError

_ANNOTATION: Final = "x-mcp-header"
_PREFIX: Final = "mcp-param-"
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}\Z")
_TYPES: Final = frozenset({"string", "integer", "boolean"})
_DEPTH: Final = 32
_HEADERS: Final = 64

Annotations = Mapping[str, tuple[str, ...]]
"""The path of an annotated argument, by the header's last part in lower case."""


def annotated(result: dict[str, Any]) -> dict[str, Annotations]:
    """The annotations of every tool in a list, by its name."""
    tools = result.get("tools")
    found: dict[str, Annotations] = {}
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and isinstance(tool.get("name"), str):
            places: list[tuple[str, tuple[str, ...]]] = []
            _walk(tool.get("inputSchema"), (), places)
            tokens = [token for token, _ in places]
            found[tool["name"]] = {token: path for token, path in places if tokens.count(token) == 1}
    return found


def demand_params(request: HttpRequest, message: Message, annotations: Annotations) -> None:
    """Every annotated argument and its header say the same, or neither is there. Raises WireError (-32020)."""
    for token, path in annotations.items():
        values = request.headers.get(_PREFIX + token, ())
        rendered = _rendered(_at(message.params.get("arguments"), path))
        if len(values) > 1:
            raise _mismatch(message, token, f"is there {len(values)} times")
        if not values and rendered is None:
            continue
        if not values:
            raise _mismatch(message, token, "is missing")
        if rendered is None or decoded(values[0]) != rendered:
            raise _mismatch(message, token, "says something else than the body")


def _walk(schema: Json, path: tuple[str, ...], places: list[tuple[str, tuple[str, ...]]]) -> None:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or len(path) >= _DEPTH:
        return
    for name, each in properties.items():
        if not isinstance(each, dict) or len(places) >= _HEADERS:
            continue
        token = each.get(_ANNOTATION)
        if isinstance(token, str) and _TOKEN.match(token) and each.get("type") in _TYPES:
            places.append((token.lower(), (*path, name)))
        _walk(each, (*path, name), places)


def _at(value: Json, path: tuple[str, ...]) -> Json:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _rendered(value: Json) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None


def _mismatch(message: Message, token: str, why: str) -> WireError:
    return WireError(
        Cause.MALFORMED,
        f"cannot accept the request: headers and body disagree: {_PREFIX}{token} {why}",
        request_id=message.id,
        rpc_code=HEADER_MISMATCH,
    )
