"""What the headers of 2026-07-28 repeat of a body: the front compares it (``param_headers``), the back makes it anew.

One reading for both, so that what was compared is what a back end is told. Numbers are written as the SDK writes them.
"""

from __future__ import annotations

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


def argument_text(params: Mapping[str, Any], path: tuple[str, ...]) -> str | None:
    """An argument as its header says it; None: there is none, or it is no scalar."""
    return _scalar(_at(params.get("arguments"), path))


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
