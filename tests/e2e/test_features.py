"""Each feature of the protocol x each pair of eras: it arrives, or it is refused with its cause; never dropped in silence.

Real processes without an SDK on either side, so that nothing else adds or takes away: a client on the Unix socket, the
daemon, and a server of one era on standard streams. The table says what becomes of a feature; a feature's function says
what it sees, ``PASSED`` if everything arrived as it was sent.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.era_server import SUBSCRIPTION, TASKS, TOOLS
from tests.support.instance import Client, Instance, cause, running

SUPPORT = Path(__file__).parents[1] / "support"
MODERN = "2026-07-28"
EVERY = ("--all-tools", "--resource", "*", "--prompt", "*")
ASKS = tuple(word for kind in ("sampling", "elicitation", "roots") for word in ("--server-request", kind))
CAPABILITIES = {"roots": {"listChanged": True}, "sampling": {}, "elicitation": {}}
TRACE = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
    "tracestate": "vendor=value",
    "baggage": "key=value",
    "example.org/own": {"kept": True},
}
INFO = {"name": "c", "version": "1"}
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {**CAPABILITIES, "extensions": {TASKS: {}}},
    "io.modelcontextprotocol/clientInfo": INFO,
}
PASSED, ERA = "passed", "refused: era"
ANSWERS: dict[str, dict[str, Any]] = {
    "elicitation/create": {"action": "accept", "content": {"name": "Ada"}},
    "sampling/createMessage": {"role": "assistant", "content": {"type": "text", "text": "42"}, "model": "m"},
    "roots/list": {"roots": [{"uri": "file:///project"}]},
}


class Caller:
    """A client of one era, past its opening."""

    def __init__(self, client: Client, era: str, log: Path) -> None:
        self.client = client
        self.modern = era == "modern"
        self.log = log
        self.told: list[dict[str, Any]] = []
        self._count = 0
        if self.modern:
            self.request("server/discover", {})  # a legacy server refuses it, and this client goes on all the same
        else:
            opening = {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, "clientInfo": INFO}
            assert self.request("initialize", opening)["result"]
            self.client.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def send(self, method: str, params: dict[str, Any]) -> str:
        """A request; its id."""
        self._count += 1
        if self.modern:
            params = {**params, "_meta": {**META, **params.get("_meta", {})}}
        self.client.send({"jsonrpc": "2.0", "id": f"r{self._count}", "method": method, "params": params})
        return f"r{self._count}"

    def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """A request and its answer; what the server asks in either way is answered, what it tells is kept."""
        answer = self.answer(self.send(method, params))
        result = answer.get("result", {})
        if result.get("resultType") != "input_required":
            return answer
        asked = result.get("inputRequests", {})
        given = {key: ANSWERS[each["method"]] for key, each in asked.items()}
        more = {"inputResponses": given} if asked else {}
        return self.request(method, {**params, **more, "requestState": result["requestState"]})

    def answer(self, request_id: str) -> dict[str, Any]:
        """To one request."""
        while True:
            message = self.client.receive()
            assert message is not None, "the connection was closed"
            if message.get("id") == request_id and "method" not in message:
                return message
            if "id" in message:
                given = ANSWERS.get(message["method"], {})
                self.client.send({"jsonrpc": "2.0", "id": message["id"], "result": given})
            else:
                self.told.append(message)

    def hear(self, method: str) -> dict[str, Any]:
        """The next notification of a method, one that came already included; its params."""
        while True:
            for message in self.told:
                if message["method"] == method:
                    self.told.remove(message)
                    return dict(message.get("params", {}))
            message = self.client.receive()
            assert message is not None, "the connection was closed"
            if "id" not in message:
                self.told.append(message)

    def reached(self, method: str) -> list[dict[str, Any]]:
        """What the server was sent of a method."""
        sent = [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]
        return [each for each in sent if each.get("method") == method]

    def text(self, name: str, **params: Any) -> Any:
        """A call's text, as JSON."""
        return json.loads(self.request("tools/call", {"name": name, **params})["result"]["content"][0]["text"])


def seen(*, right: bool) -> str:
    """What a feature reports."""
    return PASSED if right else "not as it was sent"


def trace(caller: Caller) -> str:
    """``_meta`` of a request, trace context included, and ``_meta`` of its result."""
    answer = caller.request("tools/call", {"name": "echo", "_meta": TRACE})["result"]
    arrived = json.loads(answer["content"][0]["text"])
    return seen(right=arrived == TRACE and answer["_meta"]["example.org/answer"] == 1)


def progress(caller: Caller) -> str:
    """Progress under the caller's own token, with its ``_meta``; and cancellation of the call, which reaches the server."""
    call = caller.send("tools/call", {"name": "slow", "_meta": {"progressToken": "mine", **TRACE}})
    told = caller.hear("notifications/progress")
    gone = {"requestId": call, "reason": "enough", "_meta": TRACE}
    caller.client.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": gone})
    assert caller.request("tools/list", {})["result"]
    (cancelled,) = caller.reached("notifications/cancelled")
    called = next(each for each in caller.reached("tools/call") if each["params"]["name"] == "slow")
    right = told["progressToken"] == "mine" and told["_meta"] == {"example.org/told": 1}
    params = cancelled["params"]
    return seen(right=right and params == {**gone, "requestId": called["id"]})


def logging(caller: Caller) -> str:
    """A log message for who has asked for the level."""
    level: dict[str, Any] = {}
    if caller.modern:
        level = {"_meta": {"io.modelcontextprotocol/logLevel": "info"}}
    else:
        assert "result" in caller.request("logging/setLevel", {"level": "info"})
    assert caller.request("tools/call", {"name": "talk", **level})["result"]
    return seen(right=caller.hear("notifications/message") == {"level": "warning", "data": "said"})


def asking(of: str) -> Callable[[Caller], str]:
    """A question of the server and its answer."""

    def asked(caller: Caller) -> str:
        return seen(right=caller.text("ask", arguments={"of": of}) == ANSWERS[of])

    return asked


def completion(caller: Caller) -> str:
    """A completion."""
    ref = {"type": "ref/prompt", "name": "p"}
    answer = caller.request("completion/complete", {"ref": ref, "argument": {"name": "a", "value": "b"}})
    return seen(right=answer["result"]["completion"] == {"values": ["b!"]})


def pagination(caller: Caller) -> str:
    """Every page of a list, in order."""
    names: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        page = caller.request("tools/list", cursor)["result"]
        names += [tool["name"] for tool in page["tools"]]
        if "nextCursor" not in page:
            return seen(right=names == list(TOOLS))
        cursor = {"cursor": page["nextCursor"]}


def subscription(caller: Caller) -> str:
    """A resource that is subscribed to, and list changes that are listened for."""
    tag: dict[str, Any] = {}
    if caller.modern:
        wanted = {"resourceSubscriptions": ["notes://one"], "toolsListChanged": True}
        listen = caller.send("subscriptions/listen", {"notifications": wanted})
        tag = {"_meta": {SUBSCRIPTION: listen}}
        honoured = caller.hear("notifications/subscriptions/acknowledged")
        assert honoured == {"notifications": wanted, **tag}
    else:
        assert "result" in caller.request("resources/subscribe", {"uri": "notes://one"})
    assert caller.request("tools/call", {"name": "touch"})["result"]
    updated = caller.hear("notifications/resources/updated")
    return seen(right=updated == {"uri": "notes://one", **tag} and caller.hear(CHANGED) == tag)


CHANGED = "notifications/tools/list_changed"


def tasks(caller: Caller) -> str:
    """A task that is asked for, and its state."""
    wish = {} if caller.modern else {"task": {"ttl": 60000}}
    begun = caller.request("tools/call", {"name": "task", **wish})
    if "error" in begun:
        return f"refused: {cause(begun)}"
    task = begun["result"] if caller.modern else begun["result"].get("task", {})
    state = caller.request("tasks/get", {"taskId": task.get("taskId", "none")})
    if "error" in state:
        return f"refused: {cause(state)}, and the call done at once" if "content" in task else cause(state)
    return seen(right=state["result"]["taskId"] == "task-one")


PAIRS = [(client, server) for client in ("legacy", "modern") for server in ("legacy", "modern")]
FEATURES: dict[str, tuple[Callable[[Caller], str], dict[tuple[str, str], str]]] = {
    "_meta and trace context": (trace, {}),
    "progress and cancellation": (progress, {}),
    "logging": (logging, {}),
    "elicitation": (asking("elicitation/create"), {}),
    "sampling": (asking("sampling/createMessage"), {}),
    "roots": (asking("roots/list"), {}),
    "completion": (completion, {}),
    "pagination": (pagination, {}),
    "subscriptions": (subscription, {}),
    "tasks": (
        tasks,
        {("legacy", "modern"): ERA, ("modern", "legacy"): "refused: not_found, and the call done at once"},
    ),
}
"""Each feature, and what becomes of it where it does not pass."""


@pytest.fixture(scope="module", name="instance")
def _instance() -> Iterator[Instance]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with running(root) as instance:
        for era in ("legacy", "modern"):
            command = [sys.executable, str(SUPPORT / "era_server.py"), era, str(root / f"{era}.log")]
            instance.server(era, command=command)
        instance.ctl("reload")
        for era in ("legacy", "modern"):
            instance.grant(None, *EVERY, *ASKS, server=era)
        with instance.client(server="legacy") as client:  # the launcher lives on from the first call
            Caller(client, "legacy", root / "legacy.log")
        yield instance
    shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize(("client", "server"), PAIRS)
@pytest.mark.parametrize("feature", FEATURES)
def test_features(instance: Instance, feature: str, client: str, server: str):
    """What the table says becomes of the feature between these eras."""
    look, otherwise = FEATURES[feature]
    log = instance.root / f"{server}.log"
    log.write_text("", encoding="utf-8")
    with instance.client(server=server) as talking:
        assert look(Caller(talking, client, log)) == otherwise.get((client, server), PASSED)


def test_a_client_that_speaks_the_modern_era_only(instance: Instance):
    """It is refused for want of a grant, approved, and its server/discover is answered for the legacy server."""
    talker = instance.talker("modern only", name="modern_only.py")
    with instance.client(talker, server="legacy") as client:
        refused = client.request("server/discover", {"_meta": META})
    instance.approve(refused["error"]["data"]["code"], *EVERY)
    with instance.client(talker, server="legacy") as client:
        found = client.request("server/discover", {"_meta": META})
        assert found["result"]["supportedVersions"] == [MODERN]
        called = client.request("tools/call", {"name": "echo", "_meta": META})
        assert called["result"]["content"][0]["text"] == "{}"
