"""Sessions as dialogues: what one side says, and what the others are told because of it. No I/O."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attestd.enforcement.bindings import Bindings
from attestd.enforcement.effects import TRANSITIONS, State, cancelled
from attestd.enforcement.session import DRAIN_NS, HELD_NS
from attestd.errors import Cause
from attestd.wire.lookalike import META_SUBSCRIPTION
from attestd.wire.model import Limits, ListKind, WireError
from tests.fakes.mediation import CODE
from tests.support.dialogue import SECRET, Dialogue, ask, call, cause, tell

ECHO = ("call_tool", "echo")
EVENTS = ("client_closed", "end")


# -- states ---------------------------------------------------------------------------------------------------------


def test_every_pair_of_state_and_event_has_a_row():
    """The state table names what each event does in each state, and nothing else."""
    assert set(TRANSITIONS) == {(state, event) for state in State for event in EVENTS}


@pytest.mark.parametrize(("state", "event"), sorted(TRANSITIONS))
def test_the_session_follows_the_table(state: State, event: str):
    """From each state, each event leads where the table says."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo"))  # something outstanding, so that draining lasts
    if state is State.DRAINING:
        talk.effects(talk.session.client_closed(talk.clock))
    elif state is State.ENDED:
        talk.effects(talk.session.server_gone(Cause.SERVER_UNAVAILABLE, "it ended", talk.clock))
    assert talk.session.state is state
    if event == "client_closed":
        talk.session.client_closed(talk.clock)
    else:
        talk.session.server_gone(Cause.SERVER_UNAVAILABLE, "it ended", talk.clock)
    assert talk.session.state is TRANSITIONS[state, event]


def test_an_ended_session_says_and_does_nothing():
    """After the end no event of either side has an effect."""
    talk = Dialogue(ECHO).initialize()
    talk.effects(talk.session.server_gone(Cause.SERVER_UNAVAILABLE, "it ended", talk.clock))
    assert talk.client(call("echo")) == []
    assert talk.server(tell("notifications/tools/list_changed")) == []
    assert talk.effects(talk.session.tick(talk.clock)) == []
    assert talk.effects(talk.session.client_closed(talk.clock)) == []
    assert talk.effects(talk.session.foreign_writer(9, talk.clock)) == []
    assert talk.effects(talk.session.grants_changed(talk.clock)) == []
    assert talk.effects(talk.session.server_gone(Cause.SERVER_UNAVAILABLE, "", talk.clock)) == []
    assert talk.effects(talk.session.server_malformed(1, WireError(Cause.MALFORMED, ""), talk.clock)) == []


def test_draining_answers_what_is_outstanding_and_then_ends():
    """A client that has closed its side still gets its answer, and nothing it sends later counts."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 5))
    assert talk.effects(talk.session.client_closed(talk.clock)) == []
    assert talk.client(call("echo", 6)) == []
    said = talk.answer({"content": []}, 5)
    assert said == [("client", {"jsonrpc": "2.0", "id": 5, "result": {"content": []}}), ("end", "")]


def test_a_client_that_closes_with_nothing_open_ends_at_once():
    """Nothing outstanding: the end follows the close."""
    talk = Dialogue().initialize()
    assert talk.effects(talk.session.client_closed(talk.clock)) == [("end", "")]


def test_draining_does_not_last_for_ever():
    """A server that never answers is given up after the drain time."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo"))
    talk.session.client_closed(talk.clock)
    assert talk.effects(talk.session.tick(talk.clock.later(DRAIN_NS - 1))) == []
    assert talk.effects(talk.session.tick(talk.clock.later(DRAIN_NS))) == [("end", "")]


def test_a_server_that_goes_has_everything_outstanding_refused():
    """Each open request is refused with the cause, then the session ends with it."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 1), call("echo", 2))
    said = talk.effects(talk.session.server_gone(Cause.SERVER_UNAVAILABLE, "exited with status 3", talk.clock))
    assert [cause(each) for each in said[:2]] == ["server_unavailable"] * 2
    assert [body["id"] for _, body in said[:2]] == [1, 2]
    assert "exited with status 3" in said[0][1]["error"]["message"]
    assert said[2:] == [("end", "server_unavailable")]


# -- requests -------------------------------------------------------------------------------------------------------


def test_a_permitted_call_is_forwarded_and_answered():
    """The request reaches the server as it was meant, its answer the client, and both are recorded."""
    talk = Dialogue(ECHO).initialize()
    assert talk.client(call("echo", 7)) == [("server", call("echo", 7))]
    result = {"content": [{"type": "text", "text": "x"}]}
    assert talk.answer(result, 7) == [("client", {"jsonrpc": "2.0", "id": 7, "result": result})]
    assert [(e.kind, e.verdict) for e in talk.audit.entries[-2:]] == [("decision", "permit"), ("result", "ok")]
    assert talk.audit.entries[-2].id == talk.audit.entries[-1].id
    assert talk.caller.used[-1] == ("echo",)
    assert talk.session.calls == 2


def test_a_refused_call_never_reaches_the_server():
    """What no grant names is refused on its own id with a code, and counted as a denial."""
    talk = Dialogue(ECHO).initialize()
    (said,) = talk.client(call("delete", 8))
    assert cause(said) == "out_of_scope"
    error = said[1]["error"]
    assert (said[1]["id"], error["code"]) == (8, -31403)
    assert error["data"]["code"] == CODE
    assert CODE in error["message"]
    assert error["data"]["retry"] is True
    assert talk.session.denials == 1
    assert talk.session.outstanding == {}


def test_a_refused_notification_is_dropped_and_recorded():
    """Nobody is answered, nothing is forwarded, the log has it."""
    talk = Dialogue().initialize()
    talk.caller.admitted = False
    assert talk.client(tell("notifications/roots/list_changed")) == []
    assert talk.audit.causes() == ["no_grant"]


def test_an_unknown_notification_is_dropped_and_recorded():
    """A notification that does not classify has no id to answer on: it is dropped, not answered with a null id."""
    talk = Dialogue().initialize()
    assert talk.client(tell("notifications/secret")) == []
    assert talk.client(tell("notifications/cancelled", {})) == []
    assert talk.audit.causes() == ["unknown_method", "malformed"]
    assert talk.session.denials == 2


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"hello\n", -32700),
        (b'{"jsonrpc":"1.0","id":3,"method":"ping"}\n', -32600),
        (b'{"jsonrpc":"2.0","method":"tools/call","id":null}\n', -32600),
        (b"[]\n", -32600),
    ],
)
def test_garbage_is_answered_as_json_rpc_says(line: bytes, code: int):
    """What is no message is answered with JSON-RPC's own error, and the session goes on."""
    talk = Dialogue(ECHO).initialize()
    (said,) = talk.bytes(line)
    assert said[0] == "client"
    assert said[1]["error"]["code"] == code
    assert said[1]["error"]["data"]["decision"]
    assert talk.client(call("echo")) == [("server", call("echo"))]


def test_an_unknown_method_is_answered_on_its_id():
    """A request that does not exist gets -32601 on its own id."""
    (said,) = Dialogue().initialize().client(ask("tools/delete", {}, 4))
    assert (said[1]["id"], said[1]["error"]["code"]) == (4, -32601)


def test_a_line_above_the_limit_is_answered_and_the_next_one_served():
    """A message that is too large is refused on its id; the connection stays."""
    talk = Dialogue(ECHO, limits=Limits(message_bytes=2000)).initialize()
    (said,) = talk.client(call("echo", 5, padding="x" * 4000))
    assert said[1]["id"] == 5
    assert said[1]["error"]["data"]["cause"] == "too_large"
    assert talk.client(call("echo", 6)) == [("server", call("echo", 6))]


def test_an_id_that_is_open_cannot_be_used_again():
    """Two open requests of one id could not be told apart: the second is refused."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 1))
    (said,) = talk.client(call("echo", 1))
    assert cause(said) == "malformed"
    talk.answer({}, 1)
    assert talk.client(call("echo", 1)) == [("server", call("echo", 1))]


def test_one_and_the_text_one_are_two_ids():
    """Ids keep their type on the way there and back."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 1), call("echo", "1"))
    assert [body["id"] for _, body in talk.answer({}, "1")] == ["1"]
    assert list(talk.session.outstanding) == [1]


def test_open_requests_are_limited():
    """Beyond the limit a request is refused and may be sent again."""
    talk = Dialogue(ECHO, limits=Limits(open_requests=2)).initialize()
    talk.client(call("echo", 1), call("echo", 2))
    (said,) = talk.client(call("echo", 3))
    assert cause(said) == "limit_requests"
    assert said[1]["error"]["data"]["retry"] is True
    talk.answer({}, 1)
    assert talk.client(call("echo", 3)) == [("server", call("echo", 3))]


def test_a_shared_server_is_not_changed_for_others():
    """logging/setLevel on a shared server is refused, on a server of one's own it passes."""
    level = {"level": "debug"}
    (said,) = Dialogue(shared=True).initialize().request("logging/setLevel", level)
    assert cause(said) == "shared_state"
    assert Dialogue().initialize().request("logging/setLevel", level)[0][0] == "server"


def test_a_once_grant_is_used_up_by_one_call():
    """The second call of a grant for one use is refused."""
    talk = Dialogue(ECHO).initialize()
    talk.caller.once.add(ECHO)
    assert talk.client(call("echo", 1))[0][0] == "server"
    assert cause(talk.client(call("echo", 2))[0]) == "out_of_scope"


def test_without_a_record_nothing_is_forwarded():
    """A log that cannot be written refuses every request; an answer that cannot be recorded is not shown either."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 1))
    talk.audit.full = True
    assert cause(talk.client(call("echo", 2))[0]) == "audit_unavailable"
    (said,) = talk.answer({"secret": 1}, 1)
    assert (said[1]["id"], cause(said)) == (1, "audit_unavailable")
    assert "the server has done it" in said[1]["error"]["message"]
    talk.audit.full = False
    assert talk.client(call("echo", 3))[0][0] == "server"


# -- who writes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "found", [Cause.IMAGE_CHANGED, Cause.CHAIN_CHANGED, Cause.PEER_GONE, Cause.TRACED, Cause.FOREIGN_NAMESPACE]
)
def test_a_change_of_the_processes_ends_the_session(found: Cause):
    """The message that shows the change is refused with it, and the session ends; so it does without a message."""
    talk = Dialogue(ECHO).initialize()
    talk.caller.changed = found
    said = talk.client(call("echo"))
    assert cause(said[0]) == found.value
    assert said[1:] == [("end", found.value)]
    quiet = Dialogue().initialize()
    quiet.caller.changed = found
    assert quiet.effects(quiet.session.tick(quiet.clock)) == [("end", found.value)]


def test_a_foreign_writer_ends_the_session():
    """Bytes of another process end the session, a whole line or not."""
    talk = Dialogue(ECHO).initialize()
    said = talk.client(call("echo"), writer=666)
    assert cause(said[0]) == "writer_mismatch"
    assert said[1:] == [("end", "writer_mismatch")]
    partial = Dialogue().initialize()
    said = partial.effects(partial.session.foreign_writer(666, partial.clock))
    assert said[-1] == ("end", "writer_mismatch")
    assert partial.audit.causes() == ["writer_mismatch"]


def test_a_response_of_a_changed_process_is_not_passed_on():
    """An answer to the server's question is checked like a request."""
    talk = Dialogue(("list_roots", "")).initialize()
    talk.server(ask("roots/list", {}, 90))
    talk.caller.changed = Cause.IMAGE_CHANGED
    said = talk.client({"jsonrpc": "2.0", "id": 90, "result": {"roots": []}})
    assert said == [("end", "image_changed")]


# -- proof ----------------------------------------------------------------------------------------------------------


def test_old_bytes_on_a_direct_socket_are_refused_and_may_be_sent_again():
    """An effectful request inside the bytes that were queued before the attestation is not served; a later one is."""
    first = json.dumps(call("echo", 1)).encode() + b"\n"
    talk = Dialogue(ECHO, old_bytes=len(first))
    (said,) = talk.bytes(first)
    assert cause(said) == "unproven"
    assert said[1]["error"]["data"]["retry"] is True
    assert talk.client(call("echo", 2)) == [("server", call("echo", 2))]


def test_what_has_no_effect_needs_no_proof():
    """Initialize and lists are served through a relay at once; the initialize brings the challenge along."""
    talk = Dialogue(relayed=True)
    said = talk.request("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}})
    assert said[0] == ("client", {"jsonrpc": "2.0", "id": SECRET, "method": "ping"})
    assert said[1][0] == "server"
    assert talk.request("tools/list", {}, 2)[0][0] == "server"


def test_a_held_request_is_refused_when_the_challenge_is_answered():
    """What came before the answer stays unproven and is to be sent again; what comes after it is served."""
    talk = Dialogue(ECHO, relayed=True).initialize()
    assert talk.client(call("echo", 1)) == []
    (said,) = talk.client({"jsonrpc": "2.0", "id": SECRET, "result": {}})
    assert cause(said) == "unproven"
    assert said[1]["id"] == 1
    assert talk.client(call("echo", 2)) == [("server", call("echo", 2))]


def test_a_held_request_is_given_up_after_a_time():
    """Without an answer to the challenge the request is refused, and no earlier."""
    talk = Dialogue(ECHO, relayed=True).initialize()
    talk.client(call("echo", 1))
    assert talk.effects(talk.session.tick(talk.clock.later(HELD_NS - 1))) == []
    (said,) = talk.effects(talk.session.tick(talk.clock.later(HELD_NS)))
    assert cause(said) == "unproven"


def test_held_requests_are_bounded():
    """Beyond the bytes that may wait a request is refused at once."""
    talk = Dialogue(ECHO, relayed=True, limits=Limits(held_bytes=200)).initialize()
    assert talk.client(call("echo", 1)) == []
    (said,) = talk.client(call("echo", 2, pad="x" * 200))
    assert (cause(said), said[1]["id"]) == ("unproven", 2)


def test_a_client_that_closes_has_its_held_requests_refused():
    """No proof can follow the end of the stream."""
    talk = Dialogue(ECHO, relayed=True).initialize()
    talk.client(call("echo", 1))
    said = talk.effects(talk.session.client_closed(talk.clock))
    assert cause(said[0]) == "unproven"
    assert said[1:] == [("end", "")]


def test_a_guessed_answer_proves_nothing():
    """A response to a question that nobody asked is dropped, recorded, and proves nothing."""
    talk = Dialogue(ECHO, relayed=True).initialize()
    assert talk.client({"jsonrpc": "2.0", "id": "attestd-guess", "result": {}}) == []
    assert talk.audit.causes() == ["not_outstanding"]
    assert talk.client(call("echo", 1)) == []


def test_the_modern_era_is_challenged_inside_a_result():
    """A modern call is answered with input_required; its retry with the state is served, without the state."""
    talk = Dialogue(ECHO, relayed=True)
    (said,) = talk.modern("tools/call", {"name": "echo", "arguments": {}})
    assert said[1]["result"] == {"resultType": "input_required", "requestState": SECRET}
    (said,) = talk.modern("tools/call", {"name": "echo", "arguments": {}, "requestState": SECRET}, 2)
    assert said[0] == "server"
    assert "requestState" not in said[1]["params"]
    assert said[1]["params"]["name"] == "echo"


def test_a_modern_method_that_cannot_carry_a_challenge_is_refused():
    """subscriptions/listen before any proof is told to come again."""
    talk = Dialogue(("subscribe", "file:///a"), relayed=True)
    (said,) = talk.modern("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["file:///a"]}})
    assert cause(said) == "unproven"


# -- the era --------------------------------------------------------------------------------------------------------


def test_initialize_makes_the_connection_legacy():
    """Era and revision are what the server's answer says."""
    talk = Dialogue().initialize("2025-03-26")
    assert (talk.session.era.value, talk.session.revision) == ("legacy", "2025-03-26")
    assert talk.session.client_name == "probe 1.0"


def test_a_modern_answer_makes_the_connection_modern():
    """The first answered modern request settles the era."""
    talk = Dialogue()
    talk.modern("server/discover", {})
    talk.answer({"supportedVersions": ["2026-07-28"], "capabilities": {}, "serverInfo": {}})
    assert (talk.session.era.value, talk.session.revision) == ("modern", "2026-07-28")


def test_batches_are_decided_one_by_one_where_they_exist():
    """At 2025-03-26 each element has its own verdict; elsewhere a batch is refused."""
    batch = json.dumps([call("echo", 1), call("delete", 2), tell("notifications/nosuch")]).encode() + b"\n"
    said = Dialogue(ECHO).initialize("2025-03-26").bytes(batch)
    assert said[0] == ("server", call("echo", 1))
    assert cause(said[1]) == "out_of_scope"
    assert len(said) == 2
    (refused,) = Dialogue(ECHO).initialize("2025-06-18").bytes(batch)
    assert refused[1]["error"]["data"]["cause"] == "batch"


# -- lists ----------------------------------------------------------------------------------------------------------


def test_lists_are_cut_down_to_what_the_caller_may_use():
    """Only granted tools are shown; the whole list was learned first."""
    talk = Dialogue(ECHO).initialize()
    talk.request("tools/list", {})
    tools = [{"name": name, "inputSchema": {}} for name in ("echo", "delete")]
    (said,) = talk.answer({"tools": tools, "nextCursor": "c"})
    assert said[1]["result"] == {"tools": tools[:1], "nextCursor": "c"}
    assert talk.learned == [(ListKind.TOOLS, {"tools": tools, "nextCursor": "c"})]


def test_resources_prompts_and_templates_are_cut_down():
    """Each kind of list is decided on the action that using its items would be."""
    allowed = [("read_resource", "file:///a"), ("get_prompt", "hi"), ("read_resource", "file:///{x}")]
    talk = Dialogue(*allowed).initialize()
    for method, items, kept in (
        ("resources/list", {"resources": [{"uri": "file:///a"}, {"uri": "file:///b"}]}, 1),
        ("prompts/list", {"prompts": [{"name": "hi"}, {"name": "ho"}]}, 1),
        (
            "resources/templates/list",
            {"resourceTemplates": [{"uriTemplate": "file:///{x}"}, {"uriTemplate": "db:///{x}"}]},
            1,
        ),
    ):
        talk.request(method, {})
        (said,) = talk.answer(items)
        (shown,) = said[1]["result"].values()
        assert len(shown) == kept
        assert shown[0] == next(iter(items.values()))[0]


def test_a_modern_list_is_private_and_short_lived():
    """A filtered list may not be cached for others nor for long."""
    talk = Dialogue(ECHO)
    talk.modern("tools/list", {})
    (said,) = talk.answer({"tools": [], "cacheScope": "public", "ttlMs": 3_600_000, "resultType": "complete"})
    assert (said[1]["result"]["cacheScope"], said[1]["result"]["ttlMs"]) == ("private", 5000)


def test_a_list_that_is_none_is_refused():
    """A server that answers tools/list without a list is malformed, and the client is told."""
    talk = Dialogue(ECHO).initialize()
    talk.request("tools/list", {})
    (said,) = talk.answer({"tools": "all"})
    assert cause(said) == "server_malformed"


# -- the server's answers -------------------------------------------------------------------------------------------


def test_an_answer_to_nothing_is_dropped():
    """Only answers to this caller's open requests reach it, and each once."""
    talk = Dialogue(ECHO).initialize()
    assert talk.answer({}, 99) == []
    talk.client(call("echo", 1))
    assert len(talk.answer({}, 1)) == 1
    assert talk.answer({}, 1) == []


def test_an_error_of_the_server_is_passed_on():
    """The server's own error reaches the client and is recorded as one."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 1))
    error = {"code": -32000, "message": "no"}
    assert talk.server({"jsonrpc": "2.0", "id": 1, "error": error}) == [
        ("client", {"jsonrpc": "2.0", "id": 1, "error": error})
    ]
    assert talk.audit.entries[-1].verdict == "error"


def test_a_malformed_answer_refuses_the_request_that_waits():
    """The client is not left waiting for an answer that was dropped; other requests stay open."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 1), call("echo", 2))
    error = WireError(Cause.MALFORMED, "cannot accept the message of the server: key 'a' is there twice")
    (said,) = talk.effects(talk.session.server_malformed(1, error, talk.clock))
    assert cause(said) == "server_malformed"
    assert "is there twice" in said[1]["error"]["message"]
    assert list(talk.session.outstanding) == [2]
    assert talk.effects(talk.session.server_malformed(77, error, talk.clock)) == []
    assert talk.audit.causes() == ["server_malformed"]


def test_a_cancelled_request_holds_its_id_but_no_place():
    """Many servers never answer what was cancelled: the place is free again, the id is not, and nothing waits."""
    limit = 2
    talk = Dialogue(ECHO, limits=Limits(open_requests=limit)).initialize()
    for number in range(1, 20):
        talk.client(call("echo", number), tell("notifications/cancelled", {"requestId": number}))
    talk.client(call("echo", 100), call("echo", 101))
    assert talk.audit.causes() == []
    (said,) = talk.client(call("echo", 102))
    assert cause(said) == "limit_requests"
    talk.answer({}, 100)
    (said,) = talk.client(call("echo", 7))
    assert cause(said) == "malformed"
    talk.answer({}, 101)
    talk.effects(talk.session.client_closed(talk.clock))
    assert talk.session.state is State.ENDED


@pytest.mark.parametrize("number", [{}, [], None, 1.5, 77])
def test_a_cancellation_of_the_server_that_names_nothing(number: Any):
    """A server that cancels what it never asked, or no id at all, is not heard and breaks nothing."""
    talk = Dialogue(ECHO).initialize()
    assert talk.server(tell("notifications/cancelled", {"requestId": number})) == []
    talk.client(call("echo", 1))
    assert len(talk.answer({}, 1)) == 1


def test_cancelled_requests_are_bounded():
    """Their ids are remembered up to sixteen times the limit; beyond that a request is refused."""
    talk = Dialogue(ECHO, limits=Limits(open_requests=2)).initialize()
    for number in range(1, 33):
        talk.client(call("echo", number), tell("notifications/cancelled", {"requestId": number}))
    (said,) = talk.client(call("echo", 50))
    assert cause(said) == "limit_requests"


def test_a_malformed_answer_ends_the_draining():
    """The last open request may be answered by garbage too."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 1))
    talk.session.client_closed(talk.clock)
    said = talk.effects(talk.session.server_malformed(1, WireError(Cause.MALFORMED, "it is not JSON"), talk.clock))
    assert (cause(said[0]), said[1]) == ("server_malformed", ("end", ""))


# -- the server's questions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "action"),
    [("sampling/createMessage", "create_message"), ("elicitation/create", "elicit"), ("roots/list", "list_roots")],
)
def test_a_question_needs_a_grant_that_accepts_it(method: str, action: str):
    """Without one the server is refused and the client learns nothing; with one question and answer pass."""
    without = Dialogue().initialize()
    (said,) = without.server(ask(method, {}, 90))
    assert said[0] == "server"
    assert said[1]["error"]["code"] == -31403
    assert without.caller.pended == [(method, "", Cause.SERVER_REQUEST)]
    granted = Dialogue((action, "")).initialize()
    assert granted.server(ask(method, {}, 90)) == [("client", ask(method, {}, 90))]
    answer = {"jsonrpc": "2.0", "id": 90, "result": {"x": 1}}
    assert granted.client(answer) == [("server", answer)]
    assert granted.client(answer) == []  # it was answered


@pytest.mark.parametrize("method", ["tools/call", "nosuch", "initialize"])
def test_a_question_that_does_not_exist_is_answered_by_us(method: str):
    """The client never sees a request that no server may make."""
    (said,) = Dialogue().initialize().server(ask(method, {}, 90))
    assert (said[0], said[1]["error"]["code"]) == ("server", -32601)


def test_a_modern_server_asks_nothing():
    """In the modern era there are no server requests: they stand inside results."""
    talk = Dialogue(("list_roots", ""))
    talk.modern("server/discover", {})
    talk.answer({"supportedVersions": ["2026-07-28"], "capabilities": {}})
    (said,) = talk.server(ask("roots/list", {}, 90))
    assert said[1]["error"]["code"] == -32601


def test_a_ping_of_the_server_needs_no_grant():
    """A server may ask whether its client lives."""
    assert Dialogue().initialize().server(ask("ping", None, 90)) == [("client", ask("ping", None, 90))]


def test_questions_are_shown_only_after_the_proof():
    """Until the attested image has proven itself, a question waits; then it is shown."""
    talk = Dialogue(("list_roots", ""), relayed=True).initialize()
    assert talk.server(ask("roots/list", {}, 90)) == []
    assert talk.client({"jsonrpc": "2.0", "id": SECRET, "result": {}}) == [("client", ask("roots/list", {}, 90))]


def test_an_answer_older_than_the_attestation_is_not_passed_on():
    """An answer to a question must be proven like a request."""
    answer = json.dumps({"jsonrpc": "2.0", "id": 90, "result": {"roots": []}}).encode() + b"\n"
    talk = Dialogue(("list_roots", ""), old_bytes=len(answer))
    talk.server(ask("roots/list", {}, 90))
    assert talk.bytes(answer) == []
    assert talk.audit.causes() == ["unproven"]


def test_open_questions_are_limited_and_have_one_id_each():
    """A server cannot ask twice under one id, nor without bound."""
    talk = Dialogue(("list_roots", ""), limits=Limits(open_requests=2)).initialize()
    talk.server(ask("roots/list", {}, 1))
    assert talk.server(ask("roots/list", {}, 1))[0][0] == "server"
    talk.server(ask("roots/list", {}, 2))
    assert talk.server(ask("roots/list", {}, 3))[0][0] == "server"


def test_a_client_that_has_closed_is_asked_nothing():
    """Nobody could answer any more: the server is told so at once."""
    talk = Dialogue(ECHO, ("list_roots", "")).initialize()
    talk.client(call("echo"))
    talk.session.client_closed(talk.clock)
    assert talk.server(ask("roots/list", {}, 90))[0][0] == "server"


def test_questions_inside_results_are_gated():
    """A modern result that asks is refused without a grant that accepts the question, and passes with one."""
    result = {
        "resultType": "input_required",
        "inputRequests": {"a": {"method": "elicitation/create", "params": {}}},
        "requestState": "st",
    }
    for allowed, shown in (((), False), ((("elicit", ""),), True)):
        talk = Dialogue(ECHO, *allowed)
        talk.modern("tools/call", {"name": "echo", "arguments": {}})
        (said,) = talk.answer(result)
        assert ("result" in said[1]) is shown
        if not shown:
            assert cause(said) == "server_request"


def test_an_unknown_question_inside_a_result_is_refused():
    """What the tables do not hold may not stand inside a result."""
    talk = Dialogue(ECHO)
    talk.modern("tools/call", {"name": "echo", "arguments": {}})
    (said,) = talk.answer({"resultType": "input_required", "inputRequests": {"a": {"method": "shell/run"}}})
    assert cause(said) == "server_request"


# -- progress, cancellation, notifications --------------------------------------------------------------------------


def test_progress_reaches_the_caller_of_that_token_only():
    """Progress on a token of an open request passes, on any other it is dropped, also after the answer."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 1, _meta={"progressToken": "t1"}))
    progress = tell("notifications/progress", {"progressToken": "t1", "progress": 1})
    assert talk.server(progress) == [("client", progress)]
    assert talk.server(tell("notifications/progress", {"progressToken": "t2", "progress": 1})) == []
    talk.answer({}, 1)
    assert talk.server(progress) == []


def test_a_caller_cancels_only_what_is_open():
    """A cancellation passes while its request is open and is dropped and recorded otherwise."""
    talk = Dialogue(ECHO).initialize()
    cancel = tell("notifications/cancelled", {"requestId": 1})
    assert talk.client(cancel) == []
    assert talk.audit.causes() == ["not_outstanding"]
    talk.client(call("echo", 1))
    assert talk.client(cancel) == [("server", cancel)]


def test_a_client_tells_progress_only_of_what_it_was_asked():
    """Progress of the client must carry the token of an open question."""
    talk = Dialogue(("create_message", "")).initialize()
    progress = tell("notifications/progress", {"progressToken": "q", "progress": 1})
    assert talk.client(progress) == []
    talk.server(ask("sampling/createMessage", {"_meta": {"progressToken": "q"}}, 90))
    assert talk.client(progress) == [("server", progress)]


def test_a_server_cancels_only_its_own_open_questions():
    """The cancellation of a question that is open reaches the client once."""
    talk = Dialogue(("list_roots", "")).initialize()
    cancel = tell("notifications/cancelled", {"requestId": 90})
    assert talk.server(cancel) == []
    talk.server(ask("roots/list", {}, 90))
    assert talk.server(cancel) == [("client", cancel)]
    assert talk.server(cancel) == []


def test_news_of_a_resource_reach_only_who_may_read_it():
    """resources/updated is shown for URIs that the caller may read, in any spelling, and for no others."""
    talk = Dialogue(("read_resource", "file:///a")).initialize()
    assert len(talk.server(tell("notifications/resources/updated", {"uri": "file://localhost/a"}))) == 1
    assert talk.server(tell("notifications/resources/updated", {"uri": "file:///b"})) == []
    assert talk.server(tell("notifications/resources/updated", {"uri": 5})) == []


def test_unknown_notifications_of_the_server_are_dropped():
    """What the tables do not hold does not reach the client; log messages and list changes do."""
    talk = Dialogue().initialize()
    assert talk.server(tell("notifications/evil", {})) == []
    for known in ("notifications/message", "notifications/tools/list_changed"):
        assert talk.server(tell(known, {"level": "info", "data": "x"})) == [
            ("client", tell(known, {"level": "info", "data": "x"}))
        ]


def test_changed_grants_are_told_to_clients_that_were_promised_so():
    """A legacy client whose server announced list changes is told; others are not."""
    promised = Dialogue().initialize(tools={"listChanged": True})
    assert promised.effects(promised.session.grants_changed(promised.clock)) == [
        ("client", tell("notifications/tools/list_changed"))
    ]
    plain = Dialogue().initialize(tools={})
    assert plain.effects(plain.session.grants_changed(plain.clock)) == []


# -- tasks and states belong to their owner -------------------------------------------------------------------------


def task(task_id: str) -> dict[str, Any]:
    """A result that creates a task, as 2025-11-25 writes it."""
    return {
        "task": {"taskId": task_id, "status": "working", "createdAt": "2026-01-01T00:00:00Z", "ttl": 1000},
    }


def test_a_task_exists_for_its_owner_only():
    """Who made the task may ask for it; for another caller of the same server it does not exist."""
    bindings = Bindings()
    mine = Dialogue(ECHO, bindings=bindings).initialize()
    mine.client(call("echo", 1, task={"ttl": 1000}))
    mine.answer(task("t-1"))
    assert mine.request("tasks/get", {"taskId": "t-1"}, 2)[0][0] == "server"
    other = Dialogue(ECHO, bindings=bindings, owner=(1000, "other", "chain")).initialize()
    (said,) = other.request("tasks/get", {"taskId": "t-1"}, 2)
    assert cause(said) == "not_found"


def test_a_server_cannot_hand_one_task_to_two_callers():
    """On a shared server, a task that belongs to somebody else makes the whole answer a refusal."""
    bindings = Bindings()
    for owner in ("other", "me"):
        talk = Dialogue(ECHO, bindings=bindings, shared=True, owner=(1000, owner, "chain")).initialize()
        talk.client(call("echo", 1, task={"ttl": 1000}))
        if owner == "other":
            assert "result" in talk.answer(task("t-1"))[0][1]
    (said,) = talk.answer(task("t-1"))
    assert cause(said) == "not_found"


def test_a_list_of_tasks_shows_ones_own():
    """tasks/list is cut down to the tasks of this identity."""
    bindings = Bindings()
    bindings.bind("task", "theirs", (1000, "other", "chain"), sole=True)
    talk = Dialogue(bindings=bindings).initialize()
    bindings.bind("task", "mine", (1000, "me", "chain"), sole=True)
    talk.request("tasks/list", {})
    (said,) = talk.answer({"tasks": [{"taskId": "mine"}, {"taskId": "theirs"}, {"taskId": "nobodys"}]})
    assert said[1]["result"]["tasks"] == [{"taskId": "mine"}]


def test_a_question_about_a_task_must_be_about_ones_own():
    """A server may ask this client only about tasks that are this client's."""
    talk = Dialogue().initialize()
    (said,) = talk.server(ask("tasks/get", {"taskId": "theirs"}, 90))
    assert said[1]["error"]["code"] == -32602


def test_a_request_state_is_its_owners():
    """A retry with a state that the server never gave to this caller is refused; with its own it passes."""
    talk = Dialogue(ECHO, ("elicit", ""))
    talk.modern("tools/call", {"name": "echo", "arguments": {}})
    talk.answer({"resultType": "input_required", "requestState": "st-1"})
    retry = {"name": "echo", "arguments": {}, "inputResponses": {}}
    assert talk.modern("tools/call", {**retry, "requestState": "st-1"}, 2)[0][0] == "server"
    assert cause(talk.modern("tools/call", {**retry, "requestState": "st-2"}, 3)[0]) == "not_found"


# -- what is in flight when a grant ends ------------------------------------------------------------------------------

GONE = ("server", cancelled(7, "the caller's grant has ended"))


def test_a_call_in_flight_ends_with_its_grant():
    """The client gets the refusal, the server the cancellation, and the late answer is recorded but not shown."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 7))
    talk.caller.allowed.clear()
    refused, said = talk.effects(talk.session.grants_changed(talk.clock))
    assert cause(refused) == "out_of_scope"
    assert refused[1]["id"] == 7
    assert refused[1]["error"]["data"]["retry"] is False
    assert "under way" in refused[1]["error"]["message"]
    assert said == GONE
    assert talk.answer({"content": []}, 7) == []
    late = talk.audit.entries[-1]
    assert (late.kind, late.verdict, late.cause) == ("result", "ok", "out_of_scope")
    assert talk.session.outstanding == {}


def test_what_still_has_its_grant_goes_on():
    """A change that takes nothing from a call leaves it alone, whoever else's grant it was."""
    talk = Dialogue(ECHO, ("call_tool", "other")).initialize()
    talk.client(call("echo", 7), call("other", 8))
    talk.caller.allowed.discard(("call_tool", "other"))
    said = talk.effects(talk.session.grants_changed(talk.clock))
    assert [body.get("id") for _, body in said] == [8, None]
    assert talk.answer({"content": []}, 7) == [("client", {"jsonrpc": "2.0", "id": 7, "result": {"content": []}})]


def test_an_expired_grant_ends_it_at_the_next_look():
    """Nobody says that a grant has run out: the periodic look finds it, once."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 7))
    talk.caller.admitted = False
    talk.caller.allowed.clear()
    assert [who for who, _ in talk.effects(talk.session.tick(talk.clock))] == ["client", "server"]
    assert talk.effects(talk.session.tick(talk.clock)) == []


def test_a_call_that_used_its_grant_up_goes_on():
    """A grant for one use is gone because of the call: that does not end the call, but a policy that forbids it does."""
    talk = Dialogue(ECHO).initialize()
    talk.caller.once = {ECHO}
    talk.client(call("echo", 7))
    assert talk.caller.allowed == set()
    assert talk.effects(talk.session.grants_changed(talk.clock)) == []
    talk.caller.forbidden = True
    assert cause(talk.effects(talk.session.grants_changed(talk.clock))[0]) == "policy_forbid"


def test_it_is_decided_again_as_it_was_decided_first():
    """A policy that counts calls counts those before the request, not the request itself."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 7))
    talk.session.grants_changed(talk.clock)
    assert talk.caller.decided_as_after == [1]


def test_the_id_of_a_withdrawn_call_stays_taken():
    """A late answer must not pass for that of a new request with the same id."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 7))
    talk.caller.allowed.clear()
    talk.session.grants_changed(talk.clock)
    talk.caller.allowed = {ECHO}
    assert cause(talk.client(call("echo", 7))[0]) == "malformed"
    assert talk.answer({"content": ["old"]}, 7) == []
    assert talk.client(call("echo", 7)) == [("server", call("echo", 7))]


def test_a_withdrawn_call_is_answered_once():
    """Neither a malformed answer, nor the end of the server, nor its progress says anything more to the client."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 7, _meta={"progressToken": "p"}))
    assert talk.server(tell("notifications/progress", {"progressToken": "p", "progress": 1})) != []
    talk.caller.allowed.clear()
    talk.session.grants_changed(talk.clock)
    assert talk.server(tell("notifications/progress", {"progressToken": "p", "progress": 2})) == []
    gone = talk.effects(talk.session.server_gone(Cause.SERVER_UNAVAILABLE, "it ended", talk.clock))
    assert gone == [("end", "server_unavailable")]


def test_a_cancelled_call_is_not_refused_but_not_shown_either():
    """The client asked for no answer: it gets no refusal, and no late result."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 7), tell("notifications/cancelled", {"requestId": 7}))
    talk.caller.allowed.clear()
    assert talk.effects(talk.session.grants_changed(talk.clock)) == []
    assert talk.answer({"content": []}, 7) == []


def test_a_draining_session_ends_when_its_last_call_is_taken_back():
    """Nothing is left to wait for."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 7))
    talk.session.client_closed(talk.clock)
    talk.caller.allowed.clear()
    said = talk.effects(talk.session.grants_changed(talk.clock))
    assert [who for who, _ in said] == ["client", "server", "end"]


def test_an_initialize_in_flight_is_refused_but_never_cancelled():
    """The specification forbids to cancel it."""
    talk = Dialogue()
    talk.request("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x"}}, 7)
    talk.caller.admitted = False
    (said,) = talk.effects(talk.session.grants_changed(talk.clock))
    assert cause(said) == "no_grant"


def test_a_recall_that_cannot_be_recorded_is_one_all_the_same():
    """A full disk does not keep a call alive: the client is told so, and that the server may have done it."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 7))
    talk.caller.allowed.clear()
    talk.audit.full = True
    refused, said = talk.effects(talk.session.grants_changed(talk.clock))
    assert cause(refused) == "audit_unavailable"
    assert refused[1]["error"]["data"]["retry"] is False
    assert said == GONE
    assert talk.answer({"content": []}, 7) == []


def test_a_failure_to_decide_again_withdraws():
    """What cannot be decided is not permitted."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 7))
    talk.caller.allowed.add(("call_tool", "more"))
    talk.caller.broken = RuntimeError("bug")
    assert cause(talk.effects(talk.session.grants_changed(talk.clock))[0]) == "internal"


def test_a_listen_stream_ends_with_the_grant():
    """The stream's request is refused, the server told, and no frame of that stream is shown afterwards."""
    uri = "file:///a"
    talk = Dialogue(("subscribe", uri), ("read_resource", uri))
    talk.modern(
        "subscriptions/listen", {"notifications": {"resourceSubscriptions": [uri], "toolsListChanged": True}}, 7
    )
    tag = {"_meta": {META_SUBSCRIPTION: 7}}
    updated = tell("notifications/resources/updated", {"uri": uri, **tag})
    acknowledged = tell("notifications/subscriptions/acknowledged", {"notifications": {}, **tag})
    changed = tell("notifications/tools/list_changed", tag)
    for frame in (acknowledged, updated, changed):
        assert talk.server(frame) == [("client", frame)]
    talk.caller.allowed.discard(("subscribe", uri))
    refused, said = talk.effects(talk.session.grants_changed(talk.clock))
    assert (cause(refused), refused[1]["id"]) == ("out_of_scope", 7)
    assert said == GONE
    assert talk.server(updated, changed, acknowledged) == []


def test_a_question_in_flight_ends_with_the_grant_that_accepted_it():
    """The server is refused, the client told that nobody waits, and its answer goes nowhere."""
    talk = Dialogue(("elicit", "")).initialize()
    question = {"jsonrpc": "2.0", "id": 3, "method": "elicitation/create", "params": {}}
    assert talk.server(question) == [("client", question)]
    talk.caller.allowed.clear()
    refused, told = talk.effects(talk.session.grants_changed(talk.clock))
    assert (refused[0], refused[1]["id"], refused[1]["error"]["code"]) == ("server", 3, -31403)
    assert told == ("client", cancelled(3, "no grant accepts it any more"))
    assert talk.client({"jsonrpc": "2.0", "id": 3, "result": {"action": "accept"}}) == []


# -- after the effect -------------------------------------------------------------------------------------------------


def test_an_answer_that_cannot_be_recorded_is_no_reason_to_call_again():
    """The server has done it: the refusal says so, and that it must not be sent again."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 7))
    talk.audit.full = True
    (said,) = talk.answer({"content": []}, 7)
    assert cause(said) == "audit_unavailable"
    assert said[1]["error"]["data"]["retry"] is False
    assert "the server has done it" in said[1]["error"]["message"]
    assert "do not send it again" in said[1]["error"]["message"]


def test_a_call_that_cannot_be_recorded_may_be_sent_again():
    """Nothing was forwarded."""
    talk = Dialogue(ECHO).initialize()
    talk.audit.full = True
    (said,) = talk.client(call("echo", 7))
    assert cause(said) == "audit_unavailable"
    assert said[1]["error"]["data"]["retry"] is True


def test_a_server_that_went_may_have_done_what_it_had():
    """Calls that reached it are not to be repeated blindly; lists may be."""
    talk = Dialogue(ECHO).initialize()
    talk.client(call("echo", 7), ask("tools/list", None, 8))
    said = talk.effects(talk.session.server_gone(Cause.SERVER_UNAVAILABLE, "it ended", talk.clock))
    assert [body["error"]["data"]["retry"] for who, body in said if who == "client"] == [False, True]
    fresh = Dialogue(ECHO).initialize()
    fresh.client(call("echo", 7))
    said = fresh.effects(fresh.session.server_failed(Cause.SERVER_UNAVAILABLE, "it does not start", fresh.clock))
    assert said[0][1]["error"]["data"]["retry"] is True


# -- the next page of a list as proof ---------------------------------------------------------------------------------

URI = "file:///a"
LISTEN = {"notifications": {"resourceSubscriptions": [URI]}}
TOOLS = {"resultType": "complete", "tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}


def relayed() -> Dialogue:
    """A modern client behind the shim that may call, read and subscribe."""
    return Dialogue(ECHO, ("subscribe", URI), ("read_resource", URI), relayed=True)


def test_the_first_list_of_an_unproven_modern_client_has_one_more_page():
    """Its cursor is the challenge; who asks for that page gets an empty one and is proven, so that it may listen."""
    talk = relayed()
    talk.modern("tools/list", {}, 1)
    ((_, first),) = talk.answer(TOOLS, 1)
    assert [tool["name"] for tool in first["result"]["tools"]] == ["echo"]
    assert first["result"]["nextCursor"] == SECRET
    assert cause(talk.modern("subscriptions/listen", LISTEN, 2)[0]) == "unproven"
    ((who, second),) = talk.modern("tools/list", {"cursor": SECRET}, 3)
    assert who == "client", "the server is not asked for a page that it does not have"
    assert second["result"]["tools"] == []
    assert "nextCursor" not in second["result"]
    assert second["result"]["cacheScope"] == "private"
    assert [who for who, _ in talk.modern("subscriptions/listen", LISTEN, 4)] == ["server"]
    assert talk.audit.of("result")[-1].method == "tools/list"


def test_the_servers_own_cursor_survives():
    """It goes with the challenge to the client and without it to the server; once proven, cursors are the server's."""
    talk = relayed()
    talk.modern("tools/list", {}, 1)
    ((_, first),) = talk.answer({**TOOLS, "nextCursor": "a.b"}, 1)
    assert first["result"]["nextCursor"] == f"{SECRET}.a.b"
    ((who, asked),) = talk.modern("tools/list", {"cursor": f"{SECRET}.a.b"}, 2)
    assert (who, asked["params"]["cursor"]) == ("server", "a.b")
    ((_, second),) = talk.answer({**TOOLS, "nextCursor": "c"}, 2)
    assert second["result"]["nextCursor"] == "c"
    ((who, asked),) = talk.modern("tools/list", {"cursor": f"{SECRET}.a.b"}, 3)
    assert (who, asked["params"]["cursor"]) == ("server", "a.b"), "a page that was kept for later"


@pytest.mark.parametrize("cursor", ["attestd-", SECRET + "x", "x" + SECRET, SECRET.upper(), 7, [SECRET], None])
def test_another_cursor_is_no_proof(cursor: Any):
    """It goes to the server as it is and proves nothing."""
    talk = relayed()
    talk.modern("tools/list", {}, 1)
    talk.answer(TOOLS, 1)
    ((who, asked),) = talk.modern("tools/list", {"cursor": cursor}, 2)
    assert (who, asked["params"]["cursor"]) == ("server", cursor)
    assert cause(talk.modern("subscriptions/listen", LISTEN, 3)[0]) == "unproven"


def test_a_cursor_before_the_challenge_was_given_is_no_proof():
    """What waited in the pipe cannot know the challenge; and a guess that comes before it was sent counts for nothing."""
    talk = relayed()
    talk.modern("tools/list", {"cursor": SECRET}, 1)
    assert cause(talk.modern("subscriptions/listen", LISTEN, 2)[0]) == "unproven"


def test_nobody_else_sees_a_challenge_in_a_list():
    """Not on a direct socket, not in the legacy era, not after the proof."""
    direct = Dialogue(ECHO)
    direct.modern("tools/list", {}, 1)
    assert "nextCursor" not in direct.answer(TOOLS, 1)[0][1]["result"]
    legacy = Dialogue(ECHO, relayed=True).initialize()
    legacy.request("tools/list", {}, 1)
    assert "nextCursor" not in legacy.answer(TOOLS, 1)[0][1]["result"]
    proven = relayed()
    ((_, asked),) = proven.modern("tools/call", {"name": "echo"}, 1)
    proven.modern("tools/call", {"name": "echo", "requestState": asked["result"]["requestState"]}, 2)
    proven.modern("tools/list", {}, 3)
    assert "nextCursor" not in proven.answer(TOOLS, 3)[0][1]["result"]
