"""W8: tools/call before initialize, or with no session, is decided as any other call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.instance import Client, cause
from tests.support.naive_proxy import proxied
from tests.support.wire_attacks import MODERN_META, Ring, call, lenient, line, notes, tools

pytestmark = pytest.mark.attack("W8")

FIRST = {
    "legacy": call("echo"),
    "modern": line("tools/call", {"name": "echo", "arguments": {}, "_meta": MODERN_META}),
}
FORBIDDEN = {
    "legacy": call("pid"),
    "modern": line("tools/call", {"name": "pid", "arguments": {}, "_meta": MODERN_META}),
}


@contextmanager
def stranger(wire: Ring) -> Iterator[Client]:
    """A program without a grant."""
    with wire.client("lenient", None, wire.instance.talker("stranger", "stranger.py")) as client:
        yield client


@pytest.mark.parametrize("era", FIRST)
def test_the_handshake_is_no_gate(short_tmp: Path, era: str):
    """Without the control: a gate that judges callers at initialize never sees this one."""
    log = short_tmp / "log"
    with proxied(lenient(log), "echo", hello=False) as proxy:
        assert proxy.offer(FIRST[era])
        assert "result" in proxy.answer(9)
    assert tools(notes(log)) == ["echo"]


@pytest.mark.parametrize("era", FIRST)
def test_without_a_grant(wire: Ring, era: str):
    """Refused as it would be after the handshake."""
    with wire.recorded() as recorded, wire.reached("lenient") as reached:
        with stranger(wire) as client:
            client.send_line(FIRST[era])
            assert cause(client.answer(9)) == "no_grant"
            client.send_line(line("notifications/initialized", message_id=None))
            client.send_line(FIRST[era])
            assert cause(client.answer(9)) == "no_grant"
        assert reached() == []
        assert {r["method"] for r in recorded("no_grant")} >= {"tools/call"}


@pytest.mark.parametrize("era", FIRST)
def test_with_a_grant(wire: Ring, era: str):
    """Served if granted, refused if not, without any handshake; a first call may be told to come again (unproven)."""
    with wire.recorded() as recorded, wire.reached("lenient") as reached:
        with wire.client("lenient", None) as client:
            client.send_line(FORBIDDEN[era])
            assert cause(client.answer(9)) == "out_of_scope"
            client.send_line(FIRST[era])
            answer = client.answer(9)
            if "error" in answer:
                assert cause(answer) == "unproven"
                assert answer["error"]["data"]["retry"] is True
                client.send_line(FIRST[era])
                answer = client.answer(9)
            assert "result" in answer
        assert tools(reached()) == ["echo"]
        assert len(recorded("out_of_scope")) == 1


def test_a_call_written_before_the_attestation(wire: Ring):
    """What lies in the socket when the attestation ends is refused with the advice to send it again, never served."""
    early = wire.instance.script(
        "early.py",
        "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\nf = s.makefile('rb')\n"
        "for line in sys.stdin.buffer:\n    s.sendall(line)\n"
        "    sys.stdout.buffer.write(f.readline())\n    sys.stdout.buffer.flush()\n",
    )
    wire.instance.grant(None, "--tool", "echo", server="lenient", argv=[*argv(wire, early)])
    with wire.reached("lenient") as reached, wire.instance.client(argv=argv(wire, early)) as client:
        client.send_line(FIRST["legacy"])
        answer = client.answer(9)
        if "error" in answer:
            assert cause(answer) == "unproven"
            assert reached() == []
            client.send_line(FIRST["legacy"])
            answer = client.answer(9)
        assert "result" in answer
        assert tools(reached()) == ["echo"]


def argv(wire: Ring, script: Path) -> list[str]:
    """The client's command line."""
    import sys

    return [sys.executable, str(script), str(wire.instance.socket("lenient"))]
