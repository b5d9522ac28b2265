"""Streams over HTTP: how much later the first byte of a stream, and an event within it, arrive through attestd.

The client is a bare socket, so nothing but the way is measured; the server is made with the SDK. Its tool says when it
began (the machine's monotonic clock), and ends a moment later.
"""

from __future__ import annotations

import json
import statistics

from tests.bench.http_stage import fronted, http_server
from tests.bench.report import Figure
from tests.bench.stage import let_in, one_cpu

CALLER = '''\
"""Times streams in turn: stream_caller.py ROUNDS REVISION URL…: prints for each URL [first byte, event] in microseconds.

First byte: from the request to the first byte of its answer. Event: from the server's clock to the client.
"""
import json, re, socket, sys, time
from urllib.parse import urlsplit

rounds, revision = int(sys.argv[1]), sys.argv[2]
MODERN = revision >= "2026"
META = "io.modelcontextprotocol/"
INFO = {"name": "bench", "version": "1"}


class End:
    def __init__(self, url):
        at = urlsplit(url)
        self.host, self.path, self.extra, self.number = at.netloc, at.path, "", 0
        self.socket = socket.create_connection((at.hostname, at.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not MODERN:
            hello = {"protocolVersion": revision, "capabilities": {}, "clientInfo": INFO}
            head, body, _ = self.post("initialize", hello)
            refused(body)
            session = re.search(r"(?i)mcp-session-id: *(\\S+)", head)
            self.extra = f"MCP-Protocol-Version: {revision}\\r\\n"
            self.extra += f"Mcp-Session-Id: {session[1]}\\r\\n" if session else ""
            self.post("notifications/initialized", None)

    def post(self, method, params):
        message = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            self.number += 1
            message |= {"id": self.number, "params": params}
        extra = self.extra
        if MODERN:
            meta = {META + "protocolVersion": revision, META + "clientCapabilities": {}, META + "clientInfo": INFO}
            params["_meta"] = {**params.get("_meta", {}), **meta}
            extra += f"MCP-Protocol-Version: {revision}\\r\\nMcp-Method: {method}\\r\\nMcp-Name: {params['name']}\\r\\n"
        data = json.dumps(message).encode()
        head = f"POST {self.path} HTTP/1.1\\r\\nHost: {self.host}\\r\\nContent-Type: application/json\\r\\n{extra}"
        head += f"Accept: application/json, text/event-stream\\r\\nContent-Length: {len(data)}\\r\\n\\r\\n"
        start = time.monotonic_ns()
        self.socket.sendall(head.encode() + data)
        head, body, times = self.read(start)
        if head.startswith("HTTP/1.1 307"):
            self.path = re.search(r"(?i)location: *(\\S+)", head)[1]
            return self.post(method, params)
        return head, body, times

    def read(self, start):
        data, first, event = b"", 0, 0
        while True:
            part = self.socket.recv(65536)
            now = time.monotonic_ns()
            if not part:
                raise RuntimeError(f"closed after {data!r}")
            first = first or now - start
            data += part
            stamp = re.search(rb'"message": ?"([0-9]{9,})"', data)
            if stamp and not event:
                event = now - int(stamp[1])
            head, found, body = data.partition(b"\\r\\n\\r\\n")
            length = re.search(rb"(?i)content-length: *([0-9]+)", head)
            if found and (len(body) >= int(length[1]) if length else body.endswith(b"0\\r\\n\\r\\n")):
                return head.decode(), body, (first / 1000, event / 1000)


def refused(body):
    found = re.search(rb'"code":"([0-9A-Z]{4}-[0-9A-Z]{4})"', body)
    if found:
        print(json.dumps({"refused": {"code": found[1].decode()}}))
        sys.exit(3)


ends = [End(url) for url in sys.argv[3:]]
times = [[] for _ in ends]
for number in range(rounds + 2):
    for end, into in zip(ends, times):
        asked = {"name": "tell", "arguments": {"seconds": 0.003}, "_meta": {"progressToken": f"t{number}"}}
        head, body, found = end.post("tools/call", asked)
        refused(body)
        if b"done" not in body or not found[1]:
            raise RuntimeError(f"{head} {body}")
        if number > 1:
            into.append(found)
print(json.dumps(times))
'''


def measure(*, quick: bool) -> list[Figure]:
    """Each era by itself, directly and through attestd in turn."""
    rounds = 200 if quick else 1000
    figures = []
    with one_cpu(), fronted() as (made, port), http_server(made) as url:
        made.server("sdk", transport="http", url=url)
        script = made.script("stream_caller.py", CALLER)
        made.start()
        for revision in ("2025-11-25", "2026-07-28"):
            words = [str(rounds), revision, url, f"http://127.0.0.1:{port}/sdk/mcp"]
            times = json.loads(let_in(made, [str(script), *words]))
            direct, ours = ([statistics.median(column) for column in zip(*each, strict=True)] for each in times)
            figures += [
                Figure(
                    name=f"{what}, {revision}: added by attestd",
                    value=(ours[index] - direct[index]) / 1000,
                    unit="ms",
                    limit=2.0,
                    parts={"direct µs": direct[index], "attestd µs": ours[index]},
                    note="all on one CPU",
                    rounds=rounds,
                )
                for index, what in enumerate(
                    ("first byte of a stream", "an event, from the server's clock to the client")
                )
            ]
    return figures
