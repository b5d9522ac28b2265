"""From a record to what was decided."""

from __future__ import annotations

import pytest

from attestd.daemon.explanations import target_of
from attestd.wire.model import Target


@pytest.mark.parametrize(
    ("method", "name", "action", "kind"),
    [
        ("tools/call", "x", "call_tool", "tool"),
        ("prompts/get", "x", "get_prompt", "prompt"),
        ("resources/read", "file:///a", "read_resource", "resource"),
        ("resources/subscribe", "file:///a", "subscribe", "resource"),
        ("subscriptions/listen", "file:///a", "subscribe", "resource"),
        ("completion/complete", "x", "complete", "prompt"),
        ("completion/complete", "file:///a", "complete", "resource"),
        ("completion/complete", "file:///{a}", "complete", "template"),
    ],
)
def test_what_names_something_is_decided_on_it(method: str, name: str, action: str, kind: str):
    """The recorded method and name give back the target of the decision."""
    assert target_of(method, name) == Target(action=action, kind=kind, name=name)


@pytest.mark.parametrize(
    ("method", "action"),
    [
        ("initialize", "connect"),
        ("tools/list", "list_tools"),
        ("resources/templates/list", "list_resources"),
        ("tasks/get", "pass"),
        ("sampling/createMessage", "create_message"),
        ("elicitation/create", "elicit"),
        ("nosuch/method", "pass"),
    ],
)
def test_what_names_nothing_is_decided_on_the_server(method: str, action: str):
    """So are methods that no table holds."""
    assert target_of(method, "") == Target(action=action, kind="server", name="")
