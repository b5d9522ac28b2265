"""HTTP in front of stdio servers: SDK clients and requests by hand, over the loopback port and the Unix socket."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_client import ON_TCP, PLACES, Caller, admit, calling, loopback_port
from tests.support.instance import Instance, cause, running

SUPPORT = Path(__file__).parents[1] / "support"
EVERY = ("--all-tools", "--resource", "*", "--prompt", "*")


class Desk:
    """An instance that listens on a port too, where it can."""

    def __init__(self, instance: Instance, port: int) -> None:
        self.instance = instance
        self.port = port
        self.mark = 0
        self.client = instance.script("sdk_client.py", (SUPPORT / "sdk_client.py").read_text(encoding="utf-8"))

    def run(self, kind: str, mode: str, place: str, *steps: Any, server: str = "everything") -> list[Any]:
        """What each step said."""
        sse = place.startswith("sse-")
        end = "sse" if sse else "mcp"
        where = {
            "tcp": (f"http://127.0.0.1:{self.port}/{server}/{end}", ""),
            "tcp6": (f"http://[::1]:{self.port}/{server}/{end}", ""),
            "unix": (f"http://localhost/{end}", str(self.instance.socket(server))),
        }[place.removeprefix("sse-")]
        words = [sys.executable, "-W", "ignore", str(self.client), kind, mode, ("sse+" if sse else "") + where[0]]
        words += [where[1], server, *map(json.dumps, steps)]
        environment = {**self.instance.environment, "FASTMCP_CHECK_FOR_UPDATES": "off"}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def good(self, kind: str, mode: str, place: str, *steps: Any) -> list[Any]:
        """What each step said, all of them well."""
        said = self.run(kind, mode, place, *steps)
        assert all("ok" in each for each in said), said
        return [each["ok"] for each in said]

    def place(self, place: str, server: str = "echo") -> Any:
        """For a client by hand."""
        return str(self.instance.socket(server)) if place == "unix" else ("127.0.0.1", self.port)


@pytest.fixture(scope="module", name="desk")
def _desk() -> Iterator[Desk]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    port = loopback_port()
    with running(root, listen={"port": port}) as instance:
        desk = Desk(instance, port)
        instance.server("everything", command=[sys.executable, str(SUPPORT / "sdk_server.py")])
        instance.ctl("reload")
        asks = [word for kind in ("sampling", "elicitation", "roots") for word in ("--server-request", kind)]
        (refused,) = desk.run("mcp", "legacy", "unix")
        instance.approve(refused["data"]["code"], *EVERY, *asks)
        admit(instance, desk.place("unix"), *EVERY)
        desk.good(
            "mcp", "legacy", "unix", ["call", "add", {"a": 1, "b": 2}]
        )  # the launcher lives on from the first call
        yield desk
    shutil.rmtree(root, ignore_errors=True)


# -- SDK clients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("place", [*PLACES, pytest.param("tcp6", marks=ON_TCP)])
def test_the_sdk_over_streamable_http(desk: Desk, place: str, mode: str):
    """Tools, calls, progress, cancellation, questions of the server and a large result, in either era."""
    said = desk.good(
        "mcp",
        mode,
        place,
        ["era"],
        ["tools"],
        ["call", "add", {"a": 1, "b": 2}],
        ["progress"],
        ["cancel"],
        ["call", "greet", {}],
        ["call", "think", {}],
        ["call", "where", {}],
        ["size", "big", {"size": 3 << 20}],
    )
    assert said[0] == ("2025-11-25" if mode == "legacy" else "2026-07-28")
    assert "add" in said[1]
    assert said[2:] == ["3", [[1.0, 2.0, "half"]], True, "hello Ada", "it says 42", "file:///project/here", 3 << 20]


@pytest.mark.parametrize("place", PLACES)
def test_large_results_in_streams(desk: Desk, place: str):
    """One after the other, for a client that takes nothing else: none of them holds up what follows."""
    with calling(desk.instance, desk.place(place)) as caller:
        caller.initialize()
        for _ in range(2):
            call = {"name": "big", "arguments": {"size": 8 << 20}}
            answer = caller.request("tools/call", call, accept="text/event-stream")
            assert len(answer.messages[-1]["result"]["content"][0]["text"]) == 8 << 20
        assert "result" in caller.call().json


@pytest.mark.parametrize("place", PLACES)
def test_legacy_subscriptions_and_log_come_on_the_clients_stream(desk: Desk, place: str):
    """What is about no request arrives on the GET stream."""
    said = desk.good(
        "mcp",
        "legacy",
        place,
        ["subscribe", "notes://one"],
        ["call", "note", {"name": "one", "text": "new"}],
        ["told", "updated"],
        ["told", "log"],
        ["ping"],
    )
    assert said == [True, "noted", "notes://one", "noted one", True]


@pytest.mark.parametrize("place", PLACES)
def test_modern_subscription_on_its_stream(desk: Desk, place: str):
    """Listening is the first effect of this client: it is proven by being sent again to an address told to it."""
    (event,) = desk.good("mcp", "auto", place, ["listen", "notes://one", "one"])
    assert event == "notes://one"


@pytest.mark.parametrize("place", [pytest.param("sse-tcp", marks=ON_TCP), "sse-unix"])
def test_the_sdk_over_http_and_sse(desk: Desk, place: str):
    """The transport of 2024-11-05."""
    said = desk.good(
        "mcp",
        "legacy",
        place,
        ["tools"],
        ["call", "add", {"a": 1, "b": 2}],
        ["progress"],
        ["cancel"],
        ["call", "greet", {}],
        ["subscribe", "notes://one"],
        ["call", "note", {"name": "one", "text": "new"}],
        ["told", "updated"],
    )
    assert said[1:] == ["3", [[1.0, 2.0, "half"]], True, "hello Ada", True, "noted", "notes://one"]


@pytest.mark.parametrize("place", PLACES)
def test_fastmcp(desk: Desk, place: str):
    """Another client library."""
    assert desk.good("fastmcp", "auto", place, ["call", "add", {"a": 1, "b": 2}], ["read", "notes://one"]) == [
        "3",
        "first",
    ]


# -- by hand --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=PLACES, name="caller")
def _caller(desk: Desk, request: pytest.FixtureRequest) -> Iterator[Caller]:
    with calling(desk.instance, desk.place(request.param)) as caller:
        yield caller


def test_a_session_from_beginning_to_end(caller: Caller):
    """Initialize gives a session id, calls need it, DELETE ends it and then it does not exist."""
    answer = caller.initialize()
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert len(caller.session) >= 32
    assert caller.call(text="x").json["result"]["content"][0]["text"] == '{"text": "x"}'
    assert caller.call(connection="b", text="y").status == 200
    assert caller.ask(None, method="DELETE").status == 200
    assert caller.call(text="z").status == 404


def test_a_session_outlives_the_connection_that_it_began_on(caller: Caller):
    """Whoever ends that, the next call may come on another connection of the process."""
    caller.initialize()
    caller.hang_up()
    caller.until_ended()
    assert caller.call(connection="b", later=1).json["result"]
    caller.initialize(connection="c")
    assert caller.ask(b"{", "c", content_length="-1").status == 400
    assert caller.until_ended("c") == b""
    assert caller.call(connection="d", later=2).json["result"]


def test_answers_wait_for_their_own_request(caller: Caller):
    """Two requests on two connections of one session are answered each on its own."""
    caller.initialize()
    caller.post({"jsonrpc": "2.0", "id": "s", "method": "tools/call", "params": {"name": "slow"}}, "slow")
    ping = {"jsonrpc": "2.0", "id": "p", "method": "ping", "params": {}}
    caller.post(ping, "b")
    assert caller.response("slow").json["id"] == "s"
    assert caller.response("b").json["id"] == "p"


def test_json_on_several_lines_and_in_chunks(caller: Caller):
    """A body laid out for people, in chunks, is one message."""
    caller.initialize()
    body = json.dumps({"jsonrpc": "2.0", "id": 9, "method": "ping"}, indent=2).encode().replace(b"\n", b"\r\n")
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    head = f"POST {caller.path} HTTP/1.1\r\nHost: {caller.host}\r\nContent-Type: application/json\r\n"
    caller.send(f"{head}Mcp-Session-Id: {caller.session}\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunks)
    assert caller.response().json == {"jsonrpc": "2.0", "id": 9, "result": {}}


def test_a_batch_of_2025_03_26(caller: Caller):
    """Every element is decided and answered by itself, on a stream."""
    caller.initialize("2025-03-26")
    batch = [
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "id": 2, "method": "nonsense"},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
    ]
    answers = {message["id"]: message for message in caller.ask(batch).messages}
    assert answers.keys() == {1, 2}
    assert answers[1]["result"] == {}
    assert answers[2]["error"]["code"] == -32601


def test_a_batch_elsewhere_is_refused(caller: Caller):
    """Other revisions have no batches."""
    caller.initialize()
    answer = caller.ask([{"jsonrpc": "2.0", "id": 1, "method": "ping"}])
    assert answer.status == 400
    assert cause(answer.json) == "batch"


def test_the_clients_stream_and_its_resumption(desk: Desk, caller: Caller):
    """What came while nobody listened is delivered when the client comes back, once and in order."""
    caller.initialize()
    caller.call()
    caller.post(None, "own", method="GET", accept="text/event-stream")
    primed = caller.response("own", events=1)
    assert primed.headers["content-type"] == "text/event-stream"
    first = primed.events[0]["id"]
    caller.hang_up("own")
    caller.until_ended("own")
    admit(desk.instance, desk.place("unix"), mark=f"other{desk.mark}")  # grants have changed
    desk.mark += 1
    caller.post(None, "again", method="GET", accept="text/event-stream", last_event_id=first)
    told = caller.response("again", events=2)
    assert told.messages[0]["method"] == "notifications/tools/list_changed"
    last = told.events[-1]["id"]
    caller.hang_up("again")
    caller.until_ended("again")
    caller.post(None, "third", method="GET", accept="text/event-stream", last_event_id=last)
    assert caller.response("third", events=1).messages == []
    assert caller.ask(None, method="GET", last_event_id="00.0.1").status == 404


def test_modern_requests(caller: Caller):
    """No session: an unproven call is sent again to a told address, or with a told state; behind that all is proven."""
    tools = caller.modern("tools/list").json["result"]["tools"]
    assert {"name": "echo", "inputSchema": {"type": "object"}} in tools
    call = {"name": "echo", "arguments": {}}
    if caller.modern("tools/call", call, "new", follow=False).status == 307:
        wrong = f"{caller.path}?proof=guessed"
        asked = caller.modern("tools/call", call, "new", path=wrong).json["result"]
        if "content" not in asked:  # on a Unix socket the position proves it by now
            assert asked["resultType"] == "input_required"
            again = {**call, "requestState": asked["requestState"]}
            assert "content" in caller.modern("tools/call", again, "new", path=wrong).json["result"]
    assert "content" in caller.modern("tools/call", {"name": "echo", "arguments": {}}, "new").json["result"]


def test_one_id_on_two_connections_of_the_modern_era(caller: Caller):
    """Two clients in one process may use one id at the same time: neither sees the other's answer."""
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/list",
        "params": {
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            }
        },
    }
    headers = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/list"}
    caller.post(body, "a", **headers)
    caller.post(body, "b", **headers)
    assert caller.response("a").json["id"] == caller.response("b").json["id"] == 1


@pytest.mark.parametrize(
    ("keys", "status"),
    [
        ({"content_type": "application/json; charset=utf-7"}, 415),
        ({"content_type": "text/plain"}, 415),
        ({"content_encoding": "gzip"}, 415),
        ({"accept": "text/html"}, 406),
        ({"path": "/nothing/at/all"}, 404),
        ({"path": "/.well-known/oauth-protected-resource", "method": "GET"}, 404),
        ({"method": "PUT"}, 405),
        ({"method": "GET"}, 405),
        ({"mcp_session_id": "no such"}, 400),
        ({"mcp_session_id": "nosuch"}, 404),
        ({"expect": "100-continue"}, 200),
    ],
)
def test_what_is_not_served(caller: Caller, keys: dict[str, Any], status: int):
    """Each with its own status, never 401 and never a challenge to authenticate."""
    body = None if keys.get("method") == "GET" else {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}}
    answer = caller.ask(body, **keys)
    assert answer.status == status
    assert "www-authenticate" not in answer.headers


def test_a_refusal_is_an_answer_with_status_200(desk: Desk):
    """A program without a grant is told so in JSON-RPC, with a code to approve, and gets no session."""
    with calling(desk.instance, desk.place("unix"), mark="nobody") as stranger:
        answer = stranger.initialize()
        assert (answer.status, answer.json["error"]["code"], cause(answer.json)) == (200, -31403, "no_grant")
        assert answer.json["error"]["data"]["code"]
        assert stranger.session == ""
        called = stranger.call()
        assert cause(called.json) == "no_grant"


@ON_TCP
def test_tcp_is_level_one_and_says_why(desk: Desk):
    """The kernel names no writer on TCP."""
    with calling(desk.instance, desk.place("tcp")) as caller:
        caller.initialize()
        found = [s for s in desk.instance.ctl("ps") if s["server"] == "echo"]
        assert found
        assert {s["caller"]["level"] for s in found} == {1}
        assert any("tcp-writer" in json.dumps(s["caller"]["reasons"]) for s in found)


def test_the_process_ends_and_its_sessions_with_it(desk: Desk):
    """No session and no server outlives its client."""
    with calling(desk.instance, desk.place("unix")) as caller:
        caller.initialize()
        caller.call()
        name = desk.instance.ctl("ps")[-1]["session"]
    for _ in range(100):
        if name not in {s["session"] for s in desk.instance.ctl("ps")}:
            return
    raise AssertionError("the session is still there")
