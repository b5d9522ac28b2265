"""HTTP by hand, from a process of its own: the process opens connections and copies bytes, the test reads and writes them.

The text of the program makes its identity; ``mark`` makes another one.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.instance import Instance

PIPES = '''\
"""Open connections and copy bytes, as told by lines of JSON on standard input. {mark}"""
import base64, json, os, socket, sys, threading

open_ones = {}


def read(name, s):
    while True:
        try:
            data = s.recv(1 << 16)
        except OSError:
            data = b""
        print(json.dumps([name, base64.b64encode(data).decode()]), flush=True)
        if not data:
            return


for line in sys.stdin:
    name, place, data = json.loads(line)
    if name not in open_ones:
        s = socket.socket(socket.AF_UNIX if isinstance(place, str) else socket.AF_INET)
        s.connect(place if isinstance(place, str) else tuple(place))
        open_ones[name] = s
        threading.Thread(target=read, args=(name, s), daemon=True).start()
    if data is None:
        open_ones[name].shutdown(2)
    else:
        open_ones[name].sendall(base64.b64decode(data))
'''


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Response:
    """Status, headers and what came of the body so far."""

    def __init__(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}
        self.body = b""

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def events(self) -> list[dict[str, str]]:
        """The body as events, comments left out."""
        found = []
        for block in self.body.decode().split("\n\n")[:-1]:
            fields = [line.partition(": ") for line in block.split("\n") if not line.startswith(":")]
            if fields:
                found.append({key: value for key, _, value in fields})
        return found

    @property
    def messages(self) -> list[Any]:
        """The messages in the events."""
        return [json.loads(event["data"]) for event in self.events if event.get("data")]


class Caller:
    """One process and its connections."""

    def __init__(self, process: subprocess.Popen[bytes], place: Any, server: str) -> None:
        self.process = process
        self.place = place
        self.path = "/mcp" if isinstance(place, str) else f"/{server}/mcp"
        self.host = "localhost" if isinstance(place, str) else f"127.0.0.1:{place[1]}"
        self.received: dict[str, bytes] = {}
        self.ended: set[str] = set()
        self.session = ""
        self._next = 0

    def send(self, raw: bytes, connection: str = "a") -> None:
        """Bytes on a connection, which is opened by the first of them."""
        self._tell([connection, self.place, base64.b64encode(raw).decode()])

    def hang_up(self, connection: str = "a") -> None:
        """End a connection."""
        self._tell([connection, self.place, None])

    def post(
        self, body: Any, connection: str = "a", *, path: str = "", method: str = "POST", **headers: str | None
    ) -> None:
        """One request; ``headers`` with _ for -, None to leave a usual one out."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        usual: dict[str, str | None] = {
            "Host": self.host,
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json" if content else None,
            "Content-Length": str(len(content)) if content else None,
            "Mcp-Session-Id": self.session or None,
        }
        given = {key.replace("_", "-").title(): value for key, value in headers.items()}
        lines = [f"{key}: {value}" for key, value in {**usual, **given}.items() if value is not None]
        head = "\r\n".join([f"{method} {path or self.path} HTTP/1.1", *lines]) + "\r\n\r\n"
        self.send(head.encode() + content, connection)

    def ask(self, body: Any, connection: str = "a", **keys: Any) -> Response:
        """A request and its whole answer."""
        self.post(body, connection, **keys)
        return self.response(connection)

    def request(
        self, name: str, params: Mapping[str, Any] | None = None, connection: str = "a", **keys: Any
    ) -> Response:
        """A JSON-RPC request and the HTTP answer."""
        self._next += 1
        return self.ask(
            {"jsonrpc": "2.0", "id": self._next, "method": name, "params": dict(params or {})}, connection, **keys
        )

    def modern(
        self, name: str, params: Mapping[str, Any] | None = None, connection: str = "a", **keys: Any
    ) -> Response:
        """The same in 2026-07-28."""
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params = {**(params or {}), "_meta": meta}
        usual = {"mcp_protocol_version": "2026-07-28", "mcp_method": name}
        if "name" in params:
            usual["mcp_name"] = params["name"]
        return self.request(name, params, connection, **{**usual, **keys})

    def initialize(self, version: str = "2025-11-25", connection: str = "a") -> Response:
        """The handshake."""
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "by hand", "version": "1"}}
        answer = self.request("initialize", params, connection)
        self.session = answer.headers.get("mcp-session-id", "")
        if self.session:
            assert self.ask({"jsonrpc": "2.0", "method": "notifications/initialized"}, connection).status == 202
        return answer

    def call(self, tool: str = "echo", connection: str = "a", **arguments: Any) -> Response:
        """A tool call within the session."""
        return self.request("tools/call", {"name": tool, "arguments": arguments}, connection)

    def response(self, connection: str = "a", *, events: int | None = None, timeout: float = 20) -> Response:
        """The next answer; of a stream only until it has so many events."""
        deadline = time.monotonic() + timeout
        while True:
            found = self._parse(connection, events)
            if found is not None:
                return found
            assert connection not in self.ended, f"the connection ended: {self.received.get(connection)!r}"
            self._read(deadline)

    def until_ended(self, connection: str = "a", timeout: float = 20) -> bytes:
        """Everything that is still to come on a connection."""
        deadline = time.monotonic() + timeout
        while connection not in self.ended:
            self._read(deadline)
        return self.received.pop(connection, b"")

    def quiet(self, connection: str = "a", seconds: float = 0.5) -> bool:
        """Whether nothing comes."""
        with contextlib.suppress(TimeoutError):
            self._read(time.monotonic() + seconds)
        return not self.received.get(connection)

    def _tell(self, words: list[Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words).encode() + b"\n")
        self.process.stdin.flush()

    def _read(self, deadline: float) -> None:
        import select

        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError(f"nothing came; have {self.received!r}")
        line = self.process.stdout.readline()
        assert line, "the client process ended"
        name, data = json.loads(line)
        raw = base64.b64decode(data)
        if raw:
            self.received[name] = self.received.get(name, b"") + raw
        else:
            self.ended.add(name)

    def _parse(self, connection: str, events: int | None) -> Response | None:
        raw = self.received.get(connection, b"")
        head, found, rest = raw.partition(b"\r\n\r\n")
        if not found:
            return None
        response = Response(head)
        if response.status == 100:
            self.received[connection] = rest
            return self._parse(connection, events)
        if "content-length" in response.headers:
            size = int(response.headers["content-length"])
            if len(rest) < size:
                return None
            response.body, self.received[connection] = rest[:size], rest[size:]
            return response
        while rest:
            size_line, found, after = rest.partition(b"\r\n")
            size = int(size_line, 16) if found else -1
            if size < 0 or len(after) < size + 2:
                break
            response.body += after[:size]
            rest = after[size + 2 :]
            if size == 0:
                self.received[connection] = rest
                return response
        if events is not None and len(response.events) >= events:
            return response
        return None


@contextlib.contextmanager
def calling(instance: Instance, place: Any, *, server: str = "echo", mark: str = "") -> Iterator[Caller]:
    """A client; ``place`` is the path of a Unix socket, or host and port."""
    script = instance.script(f"pipes{abs(hash(mark)) % 10**8 if mark else ''}.py", PIPES.replace("{mark}", mark))
    yield from _running(instance, script, place, server)


def _running(instance: Instance, script: Path, place: Any, server: str) -> Iterator[Caller]:
    process = subprocess.Popen(
        [sys.executable, "-u", str(script)],
        env=instance.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    try:
        yield Caller(process, place, server)
    finally:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        process.kill()
        process.wait()


def admit(instance: Instance, place: Any, *words: str, server: str = "echo", mark: str = "") -> None:
    """Let the client be refused once, and approve it."""
    with calling(instance, place, server=server, mark=mark) as caller:
        refusal = caller.initialize().json
        instance.approve(refusal["error"]["data"]["code"], *words)
