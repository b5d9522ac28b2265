"""The era bridge against clients and servers that say anything: nothing crosses that should not, and nothing is lost."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from attestd.enforcement.bridge_modern import PAUSED_MAX
from attestd.wire.translate import ENVELOPE, envelope, meta_of, without_envelope
from tests.support.bridging import Talk, before_legacy, before_modern, meta

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(TEXT, v, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(TEXT, JSON, max_size=3)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["call", "ask", "retry", "result", "error", "cancel", "listen", "updated"]), st.integers(0, 3)
    ),
    max_size=40,
)


@given(ARGUMENTS, st.dictionaries(TEXT, JSON, max_size=3))
def test_the_envelope_is_all_that_changes(arguments: dict[str, Any], extra: dict[str, Any]):
    """Whatever else a request holds survives the way into either era."""
    params = {"name": "t", "arguments": arguments, "_meta": {**extra, **meta()}}
    bare = without_envelope(params)
    assert bare["arguments"] == arguments
    assert meta_of(bare) == {key: value for key, value in extra.items() if key not in ENVELOPE}
    again = {**bare, "_meta": {**meta_of(bare), **envelope({}, None)}}
    assert without_envelope(again) == bare


@given(ARGUMENTS)
def test_a_result_survives(result: dict[str, Any]):
    """A legacy result reaches a modern client whole, but for the keys that say what it is."""
    result = {f"own {key}": value for key, value in result.items()}
    talk = before_legacy()
    (sent,) = talk.modern("tools/call", 1, name="t").sent
    talk.server(id=sent["id"], result=result)
    assert talk.shown[0]["result"] == {"resultType": "complete", **result}


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_a_modern_client_gets_one_answer_for_each_request(steps: list[tuple[str, int]]):
    """However calls, questions, retries and results interleave: no id of ours is shown, no request is answered twice,
    no request of the server is answered twice, and the memory of unfinished calls is bounded."""
    talk = before_legacy()
    next_id, next_ask = 10, 0
    open_ids: set[Any] = set()
    served: list[str] = []
    states: list[tuple[str, list[str]]] = []
    answered: set[Any] = set()
    for step, which in steps:
        match step:
            case "call":
                next_id += 1
                open_ids.add(next_id)
                talk.modern("tools/call", next_id, name="t", arguments={})
            case "listen":
                next_id += 1
                open_ids.add(next_id)
                talk.modern("subscriptions/listen", next_id, notifications={"resourceSubscriptions": [f"x://{which}"]})
            case "ask":
                next_ask += 1
                talk.server(id=f"ask-{next_ask}", method="roots/list")
            case "retry" if states:
                next_id += 1
                open_ids.add(next_id)
                state, keys = states[which % len(states)]
                answers = {key: {"roots": []} for key in keys[: which + 1]}
                talk.modern("tools/call", next_id, name="t", arguments={}, requestState=state, inputResponses=answers)
            case "result" if served:
                talk.server(id=served[which % len(served)], result={"content": []})
            case "error" if served:
                talk.server(id=served[which % len(served)], error={"code": -1, "message": "no"})
            case "cancel" if open_ids:
                talk.client("notifications/cancelled", requestId=sorted(open_ids)[which % len(open_ids)])
            case "updated":
                talk.server(method="notifications/resources/updated", params={"uri": f"x://{which}"})
            case _:
                continue
        served += [body["id"] for body in talk.sent if "id" in body and "method" in body]
        for body in talk.sent:
            if "method" not in body:
                assert body["id"] not in answered
                answered.add(body["id"])
        for shown in talk.shown:
            assert "method" not in shown or shown["method"].startswith("notifications/")
            if "id" in shown:
                assert shown["id"] in open_ids
                open_ids.discard(shown["id"])
                result = shown.get("result", {})
                if result.get("resultType") == "input_required":
                    states.append((result["requestState"], list(result["inputRequests"])))
        translation: Any = talk.bridge._translation
        assert len(translation._paused) <= PAUSED_MAX


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_a_legacy_client_gets_one_answer_for_each_request(steps: list[tuple[str, int]]):
    """However calls, rounds, answers and results interleave: ids of ours appear as our questions only, and no request
    is answered twice."""
    talk = before_modern()
    next_id = 10
    open_ids: set[Any] = set()
    served: list[str] = []
    asked: list[Any] = []
    question = {"method": "roots/list"}
    for step, which in steps:
        match step:
            case "call":
                next_id += 1
                open_ids.add(next_id)
                talk.client("tools/call", next_id, name="t")
            case "listen":
                next_id += 1
                open_ids.add(next_id)
                talk.client("resources/subscribe", next_id, uri=f"x://{which}")
            case "ask" if served:
                result = {
                    "resultType": "input_required",
                    "inputRequests": {f"q{n}": question for n in range(which)},
                    "requestState": "s",
                }
                talk.server(id=served[which % len(served)], result=result)
            case "retry" if asked:
                talk.answers(asked[which % len(asked)], {"roots": []})
            case "result" if served:
                talk.server(id=served[which % len(served)], result={"resultType": "complete", "content": []})
            case "error" if served:
                talk.server(id=served[which % len(served)], error={"code": -1, "message": "no"})
            case "cancel" if open_ids:
                talk.client("notifications/cancelled", requestId=sorted(open_ids)[which % len(open_ids)])
            case _:
                continue
        served += [body["id"] for body in talk.sent if "id" in body and "method" in body]
        done = [shown["id"] for shown in talk.shown if "id" in shown and "method" not in shown]
        done += [refused.request_id for refused in talk.refused]
        assert len(done) == len(set(done))
        assert set(done) <= open_ids
        open_ids.difference_update(done)
        asked += [shown["id"] for shown in talk.shown if "id" in shown and "method" in shown]
        for body in talk.sent:
            assert "id" not in body or str(body["id"]).startswith("attestd-")


@given(st.lists(st.integers(0, 5), max_size=20))
def test_what_comes_while_the_server_is_asked_is_sent_once_and_in_order(kinds: list[int]):
    """Requests that wait for the era go out when it is known: each once, in the client's order."""
    talk = Talk()
    talk.modern("tools/call", 0, name="t")
    for n, kind in enumerate(kinds, 1):
        talk.modern("tools/call" if kind else "tools/list", n, name="t")
        assert talk.sent == []
    talk.server(id="attestd-discover", error={"code": -32601, "message": "no"})
    talk.server(id="attestd-initialize", result={"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}})
    methods = [body["method"] for body in talk.sent]
    assert methods[0] == "notifications/initialized"
    assert methods[1:] == ["tools/call", *("tools/call" if kind else "tools/list" for kind in kinds)]
