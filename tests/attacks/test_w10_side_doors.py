"""W10: completion, subscriptions, tasks/result and retries as side doors: same decision as at the front door."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import Client, cause
from tests.support.naive_proxy import proxied
from tests.support.wire_attacks import MODERN_META, Ring, lenient, line, notes, refused

pytestmark = pytest.mark.attack("W10")

A, B = "file:///a", "file:///b"


def modern(method: str, message_id: int = 9, **params: Any) -> bytes:
    """A request of the era without a handshake."""
    return line(method, {**params, "_meta": MODERN_META}, message_id)


SIDE_DOORS = {
    "completion of a prompt": line(
        "completion/complete", {"ref": {"type": "ref/prompt", "name": "other"}, "argument": {"name": "x", "value": ""}}
    ),
    "completion of a resource": line(
        "completion/complete", {"ref": {"type": "ref/resource", "uri": B}, "argument": {"name": "x", "value": ""}}
    ),
    "completion of a template": line(
        "completion/complete",
        {"ref": {"type": "ref/resource", "uri": "file:///{name}"}, "argument": {"name": "name", "value": ""}},
    ),
    "subscription": line("resources/subscribe", {"uri": B}),
    "the same resource, spelt otherwise": line("resources/read", {"uri": "FILE:///%62"}),
    "prompt": line("prompts/get", {"name": "other"}),
    "task": line("tools/call", {"name": "pid", "arguments": {}, "task": {"ttl": 1}}),
    "retry": line("tools/call", {"name": "pid", "arguments": {}, "inputResponses": {"q": {}}, "requestState": "s"}),
    "retry without state": line("tools/call", {"name": "pid", "arguments": {}, "inputResponses": {}}),
}
MODERN_DOORS = {
    "listen": modern("subscriptions/listen", notifications={"resourceSubscriptions": [A, B]}),
    "completion": modern("completion/complete", ref={"type": "ref/prompt", "name": "other"}, argument={}),
    "retry": modern("tools/call", name="pid", inputResponses={}, requestState="s"),
    "retry of a resource": modern("resources/read", uri=B, inputResponses={}, requestState="s"),
    "retry of a prompt": modern("prompts/get", name="other", inputResponses={}, requestState="s"),
}


@pytest.fixture(scope="module", name="door")
def _door(wire: Ring) -> Iterator[str]:
    """A lenient server of which one tool, one resource and one prompt are granted."""
    wire.instance.server("door", command=lenient(wire.log("door")))
    wire.instance.ctl("reload")
    wire.instance.grant(None, "--tool", "echo", "--tool", "ask", "--resource", A, "--prompt", "hello", server="door")
    yield "door"
    (wire.instance.config / "servers.d" / "door.toml").unlink()
    wire.instance.ctl("reload")


def test_a_gate_for_tools_only(short_tmp: Path):
    """Without the control: a proxy that judges tools/call lets every other way through."""
    log = short_tmp / "log"
    with proxied(lenient(log), "echo") as proxy:
        for way in ("completion of a prompt", "completion of a resource", "subscription", "prompt"):
            assert proxy.offer(SIDE_DOORS[way]), way
            assert "result" in proxy.answer(9), way
        assert proxy.offer(line("tasks/result", {"taskId": "task-1"}))
        assert "secret" in str(proxy.answer(9)["result"])
        assert not proxy.offer(SIDE_DOORS["task"])
    assert len(notes(log)) == 5


def test_each_side_door_is_decided_on_what_it_opens(wire: Ring, door: str):
    """Refused as out of scope, with the name of the thing, and nothing reaches the server."""
    with wire.recorded() as recorded, wire.reached(door) as reached:
        with wire.client(door) as client:
            for data in SIDE_DOORS.values():
                refused(client, data, "out_of_scope")
            refused(client, line("resources/read", {"uri": "file:///x/../b"}), "malformed")
            for method in ("tasks/get", "tasks/result", "tasks/cancel"):
                refused(client, line(method, {"taskId": "task-1"}), "not_found")
        assert reached() == []
        assert len(recorded("out_of_scope")) == len(SIDE_DOORS)
        assert len(recorded("not_found")) == 3


def test_each_modern_side_door(wire: Ring, door: str):
    """The same without a handshake; one resource that is not granted refuses the whole subscription."""
    with wire.recorded() as recorded, wire.reached(door) as reached:
        with wire.client(door, None) as client:
            for data in MODERN_DOORS.values():
                refused(client, data, "out_of_scope")
            refused(client, modern("tasks/update", taskId="task-1", inputResponses={}), "not_found")
        assert reached() == []
        assert len(recorded("out_of_scope")) == len(MODERN_DOORS)


def test_what_is_granted_passes_by_the_same_doors(wire: Ring, door: str):
    """The contrast: completion for the granted prompt and resource, and a subscription to it, are served."""
    with wire.reached(door) as reached, wire.client(door) as client:
        for ref in ({"type": "ref/prompt", "name": "hello"}, {"type": "ref/resource", "uri": A}):
            argument = {"name": "x", "value": ""}
            assert "result" in client.request("completion/complete", {"ref": ref, "argument": argument})
        assert "result" in client.request("resources/subscribe", {"uri": A})
        assert len(reached()) == 3


def test_a_retry_is_decided_again(wire: Ring, door: str):
    """Between question and answer the grant was revoked: the retry is refused although the first call was served."""

    def asked(client: Client, number: int, **more: Any) -> dict[str, Any]:
        client.send_line(modern("tools/call", number, name="ask", **more))
        return client.answer(number)

    once = wire.instance.talker("once", "once.py")
    grant = wire.instance.grant(once, "--tool", "ask", server=door)
    with wire.reached(door) as reached, wire.client(door, None, once) as client:
        answer = asked(client, 1)
        if cause(answer) == "unproven":
            answer = asked(client, 2)
        state = answer["result"]["requestState"]
        wire.instance.ctl("grants", "revoke", grant["id"])
        refusal = asked(client, 3, requestState=state, inputResponses={})
        assert cause(refusal) == "no_grant"
        assert len(reached()) == 1


def test_an_update_of_what_is_no_longer_granted(wire: Ring, door: str):
    """A subscription outlives no grant: after the revocation no update is shown."""
    reader = wire.instance.talker("reader", "reader.py")
    grant = wire.instance.grant(reader, "--resource", A, "--tool", "touch", server=door)
    with wire.client(door, script=reader) as client:
        client.request("resources/subscribe", {"uri": A})
        client.send_line(line("tools/call", {"name": "touch", "arguments": {"uri": A}}))
        told = client.receive()
        assert told is not None
        assert told["method"] == "notifications/resources/updated"
        client.answer(9)
        wire.instance.ctl("grants", "revoke", grant["id"])
        fresh = wire.instance.grant(reader, "--tool", "touch", server=door)
        client.send_line(line("tools/call", {"name": "touch", "arguments": {"uri": A}}))
        answer = client.receive()
        while answer is not None and answer.get("method") == "notifications/tools/list_changed":
            answer = client.receive()
        assert answer is not None
        assert answer.get("id") == 9
        wire.instance.ctl("grants", "revoke", fresh["id"])
