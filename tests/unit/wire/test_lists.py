"""Lists cut down to what the caller may use."""

from __future__ import annotations

from typing import Any

import pytest

from attestd.errors import Cause
from attestd.wire.lists import TTL_CAP_MS, ToolHints, filter_list, target_of, tool_hints
from attestd.wire.model import Era, ListKind, Target, WireError


def names(*allowed: str):
    """A predicate that allows these names and remembers nothing."""
    return lambda target: target.name in allowed


@pytest.mark.parametrize(
    ("kind", "items", "allowed", "kept"),
    [
        (ListKind.TOOLS, [{"name": "c"}, {"name": "a"}, {"name": "b"}], {"a", "c"}, [{"name": "c"}, {"name": "a"}]),
        (ListKind.PROMPTS, [{"name": "p", "arguments": []}, {"name": "q"}], {"p"}, [{"name": "p", "arguments": []}]),
        (ListKind.RESOURCES, [{"uri": "MEMO://A"}, {"uri": "memo://b"}], {"memo://a"}, [{"uri": "MEMO://A"}]),
        (
            ListKind.TEMPLATES,
            [{"uriTemplate": "memo://{id}"}, {"uriTemplate": "x://{id}"}],
            {"x://{id}"},
            [{"uriTemplate": "x://{id}"}],
        ),
        (ListKind.TASKS, [{"taskId": "1"}, {"taskId": "2"}], {"2"}, [{"taskId": "2"}]),
    ],
)
def test_only_what_is_allowed_stays(kind: ListKind, items: list[Any], allowed: set[str], kept: list[Any]):
    """Order and items are the server's; cursor and _meta stay."""
    result = {"_meta": {"k": 1}, kind.value: items, "nextCursor": "n"}
    filtered = filter_list(kind, result, names(*allowed), Era.LEGACY)
    assert filtered.result == {"_meta": {"k": 1}, kind.value: kept, "nextCursor": "n"}
    assert list(filtered.result) == list(result)
    assert (filtered.kept, filtered.dropped) == (len(kept), len(items) - len(kept))
    assert result[kind.value] == items


@pytest.mark.parametrize("kind", list(ListKind))
def test_items_that_cannot_be_decided_on_are_dropped(kind: ListKind):
    """No name, another type, or a URI that reads two ways."""
    key = {"resources": "uri", "resourceTemplates": "uriTemplate", "tasks": "taskId"}.get(kind.value, "name")
    bad: list[Any] = [None, 1, "x", [], {}, {key: None}, {key: ""}, {key: 5}]
    if kind in {ListKind.RESOURCES, ListKind.TEMPLATES}:
        bad += [{key: "file:///a/../b"}, {key: "no-scheme"}]
    filtered = filter_list(kind, {kind.value: bad}, lambda _: True, Era.LEGACY)
    assert filtered.result[kind.value] == []


@pytest.mark.parametrize(
    ("kind", "item", "expected"),
    [
        (ListKind.TOOLS, {"name": "a"}, Target(action="call_tool", kind="tool", name="a")),
        (ListKind.PROMPTS, {"name": "a"}, Target(action="get_prompt", kind="prompt", name="a")),
        (ListKind.RESOURCES, {"uri": "A:b"}, Target(action="read_resource", kind="resource", name="a:b")),
        (ListKind.TEMPLATES, {"uriTemplate": "A:{b}"}, Target(action="read_resource", kind="template", name="a:{b}")),
        (ListKind.TASKS, {"taskId": "t"}, Target(action="pass", kind="task", name="t")),
    ],
)
def test_target(kind: ListKind, item: Any, expected: Target):
    """An item is decided on as using it would be."""
    assert target_of(kind, item) == expected


@pytest.mark.parametrize(
    ("ttl", "expected"),
    [
        (0, 0),
        (100, 100),
        (TTL_CAP_MS, TTL_CAP_MS),
        (86_400_000, TTL_CAP_MS),
        (-1, 0),
        (1.5, 0),
        ("x", 0),
        (True, 0),
        (None, 0),
    ],
)
def test_modern_lists_are_private_and_short_lived(ttl: Any, expected: int):
    """A filtered list is nobody else's, and not for long."""
    result = {"tools": [], "cacheScope": "public", "ttlMs": ttl}
    for era in (Era.MODERN, Era.LEGACY):
        filtered = filter_list(ListKind.TOOLS, result, names(), era).result
        assert (filtered["cacheScope"], filtered["ttlMs"]) == ("private", expected)


def test_caching_hints_come_only_where_they_belong():
    """The modern era demands them, the legacy era does not know them."""
    assert filter_list(ListKind.TOOLS, {"tools": []}, names(), Era.MODERN).result == {
        "tools": [],
        "cacheScope": "private",
        "ttlMs": 0,
    }
    assert filter_list(ListKind.TOOLS, {"tools": []}, names(), Era.LEGACY).result == {"tools": []}


@pytest.mark.parametrize("result", [{}, {"tools": None}, {"tools": {}}, {"tools": "x"}])
def test_result_without_its_list_is_refused(result: dict[str, Any]):
    """What cannot be filtered is not passed on."""
    with pytest.raises(WireError) as caught:
        filter_list(ListKind.TOOLS, result, names(), Era.LEGACY)
    assert caught.value.cause is Cause.MALFORMED


def test_hints_have_the_defaults_of_the_specification():
    """Only a stated truth value counts."""
    tools = [
        {"name": "plain"},
        {"name": "odd", "annotations": {"readOnlyHint": 1, "destructiveHint": None, "openWorldHint": "no"}},
        {
            "name": "safe",
            "annotations": {
                "readOnlyHint": True,
                "destructiveHint": False,
                "idempotentHint": True,
                "openWorldHint": False,
            },
        },
        {"name": "list", "annotations": []},
        {"name": 5},
        "x",
    ]
    hints = tool_hints({"tools": tools})
    assert hints == {
        "plain": ToolHints(read_only=False, destructive=True, idempotent=False, open_world=True),
        "odd": ToolHints(),
        "safe": ToolHints(read_only=True, destructive=False, idempotent=True, open_world=False),
        "list": ToolHints(),
    }
    assert tool_hints({}) == {}


def test_of_two_tools_with_one_name_the_worse_counts():
    """A second definition cannot make a tool look harmless."""
    safe = {
        "name": "a",
        "annotations": {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False},
    }
    for tools in ([safe, {"name": "a"}], [{"name": "a"}, safe]):
        assert tool_hints({"tools": tools}) == {"a": ToolHints()}
