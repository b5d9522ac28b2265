"""HTTP by hand, from a process of its own: the process opens connections and copies bytes, the test reads and writes them.

The text of the program makes its identity; ``mark`` makes another one.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import machine
from tests.support.instance import Instance, running

PIPES = '''\
"""Open connections and copy bytes, as told by lines of JSON on standard input. {mark}"""
import base64, json, os, socket, sys, threading

open_ones = {}
turn = threading.Lock()


def read(name, s):
    left = 1 << 10 if name.startswith("deaf") else 1 << 60
    while left:
        try:
            data = s.recv(min(left, 1 << 16))
        except OSError:
            data = b""
        with turn:
            print(json.dumps([name, base64.b64encode(data).decode()]), flush=True)
        if not data:
            return
        left -= len(data)


for line in sys.stdin:
    name, place, data, *forked = json.loads(line)
    if name not in open_ones:
        if isinstance(place, int):
            s = socket.socket(fileno=place)
        else:
            six = ":" in place[0]
            s = socket.socket(socket.AF_UNIX if isinstance(place, str) else socket.AF_INET6 if six else socket.AF_INET)
            s.connect(place if isinstance(place, str) else tuple(place))
        open_ones[name] = s
        threading.Thread(target=read, args=(name, s), daemon=True).start()
    if forked and (child := os.fork()) > 0:
        os.waitpid(child, 0)
    elif forked:
        open_ones[name].sendall(base64.b64decode(data))
        os._exit(0)
    elif data is None:
        open_ones[name].shutdown(2)
    else:
        try:
            open_ones[name].sendall(base64.b64decode(data))
        except OSError:
            pass  # the other side has heard enough; what it said is read all the same
'''


LAUNDER = '''\
"""Connect, write what a file holds, then: exec a program that has the socket, share it with a child, or close it."""
import os, socket, sys, time

how, place, text, program = sys.argv[1:]
if place.startswith("/"):
    s = socket.socket(socket.AF_UNIX)
    s.connect(place)
else:
    s = socket.create_connection(("127.0.0.1", int(place)))
s.sendall(open(text, "rb").read())
if how == "close":
    s.close()
    print("closed", flush=True)
    sys.stdin.read()
    sys.exit()
if how == "share" and os.fork() == 0:
    time.sleep(60)
os.set_inheritable(s.fileno(), True)
os.dup2(s.fileno(), 9)
os.set_inheritable(9, True)
s.close()
os.execv(sys.executable, [sys.executable, "-u", program])
'''
ADOPTED = 9
"""The socket of a program that was executed by ``LAUNDER``."""


ON_TCP = pytest.mark.linux("TCP peers")
PLACES = [pytest.param("tcp", marks=ON_TCP), "unix"]
"""Where a daemon serves HTTP."""


def loopback_port() -> int:
    """A free one for a daemon; 0 where none is served."""
    return free_port() if machine.chosen == "linux" else 0


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
    """One process and its connections; of one whose name begins with ``deaf`` the first KiB is read."""

    def __init__(self, process: subprocess.Popen[bytes], place: Any, server: str) -> None:
        self.process = process
        self.place = place
        self.path = "/mcp" if isinstance(place, str) else f"/{server}/mcp"
        self.host = "localhost" if isinstance(place, str) else f"127.0.0.1:{place[1]}"
        self.received: dict[str, bytearray] = {}
        self.ended: set[str] = set()
        self._unread = bytearray()
        self.session = ""
        self._next = 0

    def send(self, raw: bytes, connection: str = "a") -> None:
        """Bytes on a connection, which is opened by the first of them."""
        self._tell([connection, self.place, base64.b64encode(raw).decode()])

    def send_as_child(self, raw: bytes, connection: str = "a") -> None:
        """The same, written by a child of the client, which inherited the connection."""
        self._tell([connection, self.place, base64.b64encode(raw).decode(), True])

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
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        connection: str = "a",
        *,
        follow: bool = True,
        **keys: Any,
    ) -> Response:
        """The same in 2026-07-28; sent again where it is redirected to."""
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params = {**(params or {}), "_meta": meta}
        usual = {"mcp_protocol_version": "2026-07-28", "mcp_method": name}
        if "name" in params:
            usual["mcp_name"] = params["name"]
        answer = self.request(name, params, connection, **{**usual, **keys})
        if answer.status == 307 and follow:
            path = answer.headers["location"]
            answer = self.request(name, params, connection, **{**usual, **keys, "path": path})
        return answer

    def initialize(self, version: str = "2025-11-25", connection: str = "a") -> Response:
        """The handshake."""
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "by hand", "version": "1"}}
        self.session = ""
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
            if found is None and connection in self.ended:
                found = until_end(self.received.get(connection, b""))
            if found is not None:
                return found
            assert connection not in self.ended, f"the connection ended: {self.received.get(connection)!r}"
            self._read(deadline)

    def until_ended(self, connection: str = "a", timeout: float = 20) -> bytes:
        """Everything that is still to come on a connection."""
        deadline = time.monotonic() + timeout
        while connection not in self.ended:
            self._read(deadline)
        return bytes(self.received.pop(connection, b""))

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
        while (end := self._unread.find(b"\n")) < 0:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"nothing came; have {self.received!r}")
            some = os.read(self.process.stdout.fileno(), 1 << 20)
            assert some, "the client process ended"
            self._unread += some
        name, data = json.loads(self._unread[:end])
        del self._unread[: end + 1]
        raw = base64.b64decode(data)
        if raw:
            self.received.setdefault(name, bytearray()).extend(raw)
        else:
            self.ended.add(name)

    def _parse(self, connection: str, events: int | None) -> Response | None:
        received = self.received.setdefault(connection, bytearray())
        found, self.received[connection] = parse_response(received, events)
        return found


def parse_response(raw: Any, events: int | None = None) -> tuple[Response | None, Any]:
    """The first answer in these bytes, if it is whole (of a stream: if it has so many events), and what is left."""
    begin = raw.find(b"\r\n\r\n") + 4
    if begin < 4:
        return None, raw
    response = Response(raw[: begin - 4])
    if response.status == 100:
        return parse_response(raw[begin:], events)
    if "content-length" in response.headers:
        end = begin + int(response.headers["content-length"])
        if len(raw) < end:
            return None, raw
        response.body = bytes(raw[begin:end])
        return response, raw[end:]
    pieces, position, whole = [], begin, False
    while not whole:  # by position: an answer of megabytes is looked at again for each piece of it that comes
        end = raw.find(b"\r\n", position)
        size = int(raw[position:end], 16) if end >= 0 else -1
        following = end + 2 + size + 2
        if size < 0 or len(raw) < following:
            break
        pieces.append((end + 2, end + 2 + size))
        position, whole = following, size == 0
    if whole or events is not None:
        response.body = b"".join(raw[start:end] for start, end in pieces)
    if whole:
        return response, raw[position:]
    if events is not None and len(response.events) >= events:
        return response, raw
    return None, raw


def until_end(raw: bytes) -> Response | None:
    """An answer whose body has no length: it ended with the connection."""
    head, found, rest = raw.partition(b"\r\n\r\n")
    response = Response(head) if found else None
    if response is None or {"content-length", "transfer-encoding"} & response.headers.keys():
        return None
    response.body = rest
    return response


def program(instance: Instance, mark: str = "") -> Path:
    """The client on disk."""
    return instance.script(f"pipes{mark}.py", PIPES.replace("{mark}", mark))


@contextlib.contextmanager
def calling(instance: Instance, place: Any, *, server: str = "echo", mark: str = "") -> Iterator[Caller]:
    """A client; ``place`` is the path of a Unix socket, or host and port. ``mark``: letters and digits."""
    with started(instance, [sys.executable, "-u", str(program(instance, mark))], place, server) as caller:
        yield caller


@contextlib.contextmanager
def started(instance: Instance, words: list[str], place: Any, server: str = "echo") -> Iterator[Caller]:
    """A client started in some other way."""
    process = subprocess.Popen(
        words,
        env=instance.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )
    try:
        yield Caller(process, place, server)
    finally:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def asleep(instance: Instance) -> Iterator[None]:
    """The daemon does not run meanwhile; what clients do waits in its sockets."""
    assert instance.process is not None
    instance.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        instance.process.send_signal(signal.SIGCONT)


def admit(instance: Instance, place: Any, *words: str, server: str = "echo", mark: str = "") -> None:
    """Let the client be refused once, and approve it."""
    with calling(instance, place, server=server, mark=mark) as caller:
        refusal = caller.initialize().json
        instance.approve(refusal["error"]["data"]["code"], *words)


class Booth:
    """A daemon with a loopback port where one is served, and two granted programs: the client, and the one with the mark ``other``."""

    def __init__(self, instance: Instance, port: int) -> None:
        self.instance = instance
        self.port = port

    def at(self, place: str) -> Any:
        """Where ``tcp`` or ``unix`` is."""
        return str(self.instance.socket()) if place == "unix" else ("127.0.0.1", self.port)

    def marks(self) -> set[str]:
        """The marks of calls that were executed."""
        return {str(call.get("arguments", {}).get("mark", "")) for call in self.instance.executed()}

    def recorded(self, cause: str) -> int:
        """How many records have this cause."""
        return len(self.instance.records(cause=cause))

    def request(self, mark: str, place: Any, *, modern: bool = False) -> bytes:
        """A marked tool call as bytes, without a session."""
        params: dict[str, Any] = {"name": "echo", "arguments": {"mark": mark}}
        headers = ""
        if modern:
            headers = "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: echo\r\n"
            params["_meta"] = {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            }
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        path, host = ("/mcp", "localhost") if isinstance(place, str) else ("/echo/mcp", f"127.0.0.1:{place[1]}")
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{headers}"
        return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


@contextlib.contextmanager
def booth(root: Path, *, recorder: str | None = None) -> Iterator[Booth]:
    """A started one."""
    port = loopback_port()
    limits = {"refusals_per_minute": 100_000}  # each refusal is a record of its own
    with running(root, recorder=recorder, listen={"port": port}, limits=limits) as instance:
        made = Booth(instance, port)
        for mark in ("", "other"):
            admit(instance, made.at("unix"), "--all-tools", mark=mark)
        with calling(instance, made.at("unix")) as caller:
            caller.initialize()
            assert caller.call(mark="first").status == 200  # the launcher lives on from the first call
        yield made
