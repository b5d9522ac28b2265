"""W2: batch arrays at every revision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import cause
from tests.support.naive_proxy import proxied
from tests.support.wire_attacks import MODERN_META, REVISIONS, Ring, call, lenient, line, notes, refused, tools

pytestmark = pytest.mark.attack("W2")

BATCHES = "2025-03-26"


def batch(*elements: bytes) -> bytes:
    """A JSON array of messages."""
    return b"[" + b",".join(elements) + b"]"


def modern(tool: str, message_id: int = 9) -> bytes:
    """A call of the revision without a handshake."""
    return line("tools/call", {"name": tool, "arguments": {}, "_meta": MODERN_META}, message_id)


def test_a_server_executes_batches_at_any_revision(short_tmp: Path):
    """Without the control: the proxy finds no call in an array, the server executes its elements."""
    log = short_tmp / "log"
    with proxied(lenient(log), "echo") as proxy:
        assert not proxy.offer(call("pid"))
        assert proxy.offer(batch(call("echo", 8), call("pid", 9)))
        assert "result" in proxy.answer(9)
    assert tools(notes(log)) == ["echo", "pid"]


@pytest.mark.parametrize("revision", [r for r in REVISIONS if r != BATCHES])
def test_a_legacy_revision_without_batches(wire: Ring, revision: str):
    """The whole array is refused with one error, and the connection serves on."""
    with wire.recorded() as recorded, wire.reached("lenient") as reached:
        with wire.client("lenient", revision) as client:
            refused(client, batch(call("echo", 8), call("pid", 9)), "batch", ids=(None, 8, 9))
            refused(client, batch(call("echo")), "batch")
            refused(client, b"[]", "batch")
            assert "result" in client.call("echo")
        assert tools(reached()) == ["echo"]
        assert len(recorded("batch")) == 3


@pytest.mark.parametrize("hello", [False, True])
def test_the_modern_era(wire: Ring, hello: bool):
    """An array of modern calls is refused, before and after server/discover."""
    with wire.recorded() as recorded, wire.reached("lenient") as reached:
        with wire.client("lenient", None) as client:
            if hello:
                client.send_line(line("server/discover", {"_meta": MODERN_META}, 1))
                assert "result" in client.answer(1)
            refused(client, batch(modern("echo", 8), modern("pid", 9)), "batch", ids=(None, 8, 9))
            client.send_line(modern("echo", 7))
            assert "result" in client.answer(7)
        assert tools(reached()) == ["echo"]
        assert len(recorded("batch")) == 1


def test_the_revision_with_batches_is_decided_per_element(wire: Ring):
    """2025-03-26: each element is decided by itself; the refused ones never reach the server, the others are served."""
    elements = batch(
        call("echo", 1001),
        call("pid", 1002),
        line("ping", message_id=1003),
        line("initialize", {"protocolVersion": "2025-11-25"}, 1004),
        b'{"jsonrpc":"2.0","id":1005,"method":"tools/call","result":{},"params":{"name":"echo"}}',
        batch(call("pid", 1006)),
        call("echo", 1007),
    )
    with wire.recorded() as recorded, wire.reached("lenient") as reached:
        with wire.client("lenient", BATCHES) as client:
            client.send_line(elements)
            answers: dict[Any, dict[str, Any]] = {}
            while len(answers) < 7:
                answer = client.receive()
                assert answer is not None
                assert isinstance(answer, dict), "an answer to a batch is one message for each element"
                answers[answer["id"]] = answer
        assert {number for number, answer in answers.items() if "result" in answer} == {1001, 1003, 1007}
        refusals = {number: cause(answer) for number, answer in answers.items() if "error" in answer}
        assert refusals == {1002: "out_of_scope", 1004: "batch", 1005: "malformed", None: "batch"}
        assert tools(reached()) == ["echo", "echo"]
        assert len(recorded("out_of_scope")) == 1
        assert len(recorded("batch")) == 2


def test_a_batch_is_bounded(wire: Ring):
    """More elements than the limit are refused as a whole."""
    with wire.reached("lenient") as reached, wire.client("lenient", BATCHES) as client:
        refused(client, batch(*(call("echo", n) for n in range(101))), "batch", ids=(None, 0, 100))
        refused(client, b"[]", "batch")
        assert tools(reached()) == []


def test_nothing_of_a_batch_is_forwarded_as_a_batch(wire: Ring):
    """What reaches the server is one message to a line."""
    with wire.client("lenient", BATCHES) as client:
        client.send_line(batch(call("echo", 8), call("echo", 9)))
        assert "result" in client.answer(9)
    assert all(isinstance(json.loads(each), dict) for each in wire.log("lenient").read_bytes().splitlines())
