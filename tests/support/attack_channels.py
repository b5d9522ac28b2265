"""How variants of attacks are offered: lines, HTTP requests, or posts to a session of HTTP+SSE; to attestd or to a server.

All channels of one client live in one process (``http_client``), because a process is what attestd knows.
"""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from tests.support.attack_variants import Variant, Words, of_row
from tests.support.http_client import Caller, Response
from tests.support.instance import cause

HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "by hand", "version": "1"}}
ANSWER_S = 20.0


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What was said to one variant."""

    status: int = 0
    """Of HTTP; 0 on lines."""
    message: dict[str, Any] = {}
    """The JSON-RPC message, if there was one."""

    @property
    def why(self) -> str:
        """The cause of attestd's refusal, else the status if that is none of success, else nothing."""
        if cause(self.message):
            return cause(self.message)
        return str(self.status) if self.status >= 300 else ""

    def __str__(self) -> str:
        code = self.message.get("error", {}).get("code")
        words = [str(self.status) if self.status else "", str(code) if code is not None else ""]
        if "result" in self.message:
            words.append("result")
        return " ".join(filter(None, words)) or "silence"


class Channel:
    """One client's way to one server."""

    kind = ""
    """lines, http or sse."""

    def __init__(self, process: Caller, place: Any, name: str, era: str) -> None:
        self.caller = copy.copy(process)
        """Shares the process, has a place of its own."""
        self.caller.place = place
        self.caller.session = ""
        self.name = name
        self.era = era
        self._connections = 0
        self._number = 1000

    @property
    def connection(self) -> str:
        """The name of the connection in use."""
        return f"{self.name} {self._connections}"

    def words(self, mark: str = "") -> Words:
        """For the next message."""
        self._number += 2
        return Words(self.era, mark, self._number)

    def connect(self) -> None:
        """Whatever must be there before the first message."""

    def begin(self) -> None:
        """``connect``, and the handshake if the era has one, or whatever proves the client."""
        self.connect()
        if self.era == "legacy":
            body = {"jsonrpc": "2.0", "id": self.words().number, "method": "initialize", "params": HELLO}
            answer = self.offer(Variant(name="initialize", body=json.dumps(body).encode(), causes=()))
            assert "result" in answer.message, answer
            self.tell("notifications/initialized")
            return
        for _ in range(3):
            if "result" in (answer := self.tool("echo", text="proof")).message:
                return
        raise AssertionError(f"the client could not prove itself: {answer}: {answer.message}")

    def start(self, variant: Variant) -> None:
        """Send one variant."""
        raise NotImplementedError

    def finish(self) -> Answer:
        """Hear what is said to it."""
        raise NotImplementedError

    def offer(self, variant: Variant) -> Answer:
        """Both."""
        self.start(variant)
        return self.finish()

    def tell(self, method: str, **params: Any) -> None:
        """A notification."""
        raise NotImplementedError

    def proper(self, name: str, **arguments: Any) -> Variant:
        """A tool call as it should be."""
        body = self.words().message("tools/call", {"name": name, "arguments": arguments})
        return Variant(name="proper", body=json.dumps(body).encode(), causes=(), said=("tools/call", name))

    def tool(self, name: str, **arguments: Any) -> Answer:
        """Call it."""
        return self.offer(self.proper(name, **arguments))

    def whole(self, text: str) -> str:
        """A whole HTTP request."""
        raise NotImplementedError

    def attacks(self, row: str, port: int) -> Iterator[tuple[Variant, str]]:
        """The variants of a row, each with the mark that it carries. ``port``: of the listener; 0: a Unix socket."""
        names = [each.name for each in of_row(row, self.words(), self.kind, self.whole, port)]
        for index, name in enumerate(names):
            mark = f"{self.name} {row} {name}"
            yield of_row(row, self.words(mark), self.kind, self.whole, port)[index], mark


class Lines(Channel):
    """Newline-delimited JSON on a Unix socket."""

    kind = "lines"

    def connect(self) -> None:
        self.caller.send(b"", self.connection)

    def start(self, variant: Variant) -> None:
        self.caller.send(variant.body + b"\n", self.connection)

    def finish(self) -> Answer:
        return Answer(message=self.receive())

    def tell(self, method: str, **params: Any) -> None:
        body = {"jsonrpc": "2.0", "method": method, "params": params}
        self.caller.send(json.dumps(body).encode() + b"\n", self.connection)

    def receive(self) -> dict[str, Any]:
        """The next message that is an answer; what the server asks and tells is left out."""
        while True:
            message: dict[str, Any] = json.loads(self._line())
            if "method" not in message:
                return message

    def _line(self) -> bytes:
        deadline = time.monotonic() + ANSWER_S
        while b"\n" not in self.caller.received.get(self.connection, b""):
            assert self.connection not in self.caller.ended, f"{self.connection} was closed"
            self.caller._read(deadline)
        line, _, self.caller.received[self.connection] = self.caller.received[self.connection].partition(b"\n")
        return line


class Http(Channel):
    """Streamable HTTP."""

    kind = "http"

    def __init__(self, process: Caller, place: Any, name: str, era: str, path: str, host: str) -> None:
        super().__init__(process, place, name, era)
        self.caller.path = path
        self.caller.host = host
        self._sent: Variant | None = None

    def start(self, variant: Variant, path: str = "") -> None:
        self._sent = variant
        if variant.head:
            self._connections += 1
            self.caller.send(self.request(variant.head).encode("latin-1") + variant.body, self.connection)
            return
        headers: dict[str, str | None] = {"content_type": "application/json"}
        if self.era == "modern":
            method, name = variant.said
            headers |= {"mcp_protocol_version": "2026-07-28", "mcp_method": method, "mcp_name": name or None}
        self.caller.post(variant.body, self.connection, path=path, **{**headers, **variant.headers})

    def finish(self) -> Answer:
        response = self.caller.response(self.connection)
        if response.status == 307 and self._sent is not None:  # a modern client proves itself by sending again
            self.start(self._sent, response.headers["location"])
            response = self.caller.response(self.connection)
        self.caller.session = response.headers.get("mcp-session-id", self.caller.session)
        self._renew(response)
        return Answer(status=response.status, message=said(response))

    def _renew(self, response: Response) -> None:
        """Another connection, where this one has ended or will."""
        closing = response.headers.get("connection", "").lower() == "close"
        if closing or self.connection in self.caller.ended or (self._sent is not None and self._sent.head):
            self._connections += 1

    def tell(self, method: str, **params: Any) -> None:
        body = {"jsonrpc": "2.0", "method": method, "params": params}
        assert self.caller.ask(body, self.connection).status == 202

    def request(self, framing: str) -> str:
        """The head of a POST, its body framed by these headers."""
        lines = ["Content-Type: application/json", "Accept: application/json, text/event-stream"]
        if self.caller.session:
            lines.append(f"Mcp-Session-Id: {self.caller.session}")
        if self.era == "modern":
            lines += ["Mcp-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call", "Mcp-Name: steal"]
        return "\r\n".join([f"POST {self.caller.path} HTTP/1.1", f"Host: {self.caller.host}", *lines, framing, "", ""])

    def whole(self, text: str) -> str:
        return self.request(f"Content-Length: {len(text)}") + text


class Sse(Http):
    """HTTP+SSE of 2024-11-05: posts on one connection, answers on another."""

    kind = "sse"

    def __init__(self, process: Caller, place: Any, name: str, path: str, host: str) -> None:
        super().__init__(process, place, name, "legacy", path, host)
        self._events = path
        self._heard = 1

    @property
    def stream(self) -> str:
        """The name of the connection that the answers come on."""
        return f"{self.name} events"

    def connect(self) -> None:
        self.caller.post(None, self.stream, method="GET", path=self._events, accept="text/event-stream")
        self.caller.path = blocks(self.caller.response(self.stream, events=1))[0]["data"]

    def finish(self) -> Answer:
        response = self.caller.response(self.connection)
        self._renew(response)
        if response.status != 202:
            return Answer(status=response.status, message=said(response))
        return Answer(status=202, message=self.receive())

    def receive(self) -> dict[str, Any]:
        """The next answer on the stream."""
        deadline = time.monotonic() + ANSWER_S
        while True:
            found = self.caller.response(self.stream, events=self._heard + 1, timeout=deadline - time.monotonic())
            self._heard += 1
            message: dict[str, Any] = json.loads(blocks(found)[self._heard - 1]["data"])
            if "method" not in message:
                return message


def blocks(response: Response) -> list[dict[str, str]]:
    """The events of a stream that have data, whatever its line ends."""
    normal = copy.copy(response)
    normal.body = response.body.replace(b"\r\n", b"\n")
    return [event for event in normal.events if "data" in event]


def said(response: Response) -> dict[str, Any]:
    """The JSON-RPC answer in an HTTP answer; empty if there is none."""
    with contextlib.suppress(ValueError):
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            messages = [json.loads(event["data"]) for event in blocks(response) if event["data"]]
            return next((each for each in messages if "method" not in each), {})
        found = json.loads(response.body or b"{}")
        return found if isinstance(found, dict) else {"batch": found}
    return {}
