"""Keys that are not what a lenient reader would take them for."""

from __future__ import annotations

import pytest

from attestd.errors import Cause
from attestd.wire.lookalike import PARAMS, demand_exact_keys, fold
from attestd.wire.model import WireError


@pytest.mark.parametrize(
    "key",
    [
        "Name",
        "NAME",
        "na\u017fme".replace("\u017f", ""),
        "name\0",
        "\0name",
        " name",
        "name\t",
        "n\u0430me".replace("\u0430", "a") + "\u200b",
        "\uff4eame",
        "na_me",
        "na-me",
    ],
)
def test_fold_of_name(key: str):
    """Case, NUL, space, width, invisible characters and separators do not tell two keys apart for every reader."""
    assert fold(key) == "name"


@pytest.mark.parametrize(
    ("key", "known"),
    [
        ("argument\u017f", "arguments"),
        ("tas\u212a", "task"),
        ("task_id", "taskId"),
        ("TaskID", "taskId"),
        ("meta", "_meta"),
        ("+AG4-ame", "name"),
        ("tas+AGs-Id", "taskId"),
        ("request_state", "requestState"),
        ("request_id", "requestId"),
        ("input_responses", "inputResponses"),
        ("URI", "uri"),
    ],
)
def test_lookalikes_of_params_are_refused(key: str, known: str):
    """U+017F and U+212A fold as Go folds them, and the spelling that the Python SDK also reads is refused."""
    with pytest.raises(WireError, match=f"looks like '{known}'") as caught:
        demand_exact_keys({key: 1}, 4)
    assert (caught.value.cause, caught.value.request_id) == (Cause.MALFORMED, 4)


@pytest.mark.parametrize("level", ["_meta", "ref", "notifications"])
def test_nested_levels_that_route_are_examined(level: str):
    """A look-alike is refused wherever it could change the target."""
    inner = {"_meta": "ProgressToken", "ref": "Uri", "notifications": "resource_subscriptions"}[level]
    with pytest.raises(WireError, match=rf"params\.{level}"):
        demand_exact_keys({level: {inner: 1}}, None)


def test_related_task_is_examined():
    """The task that _meta relates a message to routes as well."""
    with pytest.raises(WireError, match="related task"):
        demand_exact_keys({"_meta": {"io.modelcontextprotocol/related-task": {"TaskId": "1"}}}, None)


def test_arguments_may_hold_any_key():
    """What a tool calls its parameters is not routing."""
    demand_exact_keys({"name": "x", "arguments": {"Name": 1, "URI": 2, "\0": 3, "task_id": 4}}, None)


def test_foreign_keys_are_bounded():
    """Unknown keys are allowed, a flood of them is not."""
    PARAMS.demand("params", {f"x{n}": 1 for n in range(256)}, None)
    with pytest.raises(WireError, match="257 unknown keys"):
        PARAMS.demand("params", {f"x{n}": 1 for n in range(257)}, None)


@pytest.mark.parametrize("key", ["_Name", "N" + "\u200b" * 100 + "ame", "x" * 65])
def test_remembering_keys_changes_nothing(key: str):
    """A key is judged the same the second time, and long ones, which are not remembered, like short ones."""
    said = []
    for _ in range(2):
        try:
            PARAMS.demand("params", {key: 1}, None)
            said.append("")
        except WireError as error:
            said.append(error.message)
    assert said[0] == said[1]
    assert bool(said[0]) is (fold(key) == "name")
