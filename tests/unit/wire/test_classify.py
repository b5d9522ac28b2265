"""What a message asks for. Attacks W6, W8 and W10."""

from __future__ import annotations

from typing import Any

import pytest

from attestd.errors import Cause
from attestd.wire.classify import LISTEN_MAX, classify, questions
from attestd.wire.methods import CLIENT_NOTIFICATIONS, CLIENT_REQUESTS, REVISIONS, Finder
from attestd.wire.model import Era, ListKind, Target, WireError
from tests.support.wire import ABSENT, MODERN_META, call, line, parsed, refused_call

MINIMAL: dict[Finder, dict[str, Any]] = {
    Finder.SERVER: {},
    Finder.TOOL: {"name": "echo"},
    Finder.PROMPT: {"name": "review"},
    Finder.RESOURCE: {"uri": "memo://a"},
    Finder.REFERENCE: {"ref": {"type": "ref/prompt", "name": "review"}},
    Finder.FILTER: {"notifications": {"toolsListChanged": True}},
    Finder.TASK: {"taskId": "t-1"},
    Finder.REQUEST: {"requestId": 1},
    Finder.PROGRESS: {"progressToken": 1, "progress": 0.5},
}


def targets(*args: Any, **keywords: Any) -> list[tuple[str, str, str]]:
    """The targets of a call as tuples."""
    return [(target.action, target.kind, target.name) for target in call(*args, **keywords).targets]


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_method_of_every_revision_classifies(revision: str):
    """Each row of the tables yields a call with targets where it lives, and is refused where it does not."""
    era = Era.MODERN if revision == "2026-07-28" else Era.LEGACY
    for rows, message_id in ((CLIENT_REQUESTS, 1), (CLIENT_NOTIFICATIONS, ABSENT)):
        for row in rows:
            arguments = (row.name, MINIMAL[row.finder], message_id)
            if revision in row.revisions:
                request = call(*arguments, revision=revision, era=era)
                assert request.targets
                assert request.method == row.name
                assert request.admission is row.admission
                assert request.lists is row.lists
            else:
                error = refused_call(*arguments, revision=revision, era=era)
                code = -32022 if row.name == "initialize" else -32601  # which names the revision that is spoken
                assert (error.cause, error.rpc_code) == (Cause.UNKNOWN_METHOD, code)


@pytest.mark.parametrize(
    ("method", "params", "expected"),
    [
        ("initialize", {"protocolVersion": "2025-11-25"}, ("connect", "server", "")),
        ("server/discover", {"_meta": MODERN_META}, ("connect", "server", "")),
        ("ping", ABSENT, ("pass", "server", "")),
        ("tools/list", {"cursor": "c"}, ("list_tools", "server", "")),
        ("resources/list", {}, ("list_resources", "server", "")),
        ("resources/templates/list", {}, ("list_resources", "server", "")),
        ("prompts/list", {}, ("list_prompts", "server", "")),
        ("tools/call", {"name": "Create_Issue", "arguments": {}}, ("call_tool", "tool", "Create_Issue")),
        ("tools/call", {"name": "e", "task": {"ttl": 1}}, ("call_tool", "tool", "e")),
        ("prompts/get", {"name": "review"}, ("get_prompt", "prompt", "review")),
        ("resources/read", {"uri": "FILE:///%61"}, ("read_resource", "resource", "file:///a")),
        ("resources/subscribe", {"uri": "memo://A"}, ("subscribe", "resource", "memo://a")),
        ("resources/unsubscribe", {"uri": "memo://A"}, ("subscribe", "resource", "memo://a")),
        ("logging/setLevel", {"level": "debug"}, ("pass", "server", "")),
        ("tasks/get", {"taskId": "t"}, ("pass", "server", "")),
    ],
)
def test_target(method: str, params: Any, expected: tuple[str, str, str]):
    """The table of the module, row by row."""
    assert targets(method, params) == [expected]


@pytest.mark.attack("W6")
def test_escaped_names_are_decided_decoded():
    """W6: the decoded method and name decide."""
    text = b'{"jsonrpc":"2.0","id":9,"method":"tools\\u002fcall","params":{"name":"\\u0065cho"}}'
    assert classify(parsed(text), None, Era.UNKNOWN).targets == (Target(action="call_tool", kind="tool", name="echo"),)


@pytest.mark.attack("W8")
@pytest.mark.parametrize("era", list(Era))
def test_call_before_initialize_is_a_call(era: Era):
    """W8: no handshake is needed to be decided."""
    request = call("tools/call", {"name": "echo"}, era=era)
    assert request.targets[0].name == "echo"
    assert request.effectful


@pytest.mark.attack("W10")
@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ({"type": "ref/prompt", "name": "review"}, ("complete", "prompt", "review")),
        ({"type": "ref/prompt", "name": "review", "title": "Review"}, ("complete", "prompt", "review")),
        ({"type": "ref/resource", "uri": "MEMO://a/%62"}, ("complete", "resource", "memo://a/b")),
        ({"type": "ref/resource", "uri": "MEMO://{userId}"}, ("complete", "template", "memo://{userId}")),
    ],
)
def test_completion_refers_to_a_prompt_or_resource(ref: dict[str, str], expected: tuple[str, str, str]):
    """W10: completing needs the prompt or resource that it completes."""
    assert targets("completion/complete", {"ref": ref, "argument": {"name": "a", "value": "b"}}) == [expected]


@pytest.mark.attack("W10")
@pytest.mark.parametrize(
    "ref",
    [
        None,
        {},
        "review",
        [],
        {"type": "ref/tool", "name": "x"},
        {"type": "ref/prompt"},
        {"type": "ref/resource", "name": "x"},
        {"type": "ref/prompt", "uri": "memo://a"},
        {"type": "ref/prompt", "name": "x", "uri": "memo://a"},
        {"type": "ref/resource", "uri": "memo://a", "name": "x"},
        {"name": "x"},
        {"type": "ref/resource", "uri": "memo://a/../b"},
    ],
)
def test_completion_that_reads_two_ways_is_refused(ref: Any):
    """W10: a reference is one or the other."""
    assert refused_call("completion/complete", {"ref": ref}).rpc_code == -32602


@pytest.mark.attack("W10")
def test_listen_asks_for_everything_in_its_filter():
    """W10: every URI, every task and every list is decided."""
    notifications = {
        "toolsListChanged": True,
        "promptsListChanged": False,
        "resourcesListChanged": True,
        "resourceSubscriptions": ["MEMO://a", "memo://b", "memo://a"],
        "taskIds": ["t1", "t2", "t1"],
    }
    request = call("subscriptions/listen", {"notifications": notifications}, modern=True)
    assert [(target.action, target.name) for target in request.targets] == [
        ("subscribe", "memo://a"),
        ("subscribe", "memo://b"),
        ("list_tools", ""),
        ("list_resources", ""),
    ]
    assert request.task_ids == ("t1", "t2")
    assert request.effectful


@pytest.mark.parametrize(
    ("notifications", "effectful"),
    [
        ({}, False),
        ({"toolsListChanged": True}, False),
        ({"taskIds": ["t"]}, True),
        ({"resourceSubscriptions": ["a:b"]}, True),
    ],
)
def test_listen_waits_for_proof_only_when_it_discloses(notifications: Any, effectful: bool):
    """List changes disclose what the lists do; URIs and tasks disclose more."""
    request = call("subscriptions/listen", {"notifications": notifications}, modern=True)
    assert request.effectful is effectful
    assert request.targets


@pytest.mark.parametrize(
    "notifications",
    [
        None,
        [],
        {"toolsListChanged": 1},
        {"toolsListChanged": None},
        {"filesListChanged": True},
        {"resourceSubscriptions": "a:b"},
        {"resourceSubscriptions": [1]},
        {"resourceSubscriptions": ["x"]},
        {"taskIds": [1]},
        {"taskIds": {}},
        {"resourceSubscriptions": ["a:b"] * (LISTEN_MAX + 1)},
    ],
)
def test_listen_with_an_unknown_filter_is_refused(notifications: Any):
    """What the filter cannot say is not passed on."""
    assert refused_call("subscriptions/listen", {"notifications": notifications}, modern=True).cause is Cause.MALFORMED


@pytest.mark.attack("W10")
@pytest.mark.parametrize("method", ["tasks/get", "tasks/result", "tasks/cancel", "tasks/update"])
def test_tasks_name_their_task(method: str):
    """W10: the result of a tool comes back through its task."""
    request = call(method, {"taskId": "t-1"})
    assert request.task_ids == ("t-1",)
    assert request.effectful


@pytest.mark.attack("W10")
@pytest.mark.parametrize(
    "extra", [{"requestState": "s"}, {"inputResponses": {}}, {"requestState": "s", "inputResponses": {}}]
)
def test_retries_are_decided_like_the_first_call(extra: dict[str, Any]):
    """W10: a retry names its tool again and is decided on it again."""
    request = call("tools/call", {"name": "echo", **extra}, modern=True)
    assert request.targets == (Target(action="call_tool", kind="tool", name="echo"),)
    assert request.retry
    assert request.request_state == extra.get("requestState")


def test_related_task_must_be_the_callers_too():
    """A message that relates itself to a task names that task."""
    meta = {"io.modelcontextprotocol/related-task": {"taskId": "t-9"}}
    assert call("tasks/get", {"taskId": "t-1", "_meta": meta}).task_ids == ("t-1", "t-9")
    assert call("tools/call", {"name": "x", "_meta": meta}).task_ids == ("t-9",)
    assert refused_call("tools/call", {"name": "x", "_meta": {"io.modelcontextprotocol/related-task": "t"}}).cause


def test_notifications():
    """They name what must be outstanding, and wait for no proof."""
    cancelled = call("notifications/cancelled", {"requestId": "a"}, ABSENT)
    progress = call("notifications/progress", {"progressToken": 3, "progress": 1}, ABSENT)
    status = call("notifications/tasks/status", {"taskId": "t"}, ABSENT)
    assert (cancelled.cancels, progress.progress_token, status.task_ids) == ("a", 3, ("t",))
    assert not any(request.effectful for request in (cancelled, progress, status))


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("notifications/cancelled", {}),
        ("notifications/cancelled", {"requestId": None}),
        ("notifications/cancelled", {"requestId": 1.5}),
        ("notifications/cancelled", {"requestId": True}),
        ("notifications/progress", {"progress": 1}),
        ("notifications/progress", {"progressToken": 2**63}),
        ("notifications/tasks/status", {}),
    ],
)
def test_notifications_that_name_nothing_are_refused(method: str, params: Any):
    """Without an id or token there is nothing to match."""
    assert refused_call(method, params, ABSENT).cause is Cause.MALFORMED


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {}),
        ("tools/call", ABSENT),
        ("tools/call", {"name": ""}),
        ("tools/call", {"name": None}),
        ("tools/call", {"name": ["echo"]}),
        ("tools/call", {"name": "a\0"}),
        ("tools/call", {"name": "a\n"}),
        ("tools/call", {"name": "a\u202e"}),
        ("tools/call", {"name": "a" * 1025}),
        ("tools/call", {"name": "a", "arguments": []}),
        ("tools/call", {"name": "a", "arguments": "x"}),
        ("tools/call", {"name": "a", "requestState": 1}),
        ("tools/call", {"name": "a", "_meta": []}),
        ("tools/call", {"name": "a", "_meta": {"progressToken": {}}}),
        ("tools/call", {"name": "a", "_meta": {"progressToken": None}}),
        ("prompts/get", {"uri": "a:b"}),
        ("resources/read", {"name": "a"}),
        ("resources/read", {"uri": "../x"}),
        ("resources/read", {"uri": ["a:b"]}),
        ("tasks/get", {}),
        ("tasks/get", {"taskId": 1}),
    ],
)
def test_bad_params_are_answered_with_invalid_params(method: str, params: Any):
    """A target that is missing, of another type or unprintable is refused on the request's id."""
    error = refused_call(method, params)
    assert (error.cause, error.rpc_code, error.request_id) == (Cause.MALFORMED, -32602, 7)


@pytest.mark.parametrize("arguments", [{}, {"Name": 1, "uri": 2}, None])
def test_arguments_are_not_looked_into(arguments: Any):
    """Tools may name their parameters as they like."""
    assert targets("tools/call", {"name": "echo", "arguments": arguments}) == [("call_tool", "tool", "echo")]


def test_what_else_a_call_carries():
    """Progress token, declared revision and claimed client travel with the call."""
    request = call("tools/call", {"name": "echo"}, modern=True)
    assert (request.revision, request.client_name) == ("2026-07-28", "probe 1.0")
    assert call("tools/call", {"name": "echo", "_meta": {"progressToken": "p"}}).progress_token == "p"
    opening = call("initialize", {"protocolVersion": "2025-06-18", "clientInfo": {"name": "n", "version": "1"}})
    assert (opening.admission, opening.revision, opening.client_name) == (True, "2025-06-18", "n 1")
    assert call("logging/setLevel", {"level": "info"}).shared_effect
    assert call("tools/list").lists is ListKind.TOOLS


@pytest.mark.parametrize(
    "method",
    ["tools/Call", "admin/shutdown", "sampling/createMessage", "elicitation/create", "rpc.discover", "tools/call\0"],
)
def test_unknown_methods_are_refused(method: str):
    """Default deny: what is in no table does not exist, server methods included."""
    error = refused_call(method, {})
    assert (error.cause, error.rpc_code, error.request_id) == (Cause.UNKNOWN_METHOD, -32601, 7)


def test_tool_call_without_an_id_is_unknown():
    """A request sent as a notification is dropped as an unknown notification."""
    assert refused_call("tools/call", {"name": "echo"}, ABSENT).cause is Cause.UNKNOWN_METHOD


def test_revisions_that_attestd_does_not_speak():
    """Unknown versions are refused, declared or negotiated."""
    assert (
        refused_call("tools/call", {"name": "x"}, revision="2099-01-01", era=Era.LEGACY).cause is Cause.UNKNOWN_METHOD
    )
    meta = {**MODERN_META, "io.modelcontextprotocol/protocolVersion": "2099-01-01"}
    assert refused_call("tools/call", {"name": "x", "_meta": meta}).rpc_code == -32022


def test_mixed_eras():
    """After initialize the legacy tables decide; after a modern answer initialize is told the modern revision."""
    assert refused_call("server/discover", {}, revision="2025-11-25", era=Era.LEGACY, modern=True).rpc_code == -32601
    assert refused_call("subscriptions/listen", {"notifications": {}}, era=Era.LEGACY, modern=True).rpc_code == -32601
    request = call("tools/call", {"name": "echo"}, revision="2025-11-25", era=Era.LEGACY, modern=True)
    assert request.targets[0].name == "echo"
    late = refused_call("initialize", {"protocolVersion": "2025-11-25"}, era=Era.MODERN)
    assert late.rpc_code == -32022
    assert late.data == {"supported": ["2026-07-28"], "requested": "2025-11-25"}
    for era in (Era.MODERN, Era.UNKNOWN):  # what says itself that it is modern knows that it does not exist there
        assert refused_call("initialize", {"protocolVersion": "2026-07-28"}, era=era, modern=True).rpc_code == -32601
    assert refused_call("ping", {}, revision="2026-07-28", era=Era.MODERN).rpc_code == -32601


def test_responses_are_not_calls():
    """A response is matched, not classified."""
    with pytest.raises(WireError) as caught:
        classify(parsed(b'{"jsonrpc":"2.0","id":1,"result":{}}'), None, Era.UNKNOWN)
    assert caught.value.cause is Cause.NOT_OUTSTANDING


def test_questions_inside_results():
    """Each becomes a target; what may not stand there is refused."""
    asked = questions(("elicitation/create", "sampling/createMessage", "roots/list"))
    assert [target.action for target in asked] == ["elicit", "create_message", "list_roots"]
    with pytest.raises(WireError) as caught:
        questions(("roots/list", "tools/call"))
    assert caught.value.cause is Cause.UNKNOWN_METHOD


def test_line_helper_matches_what_clients_write():
    """The tests speak compact JSON."""
    assert line("ping") == b'{"jsonrpc":"2.0","id":7,"method":"ping"}'


def test_what_was_looked_up_once_holds_for_its_own_revision_and_era_only():
    """A row found at one revision does not let the method in at another, in another era or without an id."""
    told_text = b'{"jsonrpc":"2.0","method":"resources/subscribe","params":{"uri":"file:///x"}}'
    message = parsed(told_text.replace(b'"method"', b'"id":1,"method"'))
    for _ in range(2):
        assert classify(message, REVISIONS[0], Era.LEGACY).method == "resources/subscribe"
        with pytest.raises(WireError) as modern:
            classify(message, None, Era.MODERN)
        with pytest.raises(WireError) as unspoken:
            classify(message, "1999-01-01", Era.LEGACY)
        notification = parsed(told_text)
        with pytest.raises(WireError) as told:
            classify(notification, REVISIONS[0], Era.LEGACY)
        assert {caught.value.cause for caught in (modern, unspoken, told)} == {Cause.UNKNOWN_METHOD}


@pytest.mark.parametrize("declared", [None, 7, "", "2025-11-25", "1999-01-01", ["2026-07-28"]])
def test_a_row_found_before_admits_no_other_revision(declared: Any):
    """What one message declared is not taken for the next one's."""
    assert call("tools/call", {"name": "echo"}, modern=True).revision == "2026-07-28"
    assert call("tools/call", {"name": "echo"}).revision is None
    params = {"name": "echo", "_meta": {**MODERN_META, "io.modelcontextprotocol/protocolVersion": declared}}
    error = refused_call("tools/call", params)
    assert (error.cause, error.rpc_code) == (Cause.UNKNOWN_METHOD, -32022)


@pytest.mark.parametrize(
    "meta", [ABSENT, {}, MODERN_META, {"progressToken": "p"}, {**MODERN_META, "progressToken": 3}, {"note": 1}]
)
@pytest.mark.parametrize("arguments", [ABSENT, None, {}, {"a": [1]}])
def test_the_short_way_says_what_the_long_way_says(meta: Any, arguments: Any):
    """A key that means nothing leads a call the long way; nothing else of it differs."""
    params = {"name": "echo"} | ({} if meta is ABSENT else {"_meta": meta})
    params |= {} if arguments is ABSENT else {"arguments": arguments}
    short, long = call("tools/call", params), call("tools/call", {**params, "note": 1})
    told = [each for each in short.__struct_fields__ if each != "message"]
    assert {each: getattr(short, each) for each in told} == {each: getattr(long, each) for each in told}
