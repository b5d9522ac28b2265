"""An MCP server of one era that uses everything the era has, and notes what reaches it: era_server.py legacy|modern LOG.

Over standard streams, with no SDK, so that nothing is added to or taken from what it is sent. Tools: ``echo`` gives back
its ``_meta``, ``slow`` reports progress and never answers, ``talk`` logs, ``touch`` tells subscribers and that the tools
have changed, ``ask`` asks the client what its argument ``of`` says, ``task`` begins a task.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

REVISION = "io.modelcontextprotocol/protocolVersion"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
TASKS = "io.modelcontextprotocol/tasks"
TOOLS = ("echo", "slow", "talk", "touch", "ask", "task")
CAPABILITIES: dict[str, Any] = {
    "tools": {"listChanged": True},
    "resources": {"subscribe": True},
    "prompts": {},
    "completions": {},
    "logging": {},
}
QUESTIONS: dict[str, dict[str, Any]] = {
    "elicitation/create": {"message": "who?", "requestedSchema": {"type": "object", "properties": {}}},
    "sampling/createMessage": {"messages": [], "maxTokens": 1},
    "roots/list": {},
}

Message = dict[str, Any]


class Server:
    """One client on standard streams."""

    def __init__(self, era: str, log: Path) -> None:
        self.modern = era == "modern"
        self.log = log
        self.asked: dict[str, Any] = {}
        """Our question to the id of the call that it is about."""
        self.listening: list[tuple[Any, Message]] = []

    def say(self, **body: Any) -> None:
        """One message."""
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **body}) + "\n")
        sys.stdout.flush()

    def run(self) -> None:
        """Until standard input ends."""
        for line in sys.stdin:
            message = json.loads(line)
            with self.log.open("a", encoding="utf-8") as log:
                log.write(line)
            if "method" not in message:
                call = self.asked.pop(message["id"], None)
                if call is not None:
                    self.done(call, json.dumps(message.get("result", message.get("error"))))
            elif "id" in message:
                self.request(message["id"], message["method"], message.get("params") or {})

    def result(self, message_id: Any, **result: Any) -> None:
        """An answer."""
        more = {"resultType": "complete"} if self.modern else {}
        self.say(id=message_id, result={**more, **result})

    def done(self, message_id: Any, text: str, **more: Any) -> None:
        """The answer to a call."""
        self.result(message_id, content=[{"type": "text", "text": text}], **more)

    def refuse(self, message_id: Any, code: int, **data: Any) -> None:
        """An error."""
        self.say(id=message_id, error={"code": code, "message": "no", **({"data": data} if data else {})})

    def request(self, message_id: Any, method: str, params: Message) -> None:
        """One request, whose era is wrong or right."""
        if self.modern and REVISION not in params.get("_meta", {}):
            self.refuse(message_id, -32022, supported=["2026-07-28"], requested=params.get("protocolVersion", ""))
        elif not self.modern and method in {"server/discover", "subscriptions/listen"}:
            self.refuse(message_id, -32601)
        else:
            self.served(message_id, method, params)

    def served(self, message_id: Any, method: str, params: Message) -> None:
        """One request of our era."""
        match method:
            case "initialize":
                info = {"name": "era", "version": "1"}
                known = {**CAPABILITIES, "tasks": {"requests": {"tools": {"call": {}}}}}
                self.result(message_id, protocolVersion="2025-11-25", capabilities=known, serverInfo=info)
            case "server/discover":
                known = {**CAPABILITIES, "extensions": {TASKS: {}}}
                self.result(message_id, supportedVersions=["2026-07-28"], capabilities=known, ttlMs=0)
            case "tools/list":
                at = int(params.get("cursor", 0))
                page = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS[at : at + 2]]
                more = {"nextCursor": str(at + 2)} if at + 2 < len(TOOLS) else {}
                self.result(message_id, tools=page, **more, **({"ttlMs": 0} if self.modern else {}))
            case "tools/call":
                self.call(message_id, params)
            case "completion/complete":
                self.result(message_id, completion={"values": [params["argument"]["value"] + "!"]})
            case "tasks/get":
                self.result(message_id, **_task())
            case "subscriptions/listen":
                wanted = params["notifications"]
                self.listening.append((message_id, wanted))
                tag = {SUBSCRIPTION: message_id}
                method = "notifications/subscriptions/acknowledged"
                self.say(method=method, params={"notifications": wanted, "_meta": tag})
            case _:
                self.result(message_id)

    def call(self, message_id: Any, params: Message) -> None:
        """tools/call."""
        arguments, meta = params.get("arguments") or {}, params.get("_meta", {})
        match params["name"]:
            case "echo":
                shown = {key: value for key, value in meta.items() if not key.startswith("io.modelcontextprotocol/")}
                self.done(message_id, json.dumps(shown), _meta={"example.org/answer": 1})
            case "slow":
                told = {"progressToken": meta["progressToken"], "progress": 1, "_meta": {"example.org/told": 1}}
                self.say(method="notifications/progress", params=told)
            case "talk":
                self.say(method="notifications/message", params={"level": "warning", "data": "said"})
                self.done(message_id, "talked")
            case "touch":
                self.touched()
                self.done(message_id, "touched")
            case "ask":
                self.ask(message_id, arguments["of"], params)
            case "task" if "task" in params:
                self.result(message_id, task=_task())
            case "task" if TASKS in meta.get("io.modelcontextprotocol/clientCapabilities", {}).get("extensions", {}):
                self.say(id=message_id, result={"resultType": "task", **_task()})
            case _:
                self.done(message_id, "done at once")

    def touched(self) -> None:
        """Tell whoever listens."""
        uri = {"uri": "notes://one"}
        changed, updated = "notifications/tools/list_changed", "notifications/resources/updated"
        if not self.modern:
            self.say(method=changed)
            self.say(method=updated, params=uri)
        for listen, wanted in self.listening:
            tag = {"_meta": {SUBSCRIPTION: listen}}
            if wanted.get("toolsListChanged"):
                self.say(method=changed, params=tag)
            if uri["uri"] in wanted.get("resourceSubscriptions", ()):
                self.say(method=updated, params={**uri, **tag})

    def ask(self, message_id: Any, of: str, params: Message) -> None:
        """Ask the client, in the way of our era."""
        if not self.modern:
            own = f"question-{message_id}"
            self.asked[own] = message_id
            self.say(id=own, method=of, params=QUESTIONS[of])
        elif "inputResponses" in params:
            self.done(message_id, json.dumps(params["inputResponses"]["q"]))
        else:
            asked = {"q": {"method": of, "params": QUESTIONS[of]}}
            self.say(
                id=message_id, result={"resultType": "input_required", "inputRequests": asked, "requestState": "s"}
            )


def _task() -> Message:
    at = "2026-01-01T00:00:00Z"
    return {
        "taskId": "task-one", "status": "working", "ttl": 60000, "ttlMs": 60000, "createdAt": at, "lastUpdatedAt": at,
    }  # fmt: skip


if __name__ == "__main__":
    Server(sys.argv[1], Path(sys.argv[2])).run()
