"""The ring of the rows W*: one daemon, a lenient server and the time server behind it, a client with a narrow grant.

The client may call ``echo`` of the lenient server and ``convert_time`` of the time server, and nothing else.
``reached`` tells what passed attestd, as the servers themselves noted it, so "executed nothing that was not decided"
is read there.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.instance import SCRIPTS, Client, Instance, cause, running

SUPPORT = Path(__file__).parent
TIME = [str(SCRIPTS / "mcp-server-time"), "--local-timezone", "UTC"]
REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN_META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test client", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
NOW = {"name": "get_current_time", "arguments": {"timezone": "UTC"}}
"""The call that the grant on the time server does not cover."""
CONVERT = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
WAIT_S = 20.0


def lenient(log: Path, *socket: str | Path) -> list[str]:
    """The command of a lenient server."""
    return [sys.executable, str(SUPPORT / "lenient_server.py"), str(log), *map(str, socket)]


def spied(log: Path, command: Sequence[str]) -> list[str]:
    """The command of a server under observation."""
    return [sys.executable, str(SUPPORT / "spy.py"), str(log), *command]


def line(method: str, params: Any = None, message_id: Any = 9, **more: Any) -> bytes:
    """One message as bytes; ``message_id`` None makes it a notification."""
    head = {"jsonrpc": "2.0"} if message_id is None else {"jsonrpc": "2.0", "id": message_id}
    return json.dumps({**head, "method": method, **({} if params is None else {"params": params}), **more}).encode()


def call(tool: str, message_id: Any = 9, **arguments: Any) -> bytes:
    """tools/call as bytes."""
    return line("tools/call", {"name": tool, "arguments": arguments}, message_id)


def notes(log: Path) -> list[dict[str, Any]]:
    """What reached a server, without the handshake."""
    text = log.read_bytes() if log.exists() else b""
    messages = [json.loads(each) for each in text.splitlines()]
    return [m for m in messages if m["method"] not in ("initialize", "notifications/initialized", "server/discover")]


def tools(messages: Sequence[dict[str, Any]]) -> list[str]:
    """The names of the tools called."""
    return [m["params"]["name"] for m in messages if m["method"] == "tools/call"]


def until(find: Callable[[], Any], what: str, seconds: float = WAIT_S) -> Any:
    """Wait for something true and return it."""
    deadline = time.monotonic() + seconds
    while not (found := find()):
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.02)
    return found


class Ring:
    """A started ring."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance

    def log(self, server: str) -> Path:
        """Where a server notes what reaches it."""
        return self.instance.root / f"{server}.log"

    @contextlib.contextmanager
    def reached(self, server: str) -> Iterator[Callable[[], list[dict[str, Any]]]]:
        """Yields a function for the messages that reached the server from here on."""
        before = len(notes(self.log(server)))
        yield lambda: notes(self.log(server))[before:]

    @contextlib.contextmanager
    def recorded(self) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
        """Yields a function: audit records with this cause from here on."""
        records = self.instance.records()
        last = records[-1]["seq"] if records else -1
        yield lambda wanted: [r for r in self.instance.records() if r["seq"] > last and r["cause"] == wanted]

    @contextlib.contextmanager
    def client(self, server: str, revision: str | None = "2025-11-25", script: Path | None = None) -> Iterator[Client]:
        """The granted client on a server (or another one), after the handshake unless ``revision`` is None."""
        with self.instance.client(script, server=server) as client:
            if revision is not None:
                assert "result" in client.initialize(revision)
            yield client


def refused(client: Client, data: bytes, *causes: str, ids: Sequence[Any] = (9, None)) -> dict[str, Any]:
    """Send a line and receive its refusal."""
    client.send_line(data)
    answer = client.receive()
    assert answer is not None, f"the connection was closed after {data[:80]!r}"
    assert "error" in answer, f"{data[:80]!r} was answered {answer}"
    assert answer["id"] in ids, answer
    assert cause(answer) in causes, f"{data[:80]!r}: {answer}"
    return answer


@contextlib.contextmanager
def ring(root: Path) -> Iterator[Ring]:
    """A started ring below a short directory."""
    with running(root, "echo") as instance:
        started = Ring(instance)
        instance.server("lenient", command=lenient(started.log("lenient")))
        instance.server("time", command=spied(started.log("time"), TIME))
        instance.ctl("reload")
        instance.grant(None, "--tool", "echo", server="lenient")
        instance.grant(None, "--tool", "convert_time", server="time")
        with started.client("lenient") as client:
            assert "result" in client.call("echo")
        yield started
