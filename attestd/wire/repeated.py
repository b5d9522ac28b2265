"""What the headers of 2026-07-28 repeat of a body: the front compares it (``param_headers``), the back makes it anew.

One reading for both, so that what was compared is what a back end is told. Numbers are written as the SDK writes them.
What may not stand in a header stands there in base64.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

NAMED: Final = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
"""The member of params that stands in Mcp-Name."""
ANNOTATION: Final = "x-mcp-header"
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}\Z")
_MARK: Final = "=?base64?"
_SENTINEL: Final = re.compile(r"=\?base64\?(.*)\?=\Z")
_TYPES: Final = frozenset({"string", "integer", "boolean"})
_DEPTH: Final = 32
_HEADERS: Final = 64
"""Annotated properties of one tool that are looked at."""

Annotations = dict[tuple[str, ...], str]
"""The path of an annotated property in the arguments, and its header's last part."""


def annotations_of(tool: Mapping[str, Any]) -> Annotations:
    """The annotated properties of one tool definition; those that are not as specified are left out."""
    found: Annotations = {}
    _walk(tool.get("inputSchema"), (), found)
    taken = [token.lower() for token in found.values()]
    return {path: token for path, token in found.items() if taken.count(token.lower()) == 1}


def annotated(result: dict[str, Any]) -> dict[str, Annotations]:
    """The annotations of every tool in a list, by its name."""
    tools = result.get("tools")
    found: dict[str, Annotations] = {}
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and isinstance(tool.get("name"), str):
            found[tool["name"]] = annotations_of(tool)
    return found


def argument_text(params: Mapping[str, Any], path: tuple[str, ...]) -> str | None:
    """An argument as its header says it; None: there is none, or it is no scalar."""
    return _scalar(_at(params.get("arguments"), path))


def encoded(value: str) -> str:
    """A value as it may stand in a header: itself, or base64 in its sentinel."""
    safe = value.isascii() and value.isprintable() and value == value.strip()
    if safe and not (value.startswith(_MARK) and _SENTINEL.match(value)):
        return value
    return f"=?base64?{base64.b64encode(value.encode('utf-8')).decode('ascii')}?="


def decoded(value: str) -> str | None:
    """A header's value, out of its base64 where it is in that; None if it is not UTF-8 in canonical base64."""
    found = _SENTINEL.match(value) if value.startswith(_MARK) else None
    if found is None:
        return value
    try:
        raw = base64.b64decode(found[1], validate=True)
        return raw.decode("utf-8") if base64.b64encode(raw).decode("ascii") == found[1] else None
    except (binascii.Error, ValueError):  # not base64, not ASCII, not UTF-8
        return None


def _walk(schema: Any, path: tuple[str, ...], found: Annotations) -> None:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or len(path) >= _DEPTH:
        return
    for name, each in properties.items():
        if not isinstance(each, dict) or len(found) >= _HEADERS:
            continue
        token = each.get(ANNOTATION)
        if isinstance(token, str) and _TOKEN.match(token) and each.get("type") in _TYPES:
            found[*path, name] = token
        _walk(each, (*path, name), found)


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _scalar(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None
