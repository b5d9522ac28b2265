"""W9: another caller's task, subscription, request, progress token and request state do not exist."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import Client, cause
from tests.support.wire_attacks import MODERN_META, Ring, lenient, line, notes, until

pytestmark = pytest.mark.attack("W9")

HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}


@contextmanager
def one_server(root: Path) -> Iterator[Path]:
    """One lenient server process on a Unix socket, for all connections; its log is beside the socket."""
    path = root / "lenient.sock"
    process = subprocess.Popen(lenient(root / "one.log", path))
    try:
        until(path.exists, "socket")
        yield path
    finally:
        process.kill()
        process.wait()


@contextmanager
def two(wire: Ring, server: str, revision: str | None = "2025-11-25") -> Iterator[tuple[Client, Client]]:
    """Two granted programs on one server: the victim, and the other."""
    other = wire.instance.talker("other", "other.py")
    with wire.client(server, revision) as victim, wire.client(server, revision, other) as attacker:
        yield victim, attacker


@pytest.fixture(scope="module", name="shared")
def _shared(wire: Ring) -> Iterator[str]:
    """A server that many share, and one process on a socket that each connection has for itself."""
    with one_server(wire.instance.root) as path:
        wire.instance.server("shared", command=lenient(wire.log("shared")), shared=True)
        wire.instance.server("own", command=lenient(wire.log("own")))
        wire.instance.server("socket", transport="unix", socket=str(path))
        wire.instance.ctl("reload")
        for script in (None, wire.instance.talker("other", "other.py")):
            for server in ("shared", "own", "socket"):
                wire.instance.grant(script, "--all-tools", "--resource", "file:///a", server=server)
        with wire.client("shared") as client:
            client.call("echo")
        yield "shared"
        for name in ("shared", "own", "socket"):
            (wire.instance.config / "servers.d" / f"{name}.toml").unlink()
        wire.instance.ctl("reload")


def create(client: Client) -> str:
    """A task of this client."""
    params = {"name": "echo", "arguments": {}, "task": {"ttl": 1000}}
    return str(client.request("tools/call", params)["result"]["task"]["taskId"])


class Raw(Client):
    """A client of the naive proxy: straight to the server's socket, as a proxy for many without maps would pass it."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(path))
        stream: Any = self.sock.makefile("rwb", buffering=0)

        class Process:
            stdin = stdout = stream

        super().__init__(Process)  # type: ignore[arg-type]

    def close(self) -> None:
        self.process.stdin.close()
        self.sock.close()


def test_a_naive_proxy_passes_everything_to_one_server(short_tmp: Path):
    """Without the control: results, cancellations, states and updates of one caller are there for the other."""
    with one_server(short_tmp) as path:
        victim, attacker = Raw(path), Raw(path)
        try:
            victim.request("initialize", HELLO)
            attacker.request("initialize", HELLO)
            task = create(victim)
            assert attacker.request("tasks/list")["result"]["tasks"]
            assert "secret" in str(attacker.request("tasks/result", {"taskId": task}))
            victim.send_line(line("tools/call", {"name": "hang"}, 77))
            until(lambda: any(m.get("id") == 77 for m in notes(short_tmp / "one.log")), "the call")
            attacker.send_line(line("notifications/cancelled", {"requestId": 77}, None))
            assert "cancelled" in str(victim.answer(77))
            state = victim.request("tools/call", {"name": "ask"})["result"]["requestState"]
            retry = {"name": "ask", "arguments": {"of": "victim"}, "requestState": state, "inputResponses": {}}
            assert "victim" in str(attacker.request("tools/call", retry)["result"])
        finally:
            victim.close()
            attacker.close()


@pytest.mark.parametrize("server", ["shared", "socket", "own"])
def test_a_task_of_another(wire: Ring, shared: str, server: str):
    """It cannot be read, ended, listed, waited for or named in ``_meta``; its owner has it still."""
    del shared
    log = wire.instance.root / "one.log" if server == "socket" else wire.log(server)
    with wire.recorded() as recorded, two(wire, server) as (victim, attacker):
        task = create(victim)
        before = len(notes(log))
        related = {"_meta": {"io.modelcontextprotocol/related-task": {"taskId": task}}}
        refusals = [
            attacker.request("tasks/get", {"taskId": task}),
            attacker.request("tasks/result", {"taskId": task}),
            attacker.request("tasks/cancel", {"taskId": task}),
            attacker.request("tools/call", {"name": "echo", "arguments": {}, **related}),
            attacker.request("tasks/get", {"taskId": "task-999"}),
        ]
        assert {cause(refusal) for refusal in refusals} == {"not_found"}
        texts = {r["error"]["message"].split("attestd refused ")[1].split(" on ")[1] for r in refusals}
        assert len(texts) == 1, "what is another's reads like what is not there"
        assert len(notes(log)) == before
        attacker.send_line(line("notifications/tasks/status", {"taskId": task, "status": "failed"}, None))
        assert attacker.request("tasks/list")["result"]["tasks"] == []
        assert [t["taskId"] for t in victim.request("tasks/list")["result"]["tasks"]] == [task]
        assert "secret" in str(victim.request("tasks/result", {"taskId": task})["result"])
        assert "notifications/tasks/status" not in [m["method"] for m in notes(log)[before:]]
    assert len(recorded("not_found")) == 6


def test_equal_numbers_on_servers_of_their_own(wire: Ring, shared: str):
    """Each caller's own back end numbers its tasks from one: both have theirs, and neither is refused its own."""
    del shared
    with two(wire, "own") as (victim, attacker):
        assert create(victim) == create(attacker)
        for client in (victim, attacker):
            assert "secret" in str(client.request("tasks/result", {"taskId": "task-1"})["result"])


@pytest.mark.parametrize("server", ["shared", "socket"])
def test_the_request_of_another(wire: Ring, shared: str, server: str):
    """A cancellation, a progress note and an answer name only what is outstanding for their own sender."""
    del shared
    log = wire.instance.root / "one.log" if server == "socket" else wire.log(server)
    with wire.recorded() as recorded, two(wire, server) as (victim, attacker):
        hanging = {"name": "hang", "_meta": {"progressToken": "mine"}}
        before = len(notes(log))
        victim.send_line(line("tools/call", hanging, 77))
        until(lambda: "hang" in str(notes(log)[before:]), "the call")
        for number in (77, 1, 2, 3, 4, 5, 6, 7, 8, 9):
            attacker.send_line(line("notifications/cancelled", {"requestId": number}, None))
            attacker.send_line(line("notifications/progress", {"progressToken": number, "progress": 1}, None))
        attacker.send_line(line("notifications/progress", {"progressToken": "mine", "progress": 1}, None))
        assert "result" in attacker.call("echo")
        assert {m["method"] for m in notes(log)[before:]} == {"tools/call"}
        attacker.send_line(line("tools/call", {"name": "release"}, 5))
        assert attacker.receive()["id"] == 5, "the victim's progress was told to another"  # type: ignore[index]
        told = victim.receive()
        assert told is not None
        assert told["method"] == "notifications/progress"
        assert told["params"]["progressToken"] == "mine"
        assert "released" in str(victim.answer(77))
    assert len(recorded("not_outstanding")) == 21


@pytest.mark.parametrize("server", ["shared", "socket"])
def test_equal_ids_of_two_callers(wire: Ring, shared: str, server: str):
    """Both wait under the same id: each gets its own answer, and a cancellation ends only the sender's."""
    del shared
    with two(wire, server) as (victim, attacker):
        for client in (victim, attacker) if server == "shared" else (victim,):
            client.send_line(line("tools/call", {"name": "hang"}, 88))
            assert "result" in client.call("echo")  # then the call before it is with the server
        attacker.send_line(line("notifications/cancelled", {"requestId": 88}, None))
        assert "result" in attacker.call("echo")
        attacker.send_line(line("tools/call", {"name": "release"}, 5))
        attacker.answer(5)
        assert "released" in str(victim.answer(88))


@pytest.mark.parametrize("server", ["shared", "socket"])
def test_the_request_state_of_another(wire: Ring, shared: str, server: str):
    """A retry with a state that was handed to somebody else is refused, and the state still serves its owner."""
    del shared
    with wire.recorded() as recorded, two(wire, server) as (victim, attacker):
        state = victim.request("tools/call", {"name": "ask"})["result"]["requestState"]
        retry = {"name": "ask", "arguments": {"of": "victim"}, "requestState": state, "inputResponses": {}}
        assert cause(attacker.request("tools/call", retry)) == "not_found"
        assert cause(attacker.request("tools/call", {**retry, "requestState": "made up"})) == "not_found"
        assert "victim" in str(victim.request("tools/call", retry)["result"])
    assert len(recorded("not_found")) == 2


def test_the_modern_request_state_and_task_of_another(wire: Ring, shared: str):
    """The same in the era without a handshake, with the task in a subscription, too."""
    del shared
    with wire.recorded() as recorded, two(wire, "socket", None) as (victim, attacker):

        def ask(client: Client, method: str, number: int, **params: Any) -> dict[str, Any]:
            client.send_line(line(method, {**params, "_meta": MODERN_META}, number))
            answer = client.answer(number)
            if cause(answer) == "unproven":
                return ask(client, method, number + 1000, **params)
            return answer

        state = ask(victim, "tools/call", 1, name="ask")["result"]["requestState"]
        task = ask(victim, "tools/call", 2, name="echo", task={})["result"]["task"]["taskId"]
        ask(attacker, "tools/call", 1, name="echo")
        retry = {"name": "ask", "arguments": {"of": "victim"}, "requestState": state, "inputResponses": {}}
        assert cause(ask(attacker, "tools/call", 2, **retry)) == "not_found"
        assert cause(ask(attacker, "tasks/update", 3, taskId=task, inputResponses={})) == "not_found"
        listen = ask(attacker, "subscriptions/listen", 4, notifications={"taskIds": [task]})
        assert cause(listen) == "not_found"
        assert "victim" in str(ask(victim, "tools/call", 5, **retry)["result"])
    assert len(recorded("not_found")) == 3


def test_the_subscription_of_another(wire: Ring, shared: str):
    """Updates of a shared server go to those who subscribed, and nobody ends the subscription of another."""
    with two(wire, shared) as (victim, attacker):
        assert "result" in victim.request("resources/subscribe", {"uri": "file:///a"})
        assert "result" in attacker.request("resources/unsubscribe", {"uri": "file:///a"})
        attacker.send_line(line("tools/call", {"name": "touch", "arguments": {"uri": "file:///a"}}, 5))
        assert attacker.receive()["id"] == 5  # type: ignore[index]
        told = victim.receive()
        assert told is not None
        assert told["method"] == "notifications/resources/updated"
