"""A modern client before a legacy server, as dialogues."""

from __future__ import annotations

import json

import pytest

from attestd.enforcement.bridge_modern import ANSWER_BYTES, PAUSED_MAX
from attestd.errors import Cause
from attestd.wire.model import WireError
from tests.support.bridging import Talk, before_legacy, meta

ASKS = {"message": "who?", "requestedSchema": {"type": "object"}}


def called(talk: Talk, message_id: object = 5, **params: object) -> str:
    """A tools/call of the client; the id that the server got it under."""
    (sent,) = talk.modern("tools/call", message_id, name="t", arguments={"a": 1}, **params).sent
    return str(sent["id"])


def asked(talk: Talk, server_id: object = 77, method: str = "elicitation/create") -> tuple[str, str]:
    """A question of the server; its key and the state of the answer that carries it."""
    talk.server(id=server_id, method=method, params=ASKS)
    result = talk.shown[0]["result"]
    assert result["resultType"] == "input_required"
    (key,) = result["inputRequests"]
    return key, result["requestState"]


def test_a_request_loses_the_envelope_and_keeps_the_rest():
    """The server gets params as its era has them: trace context stays, revision, name and capabilities go."""
    talk = before_legacy()
    (sent,) = talk.modern("tools/call", 5, _meta=meta(traceparent="00-1", progressToken="p"), name="t").sent
    assert sent["params"]["name"] == "t"
    assert sent["params"]["_meta"] == {"traceparent": "00-1", "progressToken": sent["id"]}
    assert sent["id"] != 5


def test_a_result_says_that_it_is_complete():
    """Its content is the server's, byte for byte; lists and resources may be kept for no time."""
    talk = before_legacy()
    own = called(talk)
    talk.server(id=own, result={"content": [{"type": "text", "text": "é\u2028"}], "isError": False})
    assert talk.shown[0] == {
        "jsonrpc": "2.0",
        "id": 5,
        "result": {"resultType": "complete", "content": [{"type": "text", "text": "é\u2028"}], "isError": False},
    }
    own = talk.modern("tools/list", 6).sent[0]["id"]
    result = talk.server(id=own, result={"tools": [], "resultType": "else", "ttlMs": 9}).shown[0]["result"]
    assert result == {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": []}


@pytest.mark.parametrize(
    ("code", "seen"), [(-32002, -32602), (-32042, -32603), (-32050, -32603), (-32601, -32601), (7, 7)]
)
def test_an_error_gets_a_code_of_the_modern_era(code: int, seen: int):
    """Codes that must not be sent there become others, and the old one is told."""
    talk = before_legacy()
    own = called(talk)
    assert talk.server(id=own, error={"code": code, "message": "no"}).shown[0]["error"]["code"] == seen


def test_progress_comes_under_the_clients_token():
    """The server has a token of ours; a token that is not ours belongs to nobody."""
    talk = before_legacy()
    own = called(talk, _meta=meta(progressToken="mine"))
    told = talk.server(method="notifications/progress", params={"progressToken": own, "progress": 1}).shown
    assert told[0]["params"]["progressToken"] == "mine"
    assert talk.server(method="notifications/progress", params={"progressToken": "mine", "progress": 1}).shown == []


def test_a_question_and_its_answer():
    """The call so far is answered with the question; the retry answers the server and gets the rest of the call."""
    talk = before_legacy()
    own = called(talk)
    key, state = asked(talk)
    assert talk.shown[0]["id"] == 5
    given = {"action": "accept", "content": {"name": "Ada"}}
    talk.modern("tools/call", 6, name="t", arguments={"a": 1}, requestState=state, inputResponses={key: given})
    assert talk.sent == [{"jsonrpc": "2.0", "id": 77, "result": given}]
    assert talk.server(id=own, result={"content": []}).shown[0]["id"] == 6


@pytest.mark.parametrize(
    "changed", [{"name": "other"}, {"arguments": {"a": 2}}, {"requestState": "state-999"}, {"requestState": None}]
)
def test_a_state_is_good_for_its_own_request_only(changed: dict[str, object]):
    """The session has decided about another request than the one that waits: it is refused, and nothing is sent."""
    talk = before_legacy()
    called(talk)
    key, state = asked(talk)
    params = {"name": "t", "arguments": {"a": 1}, "requestState": state, "inputResponses": {key: {}}, **changed}
    talk.modern("tools/call", 6, **{k: v for k, v in params.items() if v is not None})
    assert talk.sent == []
    assert talk.shown[0]["error"]["code"] == -32602


def test_a_missing_answer_is_asked_for_again():
    """With another state; the old one is used up."""
    talk = before_legacy()
    called(talk)
    key, state = asked(talk)
    talk.modern("tools/call", 6, name="t", arguments={"a": 1}, requestState=state, inputResponses={})
    again = talk.shown[0]["result"]
    assert list(again["inputRequests"]) != []
    assert again["requestState"] != state
    talk.modern("tools/call", 7, name="t", arguments={"a": 1}, requestState=state, inputResponses={key: {}})
    assert talk.shown[0]["error"]["code"] == -32602


def test_a_question_outside_any_call_waits_for_one():
    """roots/list after the handshake is asked with the first call that can carry it, before that reaches the server."""
    talk = before_legacy()
    talk.modern("tools/list", 4)
    assert talk.server(id="r", method="roots/list").shown == []
    talk.modern("tools/call", 5, name="t")
    assert talk.sent == []
    result = talk.shown[0]["result"]
    (key,) = result["inputRequests"]
    talk.modern("tools/call", 6, name="t", requestState=result["requestState"], inputResponses={key: {"roots": []}})
    assert [body.get("method", "answer") for body in talk.sent] == ["answer", "tools/call"]


def test_a_question_that_the_client_does_not_offer():
    """The server is told so, and the client hears nothing."""
    talk = before_legacy()
    bare = meta(**{"io.modelcontextprotocol/clientCapabilities": {}})
    called(talk, _meta=bare)
    talk.server(id=77, method="sampling/createMessage", params=ASKS)
    assert talk.shown == []
    assert talk.sent[0]["error"]["code"] == -32601


def test_a_question_that_no_grant_accepts():
    """The session gets the question, and refuses the call for it; the server hears that, and that the call is over."""
    talk = before_legacy(allows=lambda method: method != "elicitation/create")
    own = called(talk)
    asked(talk)
    assert talk.sent[0]["error"]["code"] == -31403
    assert talk.sent[1]["method"] == "notifications/cancelled"
    assert talk.sent[1]["params"]["requestId"] == own
    assert talk.server(id=own, result={"content": []}).shown == []


def test_an_answer_that_comes_before_the_retry():
    """It is kept for the retry; a large one is not, and the retry says so."""
    for size, key in ((1, "result"), (ANSWER_BYTES, "error")):
        talk = before_legacy()
        own = called(talk)
        question, state = asked(talk)
        assert talk.server(id=own, result={"content": [{"type": "text", "text": "x" * size}]}).shown == []
        talk.modern("tools/call", 6, name="t", arguments={"a": 1}, requestState=state, inputResponses={question: {}})
        assert talk.shown[0]["id"] == 6
        assert key in talk.shown[0]


def test_calls_that_are_never_made_again_give_way():
    """The oldest is cancelled at the server, and its question answered with an error."""
    talk = before_legacy()
    first = called(talk, 1000)
    asked(talk, 0)
    for n in range(1, PAUSED_MAX):
        called(talk, 1000 + n)
        asked(talk, n)
        assert talk.sent == []
    called(talk, 2000)
    asked(talk, "last")
    assert [body.get("method", body.get("id")) for body in talk.sent] == [0, "notifications/cancelled"]
    assert talk.sent[1]["params"]["requestId"] == first


def test_a_url_that_must_be_visited():
    """The error of 2025-11-25 becomes a question; accepted, the call is made again; declined, it ends with an error."""
    needed = {"elicitations": [{"mode": "url", "elicitationId": "e", "url": "https://example.org", "message": "go"}]}
    for action, wanted in (("accept", "tools/call"), ("decline", None)):
        talk = before_legacy()
        own = called(talk)
        talk.server(id=own, error={"code": -32042, "message": "visit", "data": needed})
        result = talk.shown[0]["result"]
        (key,) = result["inputRequests"]
        assert result["inputRequests"][key]["params"]["url"] == "https://example.org"
        answers = {key: {"action": action}}
        talk.modern(
            "tools/call", 6, name="t", arguments={"a": 1}, requestState=result["requestState"], inputResponses=answers
        )
        assert [body["method"] for body in talk.sent] == ([wanted] if wanted else [])
        assert bool(talk.shown) is (wanted is None)


def test_cancellation_names_the_servers_id():
    """The client's id means nothing to the server; what is not open is not cancelled."""
    talk = before_legacy()
    own = called(talk)
    assert talk.client("notifications/cancelled", requestId=5).sent[0]["params"]["requestId"] == own
    assert talk.client("notifications/cancelled", requestId=99).sent == []


def test_a_withdrawn_question_is_not_answered():
    """The server does not wait any more: the retry goes on without telling it."""
    talk = before_legacy()
    own = called(talk)
    key, state = asked(talk)
    talk.server(method="notifications/cancelled", params={"requestId": 77})
    talk.modern("tools/call", 6, name="t", arguments={"a": 1}, requestState=state, inputResponses={key: {}})
    assert talk.sent == []
    assert talk.server(id=own, result={"content": []}).shown[0]["id"] == 6


def test_log_messages_come_to_requests_that_want_them():
    """The level is set at the server once, and lowered only; messages are shown while such a request is open."""
    talk = before_legacy()
    sent = talk.modern("tools/call", 5, _meta=meta(**{"io.modelcontextprotocol/logLevel": "warning"}), name="t").sent
    assert [body["method"] for body in sent] == ["logging/setLevel", "tools/call"]
    own = sent[1]["id"]
    for level, count in (("info", 0), ("error", 1)):
        assert len(talk.server(method="notifications/message", params={"level": level, "data": 1}).shown) == count
    more = talk.modern("tools/call", 6, _meta=meta(**{"io.modelcontextprotocol/logLevel": "error"}), name="t").sent
    assert [body["method"] for body in more] == ["tools/call"]
    talk.server(id=own, result={})
    talk.server(id=more[0]["id"], result={})
    assert talk.server(method="notifications/message", params={"level": "error", "data": 1}).shown == []


def test_a_shared_server_keeps_its_level():
    """Nothing is set on a back end that has other callers."""
    talk = before_legacy(shared=True)
    sent = talk.modern("tools/call", 5, _meta=meta(**{"io.modelcontextprotocol/logLevel": "debug"}), name="t").sent
    assert [body["method"] for body in sent] == ["tools/call"]


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
def test_tasks_are_refused_with_the_cause(method: str):
    """They are another thing in each era, and are not guessed at."""
    talk = before_legacy()
    talk.modern(method, 5, taskId="x")
    assert talk.refused[0].error.cause is Cause.ERA
    assert talk.sent == []


def test_ping_of_the_server_is_answered():
    """The modern era has none."""
    assert before_legacy().server(id=9, method="ping").sent == [{"jsonrpc": "2.0", "id": 9, "result": {}}]


def test_an_answer_that_is_not_mcp_is_the_clients():
    """It is refused under the id that the client knows; a call that waits for its retry is given up."""
    talk = before_legacy()
    own = called(talk)
    assert talk.malformed(own, WireError(Cause.MALFORMED, "garbled")).refused[0].request_id == 5
    own = called(talk)
    asked(talk)
    talk.malformed(own, WireError(Cause.MALFORMED, "garbled"))
    assert talk.refused == []
    assert "error" in json.dumps(talk.sent)
