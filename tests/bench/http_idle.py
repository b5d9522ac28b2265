"""10 000 idle streams over HTTP (quick: 2 000): what each keeps of the daemon's memory, in both eras.

A session of 2025-11-25 with its stream (GET), after one call; a subscription of 2026-07-28 (subscriptions/listen). Each
has a connection of its own to attestd and a stream of its own to the server, which here is as fast as Python makes one.
Forty client processes hold 250 each.
"""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.report import Figure
from tests.bench.stage import instance, let_in, memory_kib, running
from tests.support.instance import Instance

STREAMS = 10_000
EACH = 250
"""Streams of one client process; a process has at most 256 sessions."""
FILES = 65_536
SERVER = '''\
"""An HTTP server that keeps streams open: idle_server.py SOCKET."""
import json, selectors, socket, sys

END = b"\\r\\n\\r\\n"
EVENTS = b"HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\nTransfer-Encoding: chunked\\r\\n"
SESSION = b"Mcp-Session-Id: %d\\r\\n"
META = "io.modelcontextprotocol/"
INFO = {"name": "bench", "version": "1"}
sessions = 0


def answer(status, body, extra=b""):
    head = b"HTTP/1.1 %s\\r\\nContent-Type: application/json\\r\\n%sContent-Length: %d" % (status, extra, len(body))
    return head + END + body


def event(message):
    data = b"data: " + json.dumps(message).encode() + b"\\n\\n"
    return b"%x\\r\\n" % len(data) + data + b"\\r\\n"


def respond(method, body):
    global sessions
    if method == b"GET":
        return EVENTS + b"\\r\\n" + event({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    message = json.loads(body or b"{}")
    called = message.get("method")
    if "id" not in message:
        return answer(b"202 Accepted", b"")
    if called == "subscriptions/listen":
        about = {"notifications": message["params"]["notifications"], "_meta": {META + "subscriptionId": message["id"]}}
        told = {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": about}
        return EVENTS + b"\\r\\n" + event(told)
    extra, result = b"", {"content": [{"type": "text", "text": "hello"}], "isError": False}
    if "_meta" in message.get("params", {}):
        result["resultType"] = "complete"
    if called == "server/discover":
        result |= {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {"listChanged": True}}, "serverInfo": INFO}
        result |= {"ttlMs": 0, "cacheScope": "private"}
    if called == "initialize":
        sessions += 1
        extra, capabilities = SESSION % sessions, {"tools": {"listChanged": True}}
        result = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": INFO}
    return answer(b"200 OK", json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode(), extra)


def readable(connection, rest):
    try:
        data = connection.recv(65536)
    except ConnectionResetError:
        data = b""
    if not data:
        ready.unregister(connection)
        connection.close()
        return
    rest += data
    while (end := rest.find(END)) >= 0:
        head = bytes(rest[:end]).lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\\r\\n", 1)[0]) if at >= 0 else 0
        if len(rest) < end + 4 + length:
            return
        said = respond(bytes(rest[: rest.find(b" ")]), bytes(rest[end + 4 : end + 4 + length]))
        del rest[: end + 4 + length]
        connection.sendall(said)


ready = selectors.DefaultSelector()
front = socket.socket(socket.AF_UNIX)
front.bind(sys.argv[1])
front.listen(4096)
ready.register(front, selectors.EVENT_READ, None)
print("ready", flush=True)
while True:
    for key, _ in ready.select():
        if key.fileobj is front:
            ready.register(front.accept()[0], selectors.EVENT_READ, bytearray())
        else:
            readable(key.fileobj, key.data)
'''
CROWD = '''\
"""Opens streams and leaves them idle: idle_crowd.py session|subscription NUMBER SOCKET. Prints a line when all are open."""
import json, re, socket, sys

kind, count, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
META = "io.modelcontextprotocol/"
INFO = {"name": "bench", "version": "1"}
MODERN = {META + "protocolVersion": "2026-07-28", META + "clientCapabilities": {}, META + "clientInfo": INFO}
at = "/mcp"


def refused(body):
    found = re.search(rb'"code":"([0-9A-Z]{4}-[0-9A-Z]{4})"', body)
    if found:
        print(json.dumps({"refused": {"code": found[1].decode()}}), flush=True)
        sys.exit(3)


def ask(end, method, extra, message=None, until=None):
    """One exchange: the head and as much of the body as is complete, or holds ``until``."""
    data = b"" if message is None else json.dumps({"jsonrpc": "2.0", **message}).encode()
    head = f"{method} {at} HTTP/1.1\\r\\nHost: localhost\\r\\nAccept: application/json, text/event-stream\\r\\n{extra}"
    head += f"Content-Type: application/json\\r\\nContent-Length: {len(data)}\\r\\n" if data else ""
    end.sendall(head.encode() + b"\\r\\n" + data)
    data = b""
    while True:
        part = end.recv(65536)
        if not part:
            raise RuntimeError(f"closed after {data!r}")
        data += part
        head, found, body = data.partition(b"\\r\\n\\r\\n")
        length = re.search(rb"(?i)content-length: *([0-9]+)", head)
        if found and (len(body) >= int(length[1]) if length else until and until in body):
            return head.decode(), body


def session():
    end = socket.socket(socket.AF_UNIX)
    end.connect(path)
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": INFO}
    head, body = ask(end, "POST", "", {"id": 0, "method": "initialize", "params": hello})
    refused(body)
    name = re.search(r"(?i)mcp-session-id: *(\\S+)", head)[1]
    extra = f"Mcp-Session-Id: {name}\\r\\nMCP-Protocol-Version: 2025-11-25\\r\\n"
    ask(end, "POST", extra, {"method": "notifications/initialized"})
    head, body = ask(end, "POST", extra, {"id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {}}})
    refused(body)
    if b"hello" not in body:
        raise RuntimeError(f"{head} {body}")
    ask(end, "GET", extra, until=b"list_changed")
    return end


def subscription(number):
    global at
    end = socket.socket(socket.AF_UNIX)
    end.connect(path)
    extra = "MCP-Protocol-Version: 2026-07-28\\r\\n"
    if number == 0:
        call = {"name": "echo", "arguments": {}, "_meta": MODERN}
        call = {"id": "call", "method": "tools/call", "params": call}
        head, body = ask(end, "POST", extra + "Mcp-Method: tools/call\\r\\nMcp-Name: echo\\r\\n", call)
        if " 307 " in head.split("\\r\\n")[0]:
            at = re.search(r"(?i)location: *(\\S+)", head)[1]
            head, body = ask(end, "POST", extra + "Mcp-Method: tools/call\\r\\nMcp-Name: echo\\r\\n", call)
        refused(body)
    wish = {"notifications": {"toolsListChanged": True}, "_meta": MODERN}
    wish = {"id": number, "method": "subscriptions/listen", "params": wish}
    ask(end, "POST", extra + "Mcp-Method: subscriptions/listen\\r\\n", wish, until=b"acknowledged")
    return end


ends = [session() if kind == "session" else subscription(number) for number in range(count)]
print("ready", flush=True)
sys.stdin.read()
'''


def measure(*, quick: bool) -> list[Figure]:
    """A daemon for each kind, so that the allocator's history is the same."""
    return [
        _idle("session", "session with its stream, 2025-11-25", quick=quick),
        _idle("subscription", "subscription, 2026-07-28", quick=quick),
    ]


def _idle(kind: str, what: str, *, quick: bool) -> Figure:
    limits = {"connections_per_uid": 3 * STREAMS, "open_requests": 2 * EACH}
    with instance(**limits) as made, _server(made):
        script = made.script("idle_crowd.py", CROWD)
        made.start()
        assert made.process is not None
        pid = made.process.pid
        files = _raise(pid)
        streams = min(2_000 if quick else STREAMS, (files - 1_000) // 2 // EACH * EACH)
        front = str(made.socket("idle"))
        let_in(made, [str(script), kind, "1", front])
        with contextlib.ExitStack() as stack:
            stack.enter_context(_held(made, [str(script), kind, str(EACH), front]))
            time.sleep(2)  # what the first ones load is not kept for each
            before, start, used = memory_kib(pid, "VmRSS"), time.monotonic(), _files(pid)
            for _ in range(streams // EACH):
                stack.enter_context(_held(made, [str(script), kind, str(EACH), front]))
            seconds = time.monotonic() - start
            time.sleep(3)
            after, most = memory_kib(pid, "VmRSS"), memory_kib(pid, "VmHWM")
            more = _files(pid) - used
    return Figure(
        name=f"memory of the daemon per idle {what} ({streams} of them)",
        value=(after - before) / streams,
        unit="KiB",
        limit=100,
        parts={
            "daemon before MiB": before / 1024,
            "after MiB": after / 1024,
            "most ever MiB": most / 1024,
            "descriptors each": more / streams,
            "opened per second": streams / seconds,
        },
        note="" if quick or streams == STREAMS else f"a process may have only {files} descriptors here",
    )


@contextlib.contextmanager
def _server(made: Instance) -> Iterator[None]:
    script = made.script("idle_server.py", SERVER)
    path = made.root / "idle-server.sock"
    with running([sys.executable, str(script), str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        _raise(process.pid)
        made.server("idle", transport="http", url="http://localhost/mcp", socket=str(path))
        yield


@contextlib.contextmanager
def _held(made: Instance, words: list[str]) -> Iterator[None]:
    """One process with its streams, as long as the block."""
    process = subprocess.Popen(
        [sys.executable, *words], env=made.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        if said != "ready\n":
            raise RuntimeError(f"the streams were not opened: {said}")
        yield
    finally:
        process.communicate()


def _raise(pid: int) -> int:
    """Let a process have as many descriptors as this user may give it; how many."""
    with contextlib.suppress(PermissionError, ValueError):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (FILES, FILES))
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]


def _files(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
