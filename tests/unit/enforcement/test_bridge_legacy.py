"""A legacy client before a modern server, as dialogues."""

from __future__ import annotations

from typing import Any

import pytest

from attestd.enforcement.bridge_legacy import ROUNDS
from attestd.errors import Cause
from attestd.wire.model import WireError
from attestd.wire.translate import MODERN
from tests.support.bridging import REFUSES, Talk, before_modern

SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
ASKS = {"method": "elicitation/create", "params": {"message": "who?", "requestedSchema": {"type": "object"}}}


def called(talk: Talk, message_id: Any = 5) -> str:
    """A tools/call; the id that the server got it under."""
    (sent,) = talk.client("tools/call", message_id, name="t", arguments={"a": 1}).sent
    return str(sent["id"])


def wants(talk: Talk, own: str, state: str | None = "s", **questions: Any) -> list[dict[str, Any]]:
    """The server answers with questions; the requests that the client gets."""
    result: dict[str, Any] = {"resultType": "input_required", "inputRequests": questions}
    return talk.server(id=own, result={**result, **({} if state is None else {"requestState": state})}).shown


def test_every_request_gets_the_envelope():
    """Revision, capabilities and name as the client told them in initialize; its own _meta stays."""
    talk = before_modern()
    (sent,) = talk.client("tools/call", 5, name="t", _meta={"progressToken": "p", "traceparent": "00-1"}).sent
    meta = sent["params"]["_meta"]
    assert meta["io.modelcontextprotocol/protocolVersion"] == MODERN
    assert meta["io.modelcontextprotocol/clientInfo"] == {"name": "c", "version": "1"}
    assert meta["progressToken"] == "p"
    assert meta["traceparent"] == "00-1"
    assert talk.server(id=sent["id"], result={"resultType": "complete", "content": []}).shown[0]["id"] == 5


def test_questions_become_requests_and_answers_a_retry():
    """Both are asked, and when both are answered the call is made again with the answers and the server's state."""
    talk = before_modern()
    first = wants(talk, called(talk), who=ASKS, where={"method": "roots/list"})
    assert [each["method"] for each in first] == ["elicitation/create", "roots/list"]
    assert talk.answers(first[1]["id"], {"roots": []}).sent == []
    (again,) = talk.answers(first[0]["id"], {"action": "cancel"}).sent
    assert again["params"]["inputResponses"] == {"who": {"action": "cancel"}, "where": {"roots": []}}
    assert again["params"]["requestState"] == "s"
    assert again["params"]["arguments"] == {"a": 1}
    assert talk.server(id=again["id"], result={"resultType": "complete", "content": []}).shown[0]["id"] == 5


def test_another_round_has_its_own_answers_and_state():
    """Answers and state of the round before are not sent again."""
    talk = before_modern()
    first = wants(talk, called(talk), a=ASKS)
    (again,) = talk.answers(first[0]["id"], {"action": "accept"}).sent
    second = wants(talk, again["id"], None, b=ASKS)
    (third,) = talk.answers(second[0]["id"], {"action": "decline"}).sent
    assert third["params"]["inputResponses"] == {"b": {"action": "decline"}}
    assert "requestState" not in third["params"]


def test_a_state_without_questions_is_sent_back_at_once():
    """As a modern client may; but not for ever."""
    talk = before_modern()
    own = called(talk)
    for _ in range(ROUNDS):
        talk.server(id=own, result={"resultType": "input_required", "requestState": "s"})
        own = talk.sent[0]["id"]
    talk.server(id=own, result={"resultType": "input_required", "requestState": "s"})
    assert talk.refused[0].error.cause is Cause.ERA
    assert talk.sent == []


def test_an_error_of_the_client_ends_the_call():
    """There is no error inside a request: the call gets the client's own, and the other question is withdrawn."""
    talk = before_modern()
    first = wants(talk, called(talk), a=ASKS, b=ASKS)
    talk.answers(first[0]["id"], error={"code": -31403, "message": "no grant"})
    assert [each.get("method", "answer") for each in talk.shown] == ["notifications/cancelled", "answer"]
    assert talk.shown[0]["params"]["requestId"] == first[1]["id"]
    assert talk.shown[1]["error"]["message"] == "no grant"
    assert talk.answers(first[1]["id"], {"action": "accept"}).sent == []


@pytest.mark.parametrize("question", [ASKS, {"method": "tools/call", "params": {"name": "t"}}])
def test_a_question_that_the_client_does_not_offer(question: dict[str, Any]):
    """The call is refused with the cause, and the client is asked nothing."""
    talk = before_modern(offers={})
    assert wants(talk, called(talk), a=question) == []
    assert talk.refused[0].request_id == 5
    assert talk.refused[0].error.cause is Cause.ERA


def test_a_result_of_an_unknown_type():
    """A task of the extension, for example, is refused with the cause."""
    talk = before_modern()
    talk.server(id=called(talk), result={"resultType": "task", "taskId": "x"})
    assert talk.refused[0].error.cause is Cause.ERA


@pytest.mark.parametrize("method", ["tasks/get", "tasks/result", "tasks/list"])
def test_tasks_are_refused_with_the_cause(method: str):
    """Also a call that is to become one."""
    talk = before_modern()
    assert talk.client(method, 5, taskId="x").refused[0].error.cause is Cause.ERA
    assert talk.client("tools/call", 6, name="t", task={}).refused[0].error.cause is Cause.ERA


def test_subscribing():
    """A stream for each URI, answered when the server honours it; what it tells loses the stream's name."""
    talk = before_modern()
    (sent,) = talk.client("resources/subscribe", 5, uri="x://a").sent
    assert sent["method"] == "subscriptions/listen"
    assert sent["params"]["notifications"] == {"resourceSubscriptions": ["x://a"]}
    tag = {"_meta": {SUBSCRIPTION: sent["id"]}}
    told = {"notifications": {"resourceSubscriptions": ["x://a"]}, **tag}
    talk.server(method="notifications/subscriptions/acknowledged", params=told)
    assert talk.shown == [{"jsonrpc": "2.0", "id": 5, "result": {}}]
    talk.server(method="notifications/resources/updated", params={"uri": "x://a", **tag})
    assert talk.shown == [{"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "x://a"}}]
    talk.client("resources/unsubscribe", 6, uri="x://a")
    assert talk.sent[0]["params"]["requestId"] == sent["id"]
    assert talk.shown[0]["id"] == 6
    assert talk.server(method="notifications/resources/updated", params={"uri": "x://a", **tag}).shown == []


def test_a_subscription_that_is_not_honoured():
    """The client gets an error, whether the server leaves the URI out or refuses the stream."""
    talk = before_modern()
    (sent,) = talk.client("resources/subscribe", 5, uri="x://a").sent
    told = {"notifications": {}, "_meta": {SUBSCRIPTION: sent["id"]}}
    talk.server(method="notifications/subscriptions/acknowledged", params=told)
    assert talk.shown[0]["error"]["code"] == -32602
    assert talk.sent[0]["method"] == "notifications/cancelled"
    (sent,) = talk.client("resources/subscribe", 6, uri="x://a").sent
    assert talk.server(id=sent["id"], error=REFUSES).shown[0]["error"] == REFUSES


def test_list_changes_are_listened_to():
    """After the handshake, for the lists that the server announced; once."""
    talk = before_modern()
    (sent,) = talk.client("notifications/initialized").sent
    assert sent["params"]["notifications"] == {"toolsListChanged": True, "resourcesListChanged": True}
    assert talk.client("notifications/initialized").sent == []
    params = {"_meta": {SUBSCRIPTION: sent["id"]}}
    told = talk.server(method="notifications/tools/list_changed", params=params).shown
    assert told[0] == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {}}


def test_what_is_answered_here():
    """Ping and the log level, which then goes with every request; a level that is none is refused."""
    talk = before_modern()
    assert talk.client("ping", 5).shown == [{"jsonrpc": "2.0", "id": 5, "result": {}}]
    assert talk.client("logging/setLevel", 6, level="loud").shown[0]["error"]["code"] == -32602
    assert talk.client("logging/setLevel", 7, level="info").shown[0]["result"] == {}
    meta = talk.client("tools/list", 8).sent[0]["params"]["_meta"]
    assert meta["io.modelcontextprotocol/logLevel"] == "info"


def test_cancellation():
    """It names the server's id; of a call that waits for the client's answers, the questions are withdrawn."""
    talk = before_modern()
    own = called(talk)
    assert talk.client("notifications/cancelled", requestId=5).sent[0]["params"]["requestId"] == own
    first = wants(talk, called(talk, 6), a=ASKS)
    talk.client("notifications/cancelled", requestId=6)
    assert talk.shown[0]["params"]["requestId"] == first[0]["id"]
    assert talk.answers(first[0]["id"], {"action": "accept"}).sent == []


def test_a_request_of_a_modern_server():
    """There is none: it is answered with an error, and the client hears nothing."""
    talk = before_modern().server(id=1, method="roots/list")
    assert talk.shown == []
    assert talk.sent[0]["error"]["code"] == -32601


def test_an_answer_that_is_not_mcp_is_the_clients():
    """It is refused under the id that the client knows, subscriptions too."""
    talk = before_modern()
    assert talk.malformed(called(talk), WireError(Cause.MALFORMED, "garbled")).refused[0].request_id == 5
    (sent,) = talk.client("resources/subscribe", 6, uri="x://a").sent
    assert talk.malformed(sent["id"], WireError(Cause.MALFORMED, "garbled")).refused[0].request_id == 6
