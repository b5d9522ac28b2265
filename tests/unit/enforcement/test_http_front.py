"""What is done with one HTTP request: whose it is, and everything that is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from attestd.enforcement import http_front as module
from attestd.enforcement.http_front import _one_line, _place
from attestd.errors import Cause
from tests.support.http_inside import META, HttpInside
from tests.support.waiting import until

PING: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
CALL: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}}
LISTEN: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": "l",
    "method": "subscriptions/listen",
    "params": {"notifications": {"resourceSubscriptions": ["file:///a"]}, "_meta": META},
}
MODERN = {"mcp_protocol_version": "2026-07-28"}


@pytest.fixture(name="inside")
async def _inside() -> AsyncIterator[HttpInside]:
    inside = HttpInside(("call_tool", "echo"), ("subscribe", "file:///a"), servers=("time", "other"))
    yield inside
    inside.close()


@pytest.mark.parametrize(
    ("path", "own", "found"),
    [
        ("/mcp", "time", ("time", "mcp")),
        ("/", "time", ("time", "mcp")),
        ("/sse", "time", ("time", "sse")),
        ("/time/mcp", "time", ("time", "mcp")),
        ("/other/mcp", "time", (None, "")),
        ("/other/mcp", None, ("other", "mcp")),
        ("/mcp", None, (None, "")),
        ("/", None, (None, "")),
        ("/a/b/mcp", None, (None, "")),
        ("/time/mcp/", None, ("time", "mcp")),
        ("/time/../other/mcp", None, (None, "")),
    ],
)
def test_places(path: str, own: str | None, found: tuple[str | None, str]):
    """On the socket of one server there is only that one."""
    assert _place(path, own) == found


def test_bodies_on_several_lines():
    """Line ends between tokens become spaces; inside a string they stay, and are refused later."""
    assert _one_line(b' {\n"a":\r\n1}\n') == b'{ "a":  1}'
    assert _one_line(b'{"a":"x\ny"}') == b'{"a":"x\ny"}'
    assert _one_line(b"[" * 100_000 + b"\n") == b"[" * 100_000


async def test_a_session_is_the_processs_own(inside: HttpInside):
    """Another process, another level: for them it does not exist, and that is recorded."""
    session = await inside.session(inside.connect())
    for web in (inside.connect(process="boot/2/0"), inside.connect(level=3)):
        assert (await web.ask(PING, mcp_session_id=session)).status == 404
        assert (await web.ask(None, method="DELETE", mcp_session_id=session)).status == 404
        assert (await web.ask(None, method="GET", mcp_session_id=session)).status == 404
    assert inside.refusals == [("time", Cause.NOT_FOUND)] * 6


async def test_the_same_head_again(inside: HttpInside):
    """What followed from it is not asked again, but who may ask now, what the process is now, and each body are."""
    web = inside.connect()
    session = await inside.session(web)
    asking = {"mcp_session_id": session, "origin": "http://page.example"}
    unknown = {**PING, "method": "nothing/such"}
    for _ in range(2):
        assert (await web.ask(unknown, **asking)).json["error"]["code"] == -32601
    inside.origins = ("http://other.example",)
    refused = await web.ask(unknown, **asking)
    assert (refused.status, "Origin" in refused.json["error"]["message"]) == (403, True)
    assert await web.ended()
    inside.origins = ("http://page.example",)
    web = inside.connect()
    assert (await web.ask(unknown, **asking)).status == 200
    inside.watches[-1].found = Cause.IMAGE_CHANGED
    await web.post(unknown, **asking)
    assert await web.ended()
    assert inside.refusals[-1] == ("time", Cause.IMAGE_CHANGED)


@pytest.mark.parametrize(
    ("head", "status", "cause"),
    [
        (
            "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
            400,
            Cause.MALFORMED,
        ),
        ("POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999", 413, Cause.TOO_LARGE),
        ("POST /mcp HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example", 403, Cause.NOT_FOUND),
        ("POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain", 415, Cause.MALFORMED),
        (f"POST /{'x' * 3000} HTTP/1.1\r\nHost: localhost", 414, Cause.TOO_LARGE),
    ],
)
async def test_what_is_refused_as_http_is_recorded(inside: HttpInside, head: str, status: int, cause: Cause):
    """There is no message to decide about, but somebody who tried."""
    web = inside.connect()
    await web.send(f"{head}\r\n\r\n".encode())
    assert (await web.response()).status == status
    assert inside.refusals == [("time", cause)]


async def test_an_event_of_another_session_is_recorded(inside: HttpInside):
    """As what is not there."""
    web = inside.connect()
    session = await inside.session(web)
    answer = await web.ask(
        None, method="GET", mcp_session_id=session, last_event_id="ab.0.1", accept="text/event-stream"
    )
    assert answer.status == 404
    assert inside.refusals == [("time", Cause.NOT_FOUND)]


async def test_a_session_is_of_one_server(inside: HttpInside):
    """Its id means nothing on another one."""
    web = inside.connect(unix=False)
    session = await inside.session(web, "/time/mcp")
    assert (await web.ask(PING, "/other/mcp", mcp_session_id=session)).status == 404
    assert (await web.ask(PING, "/none/mcp")).status == 404


async def test_a_session_id_proves_what_follows(inside: HttpInside):
    """Old bytes cannot hold an id that was told later: a call behind it is served on a connection that proves nothing."""
    web = inside.connect(old=float("inf"))
    unproven = await web.ask(CALL)
    assert unproven.json["error"]["data"]["cause"] == "unproven"
    session = await inside.session(web)
    late = inside.connect(old=float("inf"))
    await late.post(CALL, mcp_session_id=session)
    assert (await inside.forwarded())["method"] == "tools/call"


async def test_an_unknown_id_proves_nothing(inside: HttpInside):
    """Neither an id of nobody nor one of another process."""
    session = await inside.session(inside.connect())
    web = inside.connect(old=float("inf"), process="boot/2/0")
    assert (await web.ask(CALL, mcp_session_id=session)).status == 404
    assert (await web.ask(CALL)).json["error"]["data"]["cause"] == "unproven"


async def test_listening_is_proven_by_an_address(inside: HttpInside):
    """Its answer can carry no challenge, so it is sent to another address; a made-up one proves nothing."""
    web = inside.connect(old=float("inf"))
    headers = {**MODERN, "mcp_method": "subscriptions/listen"}
    wrong = await web.ask(LISTEN, "/mcp?proof=attestd-guess", **headers)
    assert wrong.status == 307 or wrong.json["error"]["data"]["cause"] == "unproven"
    moved = await web.ask(LISTEN, **headers)
    assert moved.status == 307
    await web.post(LISTEN, moved.headers["location"], **headers)
    assert (await inside.forwarded())["method"] == "subscriptions/listen"


async def test_a_parameter_in_a_header_is_compared(inside: HttpInside):
    """400 with -32020 before anything is decided."""
    params = {"name": "regional", "arguments": {"region": "eu"}, "_meta": META}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {**MODERN, "mcp_method": "tools/call", "mcp_name": "regional"}
    wrong = await inside.connect().ask(call, **headers, mcp_param_region="us")
    assert (wrong.status, wrong.json["error"]["code"]) == (400, -32020)
    right = await inside.connect().ask(call, **headers, mcp_param_region="eu")
    assert right.json["error"]["data"]["cause"] == "out_of_scope"


async def test_a_foreign_writer_ends_connection_and_sessions(inside: HttpInside):
    """The first byte of another process is the last of this client."""
    web = inside.connect()
    await inside.session(web)
    strange = inside.connect(pid=1)
    await strange.send(b"P")
    assert await strange.ended()
    assert inside.refusals == [("time", Cause.WRITER_MISMATCH)]
    assert len(inside.sessions) == 1
    inside.front._foreign(next(iter(inside.front.connections)), 1)
    assert inside.sessions == []
    assert inside.ended[0][0] == "writer_mismatch"


async def test_the_oldest_session_makes_room(inside: HttpInside, monkeypatch: pytest.MonkeyPatch):
    """A process that begins too many loses those that it does not use."""
    monkeypatch.setattr(module, "SESSIONS", 2)
    web = inside.connect()
    first, second, third = [await inside.session(web) for _ in range(3)]
    assert (await web.ask(PING, mcp_session_id=first)).status == 404
    for session in (second, third):
        assert (await web.ask({**PING, "method": "nonsense"}, mcp_session_id=session)).json["error"]["code"] == -32601


async def test_sessions_of_a_user_are_counted(inside: HttpInside):
    """Above the limit there is no further one until another ends."""
    inside.limit = 1
    web = inside.connect()
    session = await inside.session(web)
    hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}
    assert (await web.ask(hello)).status == 503
    assert inside.refusals == [("time", Cause.LIMIT_CONNECTIONS)]
    await web.ask(None, method="DELETE", mcp_session_id=session)
    await inside.session(web)


async def test_one_id_twice_needs_two_sessions(inside: HttpInside):
    """Requests of the modern era with one id at the same time do not meet."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
    webs = [inside.connect(), inside.connect()]
    for web in webs:
        await web.post(body, **MODERN, mcp_method="tools/list")
    await until(lambda: len(inside.backs) == 2)
    for number, back in enumerate(inside.backs):
        await back.far.message()
        await back.far.send({"jsonrpc": "2.0", "id": 1, "result": {"tools": [], "ttlMs": number}})
    assert {(await web.response()).json["id"] for web in webs} == {1}


async def test_an_id_that_waits_for_its_turn_is_taken(inside: HttpInside):
    """A request that is not mediated yet has its id already: another one with that id gets another session."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
    webs = [inside.connect() for _ in range(3)]
    await webs[0].post({**body, "id": 0}, **MODERN, mcp_method="tools/list")
    await until(lambda: len(inside.backs) == 1)
    (session,) = (each for kept in inside.front._kept.values() for each in kept)
    session._current = session._calls[0]  # as while the server takes nothing
    for web in webs[1:]:
        await web.post(body, **MODERN, mcp_method="tools/list")
    await until(lambda: len(inside.backs) == 2)
    assert [call.asked for call in session._queue] == [1]
    session._current = None
    session._drain()
    for back, count in zip(inside.backs, (2, 1), strict=True):
        for _ in range(count):
            asked = await back.far.message()
            await back.far.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"tools": [], "ttlMs": 1}})
    assert [(await web.response()).json["id"] for web in webs] == [0, 1, 1]


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://page.example"}, 404),
        ({"origin": "http://127.0.0.1:8080"}, 404),
    ],
)
async def test_host_and_origin_come_first(inside: HttpInside, keys: dict[str, str], status: int):
    """Before the path, which does not exist here either."""
    assert (await inside.connect(unix=False).ask(PING, "/nowhere", **keys)).status == status


async def test_get_and_delete_without_a_session(inside: HttpInside):
    """405, which clients take for: there is no stream here."""
    web = inside.connect()
    for method in ("GET", "DELETE"):
        answer = await web.ask(None, method=method)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert (await web.ask(None, "/message", "GET")).status == 405


async def test_versions_of_a_session(inside: HttpInside):
    """An old one is as good as none; an unknown one is refused as modern."""
    web = inside.connect()
    session = await inside.session(web)
    await web.post(CALL, mcp_session_id=session, mcp_protocol_version="2025-06-18")
    assert (await inside.forwarded())["id"] == 1
    await inside.far.send({"jsonrpc": "2.0", "id": 1, "result": {}})
    assert (await web.response()).status == 200
    unknown = await web.ask(CALL, mcp_session_id=session, mcp_protocol_version="1999-01-01")
    assert unknown.status == 400


async def test_connections_are_looked_at_and_closed(inside: HttpInside):
    """All of them."""
    web = inside.connect()
    inside.front.tick()
    inside.front.close()
    assert await web.ended()
    assert inside.front.connections == set()
