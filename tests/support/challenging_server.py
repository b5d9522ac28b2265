"""An MCP server over stdio that challenges its client as attestd does, before the first call has an effect.

Modern: the call is answered with ``input_required`` and a state; the retry must echo it. Legacy: a ping with a state as
its id is sent, and the call is answered only after the client has answered that. The result is a transcript of what the
client sent.
Usage: challenging_server.py modern|legacy
"""

from __future__ import annotations

import json
import sys
from typing import Any

from attestd.wire.framing import Line, LineFramer
from attestd.wire.model import Kind, Limits, Message
from attestd.wire.parse import parse_message
from attestd.wire.refusal import error_line, input_required_line, ping_line, result_line

STATE = "challenge-6f1c"
CAPABILITIES: dict[str, Any] = {"tools": {}, "prompts": {}, "resources": {}}
INFO = {"name": "challenging", "version": "1"}
CACHE = {"resultType": "complete", "cacheScope": "private", "ttlMs": 0}


class Server:
    """One connection."""

    def __init__(self, era: str) -> None:
        self.era = era
        self.seen: list[dict[str, Any]] = []
        self.waiting: Message | None = None

    def answer(self, message: Message) -> bytes:
        """The line for one message, or nothing."""
        if message.kind is Kind.RESULT:
            return self.challenge_answered(message)
        if message.kind is Kind.NOTIFICATION or message.id is None:
            return b""
        match message.method, self.era:
            case "server/discover", "modern":
                return result_line(
                    message.id,
                    {**CACHE, "supportedVersions": ["2026-07-28"], "capabilities": CAPABILITIES, "serverInfo": INFO},
                )
            case "initialize", "legacy":
                return result_line(
                    message.id, {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, "serverInfo": INFO}
                )
            case "tools/list", _:
                tools = [{"name": "t", "inputSchema": {"type": "object"}}]
                return result_line(message.id, {**CACHE, "tools": tools} if self.era == "modern" else {"tools": tools})
            case (("tools/call" | "prompts/get" | "resources/read"), _):
                return self.call(message)
            case _:
                return error_line(message.id, -32601, f"cannot find {message.method}")

    def call(self, message: Message) -> bytes:
        """Challenge first, then serve."""
        assert message.id is not None
        self.seen.append(
            {"id": message.id, "params": sorted(message.params), "state": message.params.get("requestState")}
        )
        if self.era == "legacy":
            self.waiting = message
            return ping_line(STATE)
        if message.params.get("requestState") != STATE:
            return input_required_line(message.id, STATE)
        return self.served(message)

    def challenge_answered(self, message: Message) -> bytes:
        """The pong: now the call is served."""
        waiting, self.waiting = self.waiting, None
        if message.id != STATE or waiting is None:
            return b""
        self.seen.append({"pong": message.body["result"]})
        return self.served(waiting)

    def served(self, message: Message) -> bytes:
        """The transcript in the shape of the method's result."""
        assert message.id is not None
        text = {"type": "text", "text": json.dumps(self.seen)}
        shapes: dict[str | None, dict[str, Any]] = {
            "tools/call": {"content": [text]},
            "prompts/get": {"messages": [{"role": "user", "content": text}]},
            "resources/read": {
                "contents": [{"uri": message.params.get("uri"), "text": text["text"]}],
                "cacheScope": "private",
                "ttlMs": 0,
            },
        }
        kind = {"resultType": "complete"} if self.era == "modern" else {}
        return result_line(message.id, {**shapes[message.method], **kind})


def main() -> None:
    """Serve standard input to its end."""
    limits = Limits()
    framer = LineFramer(limits.message_bytes)
    server = Server(sys.argv[1])
    while chunk := sys.stdin.buffer.read1(65536):
        for item in framer.feed(chunk):
            if isinstance(item, Line):
                sys.stdout.buffer.write(server.answer(parse_message(item.data, limits)))
                sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
