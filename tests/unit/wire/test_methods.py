"""The method tables, against those that the SDK generates from the specification."""

from __future__ import annotations

import pytest
from mcp_types import methods as sdk

from attestd.errors import Cause
from attestd.wire import methods
from attestd.wire.model import Era, WireError


def live(rows: tuple[methods.Method, ...], revision: str) -> set[str]:
    """The methods of a table that a revision has."""
    return {row.name for row in rows if revision in row.revisions}


def theirs(table: object, revision: str) -> set[str]:
    """The same from the SDK's table."""
    return {method for method, version in table if version == revision}  # type: ignore[attr-defined]


@pytest.mark.parametrize("revision", methods.REVISIONS)
@pytest.mark.parametrize("side", ["CLIENT_REQUESTS", "CLIENT_NOTIFICATIONS", "SERVER_REQUESTS", "SERVER_NOTIFICATIONS"])
def test_tables_equal_the_specification(side: str, revision: str):
    """Without tasks, which the SDK leaves out, every table is that of the specification."""
    ours = {name for name in live(getattr(methods, side), revision) if "tasks" not in name}
    assert ours == theirs(getattr(sdk, side), revision)


@pytest.mark.parametrize(
    ("revision", "expected"),
    [
        ("2025-06-18", set()),
        ("2025-11-25", {"tasks/get", "tasks/result", "tasks/cancel", "tasks/list"}),
        ("2026-07-28", {"tasks/get", "tasks/update", "tasks/cancel"}),
    ],
)
def test_tasks(revision: str, expected: set[str]):
    """Tasks came with 2025-11-25 and became an extension in 2026-07-28."""
    assert {name for name in live(methods.CLIENT_REQUESTS, revision) if "tasks" in name} == expected


def test_rows_are_unique():
    """No table has two rows of one name."""
    for rows in (
        methods.CLIENT_REQUESTS,
        methods.CLIENT_NOTIFICATIONS,
        methods.SERVER_REQUESTS,
        methods.SERVER_NOTIFICATIONS,
    ):
        assert len({row.name for row in rows}) == len(rows)


def test_what_waits_for_no_proof():
    """Without proof: initialize, server/discover, ping and lists; nothing else that a client may ask."""
    free = {row.name for row in methods.CLIENT_REQUESTS if not row.effectful}
    lists = {row.name for row in methods.CLIENT_REQUESTS if row.lists is not None}
    assert free == {"initialize", "server/discover", "ping"} | lists


def test_challenged_methods_are_those_of_the_sdk():
    """input_required may answer exactly three methods."""
    assert methods.CHALLENGED == sdk.INPUT_REQUIRED_METHODS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-11-25", "2025-11-25"),
        ("2024-10-07", "2024-11-05"),
        ("2027-01-01", None),
        ("", None),
        (None, None),
        (5, None),
    ],
)
def test_revision_of(text: object, expected: str | None):
    """Unknown versions have no table."""
    assert methods.revision_of(text) == expected


@pytest.mark.parametrize(
    ("name", "revision", "era", "known"),
    [
        ("ping", None, Era.LEGACY, True),
        ("ping", None, Era.MODERN, False),
        ("ping", None, Era.UNKNOWN, True),
        ("tasks/list", None, Era.LEGACY, True),
        ("tasks/list", "2025-06-18", Era.LEGACY, False),
        ("subscriptions/listen", None, Era.LEGACY, False),
        ("subscriptions/listen", "2026-07-28", Era.MODERN, True),
        ("Tools/call", None, Era.UNKNOWN, False),
        ("tools/call ", None, Era.UNKNOWN, False),
        ("sampling/createMessage", None, Era.UNKNOWN, False),
        ("roots/list", None, Era.UNKNOWN, False),
        ("notifications/message", None, Era.UNKNOWN, False),
    ],
)
def test_client_method(name: str, revision: str | None, era: Era, known: bool):
    """A method exists where its row says so; before negotiation every revision of the era counts."""
    notification = name.startswith("notifications/")
    if known:
        assert methods.client_method(name, notification=notification, revision=revision, era=era).name == name
    else:
        with pytest.raises(WireError) as caught:
            methods.client_method(name, notification=notification, revision=revision, era=era, request_id=3)
        assert (caught.value.cause, caught.value.rpc_code, caught.value.request_id) == (Cause.UNKNOWN_METHOD, -32601, 3)


def test_request_without_id_and_notification_with_id_are_unknown():
    """tools/call as a notification and notifications/cancelled as a request do not exist."""
    for name, notification in (("tools/call", True), ("notifications/cancelled", False)):
        with pytest.raises(WireError):
            methods.client_method(name, notification=notification, revision=None, era=Era.UNKNOWN)


def test_server_methods():
    """What a server may ask and tell depends on the revision; the modern one asks nothing."""
    assert methods.server_request("elicitation/create", revision="2025-06-18", era=Era.LEGACY).action == "elicit"
    assert methods.server_notification("notifications/tasks", revision="2026-07-28", era=Era.MODERN).name
    for name, revision in (("elicitation/create", "2025-03-26"), ("roots/list", "2026-07-28"), ("tools/call", None)):
        with pytest.raises(WireError):
            methods.server_request(name, revision=revision, era=Era.UNKNOWN)
    with pytest.raises(WireError):
        methods.server_notification("notifications/unheard", revision=None, era=Era.UNKNOWN)
