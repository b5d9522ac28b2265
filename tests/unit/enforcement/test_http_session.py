"""A session over HTTP: where each message goes, streams that break, and the ends of the three kinds."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from attestd.enforcement import http_session as module
from attestd.enforcement.link import ServerError
from attestd.errors import Cause
from tests.support.http_inside import HELLO, INITIALIZE, META, HttpInside, Web
from tests.support.waiting import until


def call(message_id: int | str, token: str | None = None, name: str = "echo") -> dict[str, object]:
    """tools/call."""
    meta = {"_meta": {"progressToken": token}} if token else {}
    return {"jsonrpc": "2.0", "id": message_id, "method": "tools/call", "params": {"name": name, **meta}}


def modern(message_id: int | str, method: str = "tools/list", **params: object) -> dict[str, object]:
    """A request of 2026-07-28."""
    return {"jsonrpc": "2.0", "id": message_id, "method": method, "params": {**params, "_meta": META}}


def result(message_id: int | str, text: str = "x") -> dict[str, object]:
    """An answer of the server."""
    return {"jsonrpc": "2.0", "id": message_id, "result": {"content": [{"type": "text", "text": text}]}}


def progress(token: str, message: str = "") -> dict[str, object]:
    """Progress."""
    said = {"message": message} if message else {}
    params = {"progressToken": token, "progress": 1, **said}
    return {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}


LOG = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "said"}}
CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
ROOTS = {"jsonrpc": "2.0", "id": 7, "method": "roots/list"}
HEADERS = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/list"}


@pytest.fixture(name="inside")
async def _inside() -> AsyncIterator[HttpInside]:
    inside = HttpInside(("call_tool", "echo"), ("list_roots", ""), ("subscribe", "file:///a"))
    yield inside
    inside.close()


async def test_an_answer_is_json_on_its_own_exchange(inside: HttpInside):
    """Answered in another order than asked, each where it was asked."""
    one, two = inside.connect(), inside.connect()
    session = await inside.session(one)
    await one.post(call(1), mcp_session_id=session)
    await inside.forwarded()
    await two.post(call(2), mcp_session_id=session)
    await inside.forwarded()
    await inside.far.send(result(2), result(1))
    for web, message_id in ((one, 1), (two, 2)):
        answer = await web.response()
        assert answer.headers["content-type"] == "application/json"
        assert answer.json["id"] == message_id


async def test_progress_makes_a_stream_of_its_exchange(inside: HttpInside):
    """Progress goes to whoever gave the token; the answer ends the stream; every event has an id."""
    one, two = inside.connect(), inside.connect()
    session = await inside.session(one)
    await one.post(call(1, "t1"), mcp_session_id=session)
    await two.post(call(2, "t2"), mcp_session_id=session)
    await inside.forwarded()
    await inside.forwarded()
    await inside.far.send(progress("t2"), result(1), result(2))
    assert (await one.response()).json["id"] == 1
    stream = await two.response()
    assert [message.get("method", message.get("id")) for message in stream.messages] == ["notifications/progress", 2]
    assert [event["id"] for event in stream.events] == ["ab.1.0", "ab.1.1", "ab.1.2"]


async def test_who_asked_for_progress_gets_its_stream_when_the_servers_begins(inside: HttpInside):
    """Before anything was said on it, and it can be resumed from there; other calls are still answered as JSON."""
    one, two, again = inside.connect(), inside.connect(), inside.connect()
    session = await inside.session(one)
    await one.post(call(1, "t1"), mcp_session_id=session)
    await two.post(call(2), mcp_session_id=session)
    await inside.forwarded()
    await inside.forwarded()
    for number in (1, 2, 3):
        inside.sessions[0].server_streams(number)
    begun = await one.response(1)
    assert (begun.headers["content-type"], begun.messages) == ("text/event-stream", [])
    one.far.close()
    await until(lambda: inside.gone == 1)
    await inside.far.send(result(1), result(2))
    assert (await two.response()).headers["content-type"] == "application/json"
    last = begun.events[0]["id"]
    await again.post(None, method="GET", mcp_session_id=session, last_event_id=last)
    assert [message["id"] for message in (await again.response()).messages] == [1]


async def test_no_stream_begins_where_its_client_takes_none(inside: HttpInside):
    """It gets JSON, as it asked."""
    one = inside.connect()
    session = await inside.session(one)
    await one.post(call(1, "t"), mcp_session_id=session, accept="application/json")
    await inside.forwarded()
    inside.sessions[0].server_streams(1)
    await inside.far.send(result(1))
    assert (await one.response()).json["id"] == 1


async def test_no_stream_begins_before_the_session_is_established(inside: HttpInside):
    """The session's name stands in the head of the answer to initialize."""
    one = inside.connect()
    params = {**INITIALIZE, "_meta": {"progressToken": "t"}}
    await one.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
    await inside.forwarded()
    inside.sessions[0].server_streams(0)
    await inside.far.send({"jsonrpc": "2.0", "id": 0, "result": HELLO})
    assert (await one.response()).headers["mcp-session-id"] == inside.sessions[0].name


@pytest.mark.parametrize("asked", [{"progressToken": "t"}, {"io.modelcontextprotocol/logLevel": "info"}])
async def test_a_stream_of_the_modern_era_begins_with_the_servers(inside: HttpInside, asked: dict[str, str]):
    """An error in it is an event: the status has been said."""
    one = inside.connect()
    body = modern(1)
    body["params"] = {"_meta": {**META, **asked}}
    await one.post(body, **HEADERS)
    await inside.forwarded()
    inside.sessions[0].server_streams(1)
    await inside.far.send({"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "no"}})
    answer = await one.response()
    assert (answer.status, answer.messages[0]["error"]["code"]) == (200, -32602)


async def test_a_question_of_the_server_goes_to_the_oldest_exchange(inside: HttpInside):
    """Its answer comes as another POST, which is taken with 202."""
    one, two = inside.connect(), inside.connect()
    session = await inside.session(one)
    await one.post(call(1), mcp_session_id=session)
    await inside.forwarded()
    await inside.far.send(ROOTS, LOG)
    assert [m["method"] for m in (await one.response(3)).messages] == ["roots/list", "notifications/message"]
    assert (await two.ask({"jsonrpc": "2.0", "id": 7, "result": {"roots": []}}, mcp_session_id=session)).status == 202
    assert (await inside.forwarded())["result"] == {"roots": []}


async def test_what_is_about_no_request_waits_for_the_clients_stream(inside: HttpInside):
    """It is kept until there is one, and goes there even while a request is open."""
    one, own = inside.connect(), inside.connect()
    session = await inside.session(one)
    await one.post(call(1), mcp_session_id=session)
    await inside.forwarded()
    await inside.far.send(CHANGED)
    await until(lambda: inside.sessions[0]._log.held > 0)
    await own.post(None, method="GET", mcp_session_id=session, accept="text/event-stream")
    assert (await own.response(2)).messages == [CHANGED]
    await inside.far.send(CHANGED, result(1))
    assert len((await own.response(3)).messages) == 2
    assert (await one.response()).json["id"] == 1


async def begun(inside: HttpInside, one: Web) -> tuple[str, str]:
    """A call whose answer has become a stream; its session, and the last event."""
    session = await inside.session(one)
    await one.post(call(1, "t"), mcp_session_id=session)
    await inside.forwarded()
    await inside.far.send(progress("t"))
    return session, (await one.response(2)).events[-1]["id"]


async def test_a_broken_stream_is_resumed_where_it_broke(inside: HttpInside):
    """The answer that came meanwhile is delivered with the rest, and the stream ends."""
    one, again = inside.connect(), inside.connect()
    session, last = await begun(inside, one)
    one.far.close()
    await until(lambda: inside.gone == 1)
    await inside.far.send(progress("t"))
    await again.post(None, method="GET", mcp_session_id=session, last_event_id=last)
    assert len((await again.response(2)).messages) == 1
    await inside.far.send(result(1))
    assert [m.get("id") for m in (await again.response()).messages] == [None, 1]
    assert (await again.ask(None, method="GET", mcp_session_id=session, last_event_id="cd.0.1")).status == 404


async def test_older_revisions_get_no_empty_event(inside: HttpInside):
    """Their clients take an event without data for a message."""
    one = inside.connect()
    session = await inside.session(one, version="2025-06-18")
    await one.post(call(1, "t"), mcp_session_id=session)
    await inside.forwarded()
    await inside.far.send(progress("t"), result(1))
    assert [bool(event["data"]) for event in (await one.response()).events] == [True, True]


async def test_an_answer_that_takes_long_becomes_a_stream(inside: HttpInside, monkeypatch: pytest.MonkeyPatch):
    """Clients give up on a silent answer; on a stream they hear that it is alive."""
    one = inside.connect()
    session = await inside.session(one)
    await one.post(call(1), mcp_session_id=session)
    await inside.forwarded()
    inside.sessions[0].tick()
    monkeypatch.setattr(module, "STREAM_S", 0.0)
    inside.sessions[0].tick()
    stream = await one.response(1)
    assert stream.headers["content-type"] == "text/event-stream"
    assert b": ping" in stream.body
    await inside.far.send(result(1))
    assert (await one.response()).messages[-1]["id"] == 1


async def test_closing_a_stream_cancels_in_the_modern_era(inside: HttpInside):
    """The server is told; a late answer goes nowhere."""
    one = inside.connect()
    await one.post(modern(5), **HEADERS)
    assert (await inside.forwarded())["id"] == 5
    one.far.close()
    assert (await inside.forwarded())["params"]["requestId"] == 5
    await inside.far.send({"jsonrpc": "2.0", "id": 5, "result": {"tools": []}})
    await until(lambda: not inside.sessions[0].session.outstanding)


async def test_closing_an_exchange_cancels_nothing_in_the_legacy_era(inside: HttpInside):
    """There a broken connection is an accident."""
    one = inside.connect()
    session = await inside.session(one)
    await one.post(call(1), mcp_session_id=session)
    await inside.forwarded()
    one.far.close()
    await until(lambda: inside.gone == 1)
    await inside.far.send(result(1))
    await until(lambda: not inside.sessions[0].session.outstanding)


async def test_what_a_subscription_tells_goes_to_its_stream(inside: HttpInside):
    """By the subscription's id, although another request is open."""
    one, two = inside.connect(), inside.connect()
    listen = modern("sub", "subscriptions/listen", notifications={"resourceSubscriptions": ["file:///a"]})
    await one.post(listen, mcp_protocol_version="2026-07-28", mcp_method="subscriptions/listen")
    await inside.forwarded()
    await two.post(modern(2), **HEADERS)
    await inside.forwarded()
    told = {"uri": "file:///a", "_meta": {"io.modelcontextprotocol/subscriptionId": "sub"}}
    inside.callers[0].allowed.add(("subscribe", "file:///a"))
    await inside.far.send({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": told})
    await inside.far.send({"jsonrpc": "2.0", "id": 2, "result": {"tools": []}})
    assert (await two.response()).headers["content-type"] == "application/json"
    inside.callers[0].allowed.add(("read_resource", "file:///a"))


async def test_errors_have_their_status_in_the_modern_era(inside: HttpInside):
    """-32601 is 404; a refusal of ours is 200."""
    one = inside.connect()
    await one.post(modern(1, "server/discover"), mcp_protocol_version="2026-07-28", mcp_method="server/discover")
    await inside.forwarded()
    await inside.far.send({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no"}})
    assert (await one.response()).status == 404
    headers = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/call", "mcp_name": "other"}
    refused = await one.ask(modern(2, "tools/call", name="other"), **headers)
    assert (refused.status, refused.json["error"]["code"]) == (200, -31403)


async def test_a_session_that_was_not_admitted_is_none(inside: HttpInside):
    """The refusal answers initialize; there is no session id and nothing is kept."""
    inside.admitted = False
    one = inside.connect()
    await one.post({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}})
    answer = await one.response()
    assert "error" in answer.json
    assert "mcp-session-id" not in answer.headers
    assert inside.sessions == []


async def test_a_server_that_ends_takes_its_session_along(inside: HttpInside):
    """What waited is refused, and the session does not exist any more."""
    one = inside.connect()
    session = await inside.session(one)
    await one.post(call(1), mcp_session_id=session)
    await inside.forwarded()
    inside.far.close()
    assert (await one.response()).json["error"]["data"]["cause"] == "server_unavailable"
    assert (await one.ask(call(2), mcp_session_id=session)).status == 404


async def test_a_server_that_cannot_be_reached_is_tried_again(inside: HttpInside):
    """The request is refused; a later one opens it."""
    one = inside.connect()
    inside.trouble = ServerError(Cause.SERVER_UNAVAILABLE, "it is not there")
    refused = await one.ask(modern(1), **HEADERS)
    assert refused.json["error"]["data"]["cause"] == "server_unavailable"
    inside.trouble = None
    await one.post(modern(1), **HEADERS)
    assert (await inside.forwarded())["id"] == 1


async def test_a_pool_that_nobody_uses_ends(inside: HttpInside, monkeypatch: pytest.MonkeyPatch):
    """And its back end with it."""
    one = inside.connect()
    await one.post(modern(1), **HEADERS)
    await inside.forwarded()
    await inside.far.send({"jsonrpc": "2.0", "id": 1, "result": {"tools": []}})
    await one.response()
    monkeypatch.setattr(module, "POOL_IDLE_S", -1.0)
    inside.sessions[0].tick()
    assert inside.ended == [("", "nobody used it")]
    assert inside.backs[0].stopped == 1


async def test_http_and_sse(inside: HttpInside):
    """The stream names the address; everything comes on it; the session ends with it."""
    stream, post = inside.connect(), inside.connect()
    await stream.post(None, "/sse", "GET")
    address = (await stream.response(1)).events[0]
    assert address["event"] == "endpoint"
    hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2024-11-05"}}
    assert (await post.ask(hello, address["data"])).status == 202
    await inside.forwarded()
    result = {"protocolVersion": "2024-11-05", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
    await inside.far.send({"jsonrpc": "2.0", "id": 0, "result": result})
    assert (await post.ask(call(1, "t"), address["data"])).status == 202
    await inside.forwarded()
    await inside.far.send(progress("t"))
    refused = call(2, name="other")
    assert (await post.ask(refused, address["data"])).status == 202
    said = (await stream.response(4)).events[1:]
    assert [event["event"] for event in said] == ["message"] * 3
    stream.far.close()
    await until(lambda: inside.sessions == [])
    assert (await post.ask(call(3), address["data"])).status == 404


async def test_http_and_sse_is_of_the_legacy_era(inside: HttpInside):
    """A client of both eras that asks server/discover there is told to fall back; the server is not asked."""
    stream, post = inside.connect(), inside.connect()
    await stream.post(None, "/sse", "GET")
    address = (await stream.response(1)).events[0]["data"]
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    discover = {"jsonrpc": "2.0", "id": 0, "method": "server/discover", "params": {"_meta": meta}}
    assert (await post.ask(discover, address)).status == 202
    refused = json.loads((await stream.response(2)).events[1]["data"])
    assert (refused["id"], refused["error"]["code"]) == (0, -32601)
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}}
    assert (await post.ask(hello, address)).status == 202
    assert (await inside.forwarded())["method"] == "initialize"


async def test_changed_grants_are_told_on_the_clients_stream(inside: HttpInside):
    """Although a request is open."""
    one, own = inside.connect(), inside.connect()
    session = await inside.session(one)
    await own.post(None, method="GET", mcp_session_id=session)
    await own.response(1)
    await one.post(call(1), mcp_session_id=session)
    await inside.forwarded()
    inside.sessions[0].grants_changed()
    assert (await own.response(2)).messages == [CHANGED]
    assert inside.sessions[0].backlog == 0
