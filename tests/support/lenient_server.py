"""An MCP server that reads as leniently as the worst that exist, and notes what it acts on.

What it lets through, each seen in a real implementation: batches at every revision, UTF-16, UTF-32, UTF-7, a byte
order mark, NaN, bytes that are not UTF-8, keys in another case or cut at NUL, ``result`` beside ``method``, calls
before any handshake. It keeps tasks, request states, subscriptions and hanging requests, all of them for everybody:
who may see what is none of its business.

Usage: lenient_server.py LOG          over standard streams
       lenient_server.py LOG SOCKET   one process for all connections on a Unix socket
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

REVISION = "io.modelcontextprotocol/protocolVersion"
TOOLS = ("echo", "pid", "hang", "release", "ask", "touch", "big", "slow")
CAPABILITIES: dict[str, Any] = {
    "tools": {}, "resources": {"subscribe": True}, "prompts": {}, "completions": {}, "logging": {}, "tasks": {},
}  # fmt: skip

Message = dict[str, Any]


def lenient(value: Any) -> Any:
    """Keys as the most tolerant reader takes them: cut at NUL, any case, letters that fold to ASCII."""
    if not isinstance(value, dict):
        return value
    known = {
        k.casefold(): k for k in ("jsonrpc", "id", "method", "params", "name", "uri", "ref", "taskId", "arguments")
    }
    return {known.get(k.split("\0")[0].casefold(), k): lenient(v) if k != "_meta" else v for k, v in value.items()}


def read(line: bytes) -> Any:
    """One line, in whatever encoding it seems to be."""
    if b"+A" in line and b"-" in line:
        return json.loads(line.decode("utf-7"))
    try:
        return json.loads(line)
    except UnicodeDecodeError:
        return json.loads(line.decode("utf-8", "replace"))


class World:
    """What all connections share."""

    def __init__(self, log: Path) -> None:
        self.lock = threading.Lock()
        self.log = log
        self.tasks: list[str] = []
        self.states: list[str] = []
        self.hanging: dict[Any, tuple[Connection, Any]] = {}
        self.subscribers: dict[str, list[Connection]] = {}

    def note(self, message: Message) -> None:
        with self.log.open("a") as log:
            log.write(json.dumps(message) + "\n")


class Connection:
    """One client, or what looks like one."""

    def __init__(self, world: World, source: Iterable[bytes], sink: BinaryIO) -> None:
        self.world = world
        self.source = source
        self.sink = sink

    def run(self) -> None:
        for line in self.source:
            if not line.strip():
                continue
            try:
                message = read(line.removesuffix(b"\n"))
            except ValueError:
                continue
            batch = message if isinstance(message, list) else [message]
            with self.world.lock:
                for each in batch:
                    self.act(lenient(each))

    def send(self, message: Message) -> None:
        try:
            self.sink.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
            self.sink.flush()
        except OSError:
            return  # that client has gone

    def act(self, message: Any) -> None:
        if not isinstance(message, dict) or "method" not in message:
            return
        self.world.note(message)
        params = message.get("params") or {}
        if "id" not in message:
            self.told(message["method"], params)
            return
        result = self.result(message["id"], message["method"], params)
        if result is not None:
            if REVISION in (params.get("_meta") or {}):
                result = {"resultType": "complete", "ttlMs": 0, "cacheScope": "public", **result}
            self.send({"id": message["id"], "result": result})

    def told(self, method: str, params: Message) -> None:
        if method == "notifications/cancelled":
            hanging = self.world.hanging.pop(params.get("requestId"), None)
            if hanging is not None:
                hanging[0].send({"id": params["requestId"], "result": text("cancelled")})

    def result(self, message_id: Any, method: str, params: Message) -> Message | None:
        world = self.world
        match method:
            case "initialize":
                version = params.get("protocolVersion")
                return {
                    "protocolVersion": version,
                    "serverInfo": {"name": "l", "version": "1"},
                    "capabilities": CAPABILITIES,
                }
            case "server/discover":
                return {"supportedVersions": ["2026-07-28"], "capabilities": CAPABILITIES}
            case "tools/list":
                return {"tools": [{"name": n, "inputSchema": {"type": "object"}} for n in TOOLS]}
            case "tools/call" if "task" in params:
                world.tasks.append(f"task-{len(world.tasks) + 1}")
                return {"task": {"taskId": world.tasks[-1], "status": "working"}}
            case "tools/call":
                return self.call(message_id, params)
            case "resources/read":
                return {"contents": [{"uri": params.get("uri"), "text": "secret"}]}
            case "resources/subscribe":
                world.subscribers.setdefault(params.get("uri", ""), []).append(self)
                return {}
            case "prompts/get":
                return {"messages": []}
            case "completion/complete":
                return {"completion": {"values": [f"secret of {json.dumps(params.get('ref'))}"]}}
            case "tasks/list":
                return {"tasks": [{"taskId": task, "status": "completed"} for task in world.tasks]}
            case "tasks/get":
                return {"taskId": params.get("taskId"), "status": "completed"}
            case "tasks/result":
                return text(f"secret of {params.get('taskId')}")
            case "subscriptions/listen":
                for uri in (params.get("notifications") or {}).get("resourceSubscriptions", ()):
                    world.subscribers.setdefault(uri, []).append(self)
                return None
        return {}

    def call(self, message_id: Any, params: Message) -> Message | None:
        world, arguments = self.world, params.get("arguments") or {}
        match params.get("name"):
            case "hang":
                world.hanging[message_id] = (self, (params.get("_meta") or {}).get("progressToken"))
                return None
            case "release":
                for number, (connection, token) in list(world.hanging.items()):
                    if token is not None:
                        told = {"progressToken": token, "progress": 1}
                        connection.send({"method": "notifications/progress", "params": told})
                    connection.send({"id": number, "result": text("released")})
                world.hanging.clear()
            case "ask" if "inputResponses" not in params:
                world.states.append(f"state-{len(world.states) + 1}")
                return {"resultType": "input_required", "requestState": world.states[-1]}
            case "touch":
                for connection in world.subscribers.get(arguments.get("uri", ""), ()):
                    connection.send({"method": "notifications/resources/updated", "params": {"uri": arguments["uri"]}})
            case "pid":
                return text(str(os.getpid()))
            case "big":
                return text("x" * int(arguments["size"]))
            case "slow":
                time.sleep(float(arguments["seconds"]))
        return text(json.dumps(arguments))


def text(words: str) -> Message:
    return {"content": [{"type": "text", "text": words}]}


def listen(world: World, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        while True:
            connection, _ = listener.accept()
            stream = connection.makefile("rwb")
            threading.Thread(target=Connection(world, stream, stream).run, daemon=True).start()


if __name__ == "__main__":
    everything = World(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        listen(everything, sys.argv[2])
    else:
        Connection(everything, sys.stdin.buffer, sys.stdout.buffer).run()
