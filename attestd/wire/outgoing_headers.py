"""The MCP headers of a request to an HTTP back end, computed from its body and from nothing else.

Headers of a client are never passed on: they are checked at the front, and made anew here. So what a back end routes
on is what was decided on.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

from attestd.wire.lookalike import META, META_REVISION

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
_SAFE: Final = re.compile(r"[\x20-\x7e]*\Z")
_SENTINEL: Final = re.compile(r"=\?base64\?.*\?=\Z")
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}\Z")
_TYPES: Final = frozenset({"string", "integer", "boolean"})
_DEPTH: Final = 32
_HEADERS: Final = 64
"""Annotated properties of one tool that are looked at."""

Annotations = dict[tuple[str, ...], str]
"""The path of an annotated property in the arguments, and its header's last part."""


def modern_revision(body: Mapping[str, Any]) -> str | None:
    """The revision that a message of the modern era declares; None: it is of the legacy era, or a response."""
    params = body.get("params")
    meta = params.get(META) if isinstance(params, dict) else None
    declared = meta.get(META_REVISION) if isinstance(meta, dict) else None
    return declared if isinstance(declared, str) else None


def modern_headers(body: Mapping[str, Any], revision: str, annotations: Annotations) -> list[tuple[str, str]]:
    """MCP-Protocol-Version, Mcp-Method, Mcp-Name and Mcp-Param-* of one request of the modern era."""
    method, params = str(body.get("method")), body.get("params")
    params = params if isinstance(params, dict) else {}
    headers = [("MCP-Protocol-Version", encoded(revision)), ("Mcp-Method", encoded(method))]
    name = params.get(NAMED[method]) if method in NAMED else None
    if isinstance(name, str):
        headers.append(("Mcp-Name", encoded(name)))
    if method == "tools/call":
        for path, token in annotations.items():
            text = _scalar(_at(params.get("arguments"), path))
            if text is not None:
                headers.append((f"Mcp-Param-{token}", encoded(text)))
    return headers


def encoded(value: str) -> str:
    """A value as it may stand in a header: itself, or base64 in its sentinel."""
    if _SAFE.match(value) and value == value.strip() and not _SENTINEL.match(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode('utf-8')).decode('ascii')}?="


def annotations_of(tool: Mapping[str, Any]) -> Annotations:
    """The annotated properties of one tool definition; those that are not as specified are left out."""
    found: Annotations = {}
    _walk(tool.get("inputSchema"), (), found)
    taken = [token.lower() for token in found.values()]
    return {path: token for path, token in found.items() if taken.count(token.lower()) == 1}


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
