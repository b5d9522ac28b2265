"""Lists cut down to what the caller may use.

1. Order, cursor, ``_meta`` and every kept item stay as the server wrote them.
2. An item that cannot be decided on (no name, a URI that reads two ways) is dropped: it could not be used either.
3. A list that was filtered belongs to one caller and to one moment: it is private and may be cached for five seconds
   at most, so that a grant or a revocation shows.
4. A template stays if a grant could match one of its resources; that is the predicate's business, which gets it as
   ``template``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from attestd.errors import Cause
from attestd.wire.model import Era, Json, ListKind, Target, WireError
from attestd.wire.uris import canonical, template

TTL_CAP_MS: Final = 5000
"""How long a client may keep a filtered list, in milliseconds."""


class ToolHints(msgspec.Struct, frozen=True, kw_only=True):
    """The annotations of a tool, with the defaults of the specification: the server's own claims."""

    read_only: bool = False
    destructive: bool = True
    idempotent: bool = False
    open_world: bool = True


class Filtered(msgspec.Struct, frozen=True, kw_only=True):
    """A list after filtering."""

    result: dict[str, Any]
    """A new object; the items are those of the server."""
    kept: int
    dropped: int


def filter_list(kind: ListKind, result: dict[str, Any], allowed: Callable[[Target], bool], era: Era) -> Filtered:
    """Cut a list down.

    Args:
        kind: Which list.
        result: The decoded result; not changed.
        allowed: Whether the caller may use a target.
        era: Of the request; in the modern era the caching hints are set.

    Returns:
        The new result and how many items it lost.

    Raises:
        WireError: MALFORMED: the list itself is missing or no array.
    """
    items = result.get(kind.value)
    if type(items) is not list:
        raise WireError(Cause.MALFORMED, f"cannot filter the list: {kind.value} is not an array")
    kept = [item for item in items if (target := target_of(kind, item)) is not None and allowed(target)]
    answer = {**result, kind.value: kept}
    if era is Era.MODERN or "cacheScope" in result or "ttlMs" in result:
        answer |= {"cacheScope": "private", "ttlMs": _capped(result.get("ttlMs"))}
    return Filtered(result=answer, kept=len(kept), dropped=len(items) - len(kept))


def target_of(kind: ListKind, item: Json) -> Target | None:
    """What using an item of a list would be decided on, or None if it cannot be told."""
    if type(item) is not dict:
        return None
    action, target_kind, key = _ITEMS[kind]
    name = item.get(key)
    if type(name) is not str or not name:
        return None
    try:
        match kind:
            case ListKind.RESOURCES:
                name = canonical(name)
            case ListKind.TEMPLATES:
                name = template(name)
            case _:
                pass
    except WireError:
        return None
    return Target(action=action, kind=target_kind, name=name)


def tool_hints(result: dict[str, Any]) -> dict[str, ToolHints]:
    """The hints of every tool in a result of tools/list, by name; of two with one name the more dangerous counts."""
    hints: dict[str, ToolHints] = {}
    tools = result.get(ListKind.TOOLS.value)
    for tool in tools if type(tools) is list else []:
        if type(tool) is dict and type(tool.get("name")) is str:
            name, own = tool["name"], _hints(tool.get("annotations"))
            hints[name] = _worse(hints[name], own) if name in hints else own
    return hints


def _hints(annotations: Json) -> ToolHints:
    if type(annotations) is not dict:
        return ToolHints()
    stated = {field: annotations[key] for field, key in _HINTS.items() if type(annotations.get(key)) is bool}
    return ToolHints(**stated)


def _worse(one: ToolHints, other: ToolHints) -> ToolHints:
    return ToolHints(
        read_only=one.read_only and other.read_only,
        destructive=one.destructive or other.destructive,
        idempotent=one.idempotent and other.idempotent,
        open_world=one.open_world or other.open_world,
    )


def _capped(ttl: Json) -> int:
    return min(max(ttl, 0), TTL_CAP_MS) if type(ttl) is int else 0


_ITEMS: Final = {
    ListKind.TOOLS: ("call_tool", "tool", "name"),
    ListKind.RESOURCES: ("read_resource", "resource", "uri"),
    ListKind.TEMPLATES: ("read_resource", "template", "uriTemplate"),
    ListKind.PROMPTS: ("get_prompt", "prompt", "name"),
    ListKind.TASKS: ("pass", "task", "taskId"),
}
"""Per list: the action, the kind and the key of the target of an item."""

_HINTS: Final = {
    "read_only": "readOnlyHint",
    "destructive": "destructiveHint",
    "idempotent": "idempotentHint",
    "open_world": "openWorldHint",
}
