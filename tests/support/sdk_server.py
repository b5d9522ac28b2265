"""An MCP server made with the SDK that uses every part of the protocol: both eras, all server requests.

Usage: sdk_server.py          over standard streams
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, ListRoots, Resolve, Sample
from mcp.types import (
    Completion,
    CreateMessageResult,
    EmptyResult,
    ListRootsResult,
    SamplingMessage,
    SubscribeRequestParams,
    TextContent,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel

server = MCPServer("everything", log_level="ERROR")
notes: dict[str, str] = {"one": "first"}


class Name(BaseModel):
    """An answer of the user."""

    name: str


def ask_name() -> Elicit[Name]:
    """Ask the user."""
    return Elicit("What is your name?", Name)


def ask_model() -> Sample:
    """Ask the client's model."""
    question = SamplingMessage(role="user", content=TextContent(type="text", text="What is six times seven?"))
    return Sample([question], max_tokens=10)


def ask_roots() -> ListRoots:
    """Ask where the client works."""
    return ListRoots()


@server.tool()
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


@server.tool(structured_output=False)
def big(size: int) -> str:
    """A large text, once: structured output would send it twice."""
    return "x" * size


@server.tool()
def fail() -> str:
    """Fail."""
    raise ValueError("it went wrong")


def say_begun() -> None:
    """A file for who waits for it, if anybody does."""
    if "BEGUN" in os.environ:
        Path(os.environ["BEGUN"]).touch()


@server.tool()
async def slow(seconds: float, ctx: Context[Any, Any]) -> str:
    """Report progress, then sleep. Whoever set ``BEGUN`` finds that file when it is called."""
    say_begun()
    await ctx.report_progress(1, 2, "half")
    await asyncio.sleep(seconds)
    return "done"


@server.tool()
async def note(name: str, text: str, ctx: Context[Any, Any]) -> str:
    """Write a note, log it, and tell subscribers."""
    notes[name] = text
    await ctx.info(f"noted {name}")
    await ctx.notify_resource_updated(f"notes://{name}")
    if ctx.protocol_version != "2026-07-28":
        await ctx.session.send_resource_updated(f"notes://{name}")
    return "noted"


@server.tool()
def greet(answer: Annotated[Name, Resolve(ask_name)]) -> str:
    """Ask the user and greet."""
    return f"hello {answer.name}"


@server.tool()
def think(answer: Annotated[CreateMessageResult, Resolve(ask_model)]) -> str:
    """Ask the client's model."""
    return f"it says {getattr(answer.content, 'text', '?')}"


@server.tool()
def where(answer: Annotated[ListRootsResult, Resolve(ask_roots)]) -> str:
    """Ask for the client's roots."""
    return " ".join(str(root.uri) for root in answer.roots)


@server.resource("notes://all")
def every() -> str:
    """All notes."""
    return " ".join(notes)


@server.resource("secret://key")
def secret() -> str:
    """What nobody should read."""
    return "hunter2"


@server.resource("notes://{name}")
def one(name: str) -> str:
    """One note."""
    return notes.get(name, "")


@server.resource("secret://{name}/key")
def other(name: str) -> str:
    """More of it."""
    return name


@server.prompt()
def hello(name: str) -> str:
    """Say hello."""
    return f"say hello to {name}"


@server.prompt()
def hidden() -> str:
    """Not granted."""
    return "hidden"


@server.completion()
async def complete(ref: Any, argument: Any, context: Any) -> Completion | None:
    """Complete names of notes."""
    del ref, context
    return Completion(values=[name for name in notes if name.startswith(argument.value)])


async def subscribe(_context: Any, _params: Any) -> EmptyResult:
    """The legacy subscription: everything is told to everybody anyway."""
    return EmptyResult()


lowlevel = server._lowlevel_server
lowlevel.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
lowlevel.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, subscribe)

if __name__ == "__main__":
    server.run()
