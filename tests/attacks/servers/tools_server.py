"""A server made with the Python SDK, for the rows W: tools_server.py LOG stdio | http PORT. Notes what it executes.

Tools echo, steal, remember, recall, slow; resources notes://one and secret://key; prompts hello and hidden, with
completion. ``tools.mjs`` is the same with the two TypeScript SDKs. What is remembered belongs to the client's session.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.types import Completion, EmptyResult, SubscribeRequestParams

LOG = Path(sys.argv[1])
server = MCPServer("tools", log_level="ERROR")
pages: dict[str, list[str]] = {}


def note(what: str, text: str) -> None:
    """One line of the log."""
    with LOG.open("a", encoding="utf-8") as log:
        log.write(json.dumps([what, text], separators=(",", ":")) + "\n")


@server.tool(structured_output=False)
def echo(text: str = "") -> str:
    """Granted."""
    note("echo", text)
    return text


@server.tool(structured_output=False)
def steal(text: str = "") -> str:
    """Not granted."""
    note("steal", text)
    return "stolen"


def session(ctx: Context[Any, Any]) -> str:
    """The id of the client's session; over standard streams there is one for all."""
    request = ctx.request_context.request
    return "" if request is None else request.headers.get("mcp-session-id", "")


@server.tool(structured_output=False)
def remember(text: str, ctx: Context[Any, Any]) -> str:
    """Write a page of the session."""
    pages.setdefault(session(ctx), []).append(text)
    return "written"


@server.tool(structured_output=False)
def recall(ctx: Context[Any, Any]) -> str:
    """Every page of the session."""
    return ", ".join(pages.get(session(ctx), [])) or "nothing"


@server.tool(structured_output=False)
async def slow(seconds: float, text: str = "") -> str:
    """Wait, and note that it was not cancelled."""
    note("begun", text)
    await asyncio.sleep(seconds)
    note("slow", text)
    return text


@server.resource("notes://one")
def one() -> str:
    """Granted."""
    return "first"


@server.resource("secret://key")
def secret() -> str:
    """Not granted."""
    note("read", "secret://key")
    return "hunter2"


@server.prompt()
def hello(name: str) -> str:
    """Granted."""
    return f"say hello to {name}"


@server.prompt()
def hidden(name: str) -> str:
    """Not granted."""
    note("prompt", "hidden")
    return f"hidden {name}"


@server.completion()
async def complete(ref: Any, argument: Any, context: Any) -> Completion | None:
    """What the hidden prompt knows."""
    del argument, context
    note("complete", getattr(ref, "name", "") or str(getattr(ref, "uri", "")))
    return Completion(values=["hunter2"])


async def subscribe(_context: Any, params: Any) -> EmptyResult:
    """Everybody may."""
    note("subscribe", str(params.uri))
    return EmptyResult()


server._lowlevel_server.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)

if __name__ == "__main__":
    if sys.argv[2] == "stdio":
        server.run()
    else:
        server.run("streamable-http", port=int(sys.argv[3]))
