"""A client made with the SDK (or with fastmcp) that starts ``attestd-connect`` and carries out steps.

Usage: sdk_client.py mcp|fastmcp auto|legacy SHIM SOCKET SERVER [STEP...]. In the shim's place may stand a URL, with
``sse+`` before it for HTTP+SSE; SOCKET then is the Unix socket to go through, or empty. A step is a JSON array of an operation and
its arguments. Prints one line of JSON for each step: {"ok": …} or {"message": …, "data": …}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

import fastmcp
import httpx2
from fastmcp.client.transports import SSETransport, StdioTransport, StreamableHttpTransport
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import (
    CreateMessageResult,
    ElicitResult,
    ListRootsResult,
    PromptReference,
    ResourceTemplateReference,
    Root,
    TextContent,
)

told: list[Any] = []


async def elicit(*_: Any) -> ElicitResult:
    """The user answers."""
    return ElicitResult(action="accept", content={"name": "Ada"})


async def sample(*_: Any) -> CreateMessageResult:
    """The model answers."""
    return CreateMessageResult(role="assistant", content=TextContent(type="text", text="42"), model="m")


async def roots(*_: Any) -> ListRootsResult:
    """Where the client works."""
    return ListRootsResult(roots=[Root(uri="file:///project/here")])


async def logged(params: Any) -> None:
    """A log message of the server."""
    told.append({"log": params.data})


async def heard(message: Any) -> None:
    """A notification of the server."""
    if type(message).__name__ == "ResourceUpdatedNotification":
        told.append({"updated": str(message.params.uri)})


def text(result: Any) -> Any:
    """The text of a result."""
    content = getattr(result, "content", None) or getattr(result, "contents", None) or []
    shown = "".join(getattr(item, "text", "") for item in content)
    return {"error": shown} if getattr(result, "is_error", False) else shown


async def step(client: Any, name: str, *arguments: Any) -> Any:
    """One operation."""
    match name:
        case "tools":
            return sorted(tool.name for tool in (await client.list_tools()).tools)
        case "call":
            return text(await client.call_tool(arguments[0], arguments[1]))
        case "pages":
            page = await client.list_tools()
            found = [tool.name for tool in page.tools]
            while page.next_cursor is not None:
                page = await client.list_tools(cursor=page.next_cursor)
                found += [tool.name for tool in page.tools]
            return sorted(found)
        case "size":
            return len(text(await client.call_tool(arguments[0], arguments[1])))
        case "resources":
            return sorted(str(each.uri) for each in (await client.list_resources()).resources)
        case "templates":
            return sorted(each.uri_template for each in (await client.list_resource_templates()).resource_templates)
        case "read":
            return text(await client.read_resource(arguments[0]))
        case "prompts":
            return sorted(each.name for each in (await client.list_prompts()).prompts)
        case "prompt":
            result = await client.get_prompt(arguments[0], arguments[1])
            return result.messages[0].content.text
        case "complete":
            if "://" in arguments[0]:
                ref: Any = ResourceTemplateReference(type="ref/resource", uri=arguments[0])
            else:
                ref = PromptReference(type="ref/prompt", name=arguments[0])
            return (await client.complete(ref, {"name": arguments[1], "value": arguments[2]})).completion.values
        case "subscribe":
            await client.subscribe_resource(arguments[0])
            return True
        case "ping":
            await client.send_ping()
            return True
        case "told":
            async with asyncio.timeout(10):
                while not any(arguments[0] in each for each in told):
                    await asyncio.sleep(0.01)
            return next(each for each in told if arguments[0] in each)[arguments[0]]
        case "quiet":
            await asyncio.sleep(0.1)
            return not any(arguments[0] in each for each in told)
        case "progress":
            seen: list[Any] = []

            async def progressed(progress: float, total: float | None, message: str | None) -> None:
                seen.append([progress, total, message])

            await client.call_tool("slow", {"seconds": 0.01}, progress_callback=progressed)
            return seen
        case "cancel":
            return await cancelled(client)
        case "listen":
            async with client.listen(resource_subscriptions=arguments[:1]) as events:
                await client.call_tool("note", {"name": arguments[1], "text": "new"})
                async with asyncio.timeout(10):
                    async for event in events:
                        return str(getattr(event, "uri", event))
        case "era":
            return client.protocol_version
    raise SystemExit(f"no such step: {name}")


async def cancelled(client: Any) -> bool:
    """Cancel a slow call and see that the session goes on."""
    started = asyncio.Event()

    async def progressed(*_: Any) -> None:
        started.set()

    task = asyncio.ensure_future(client.call_tool("slow", {"seconds": 30}, progress_callback=progressed))
    await asyncio.wait_for(started.wait(), 10)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return text(await client.call_tool("add", {"a": 1, "b": 2})) == "3"


def failed(raised: BaseException) -> dict[str, Any]:
    """What was said."""
    error: BaseException = raised
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    data = error.error.data if isinstance(error, MCPError) else None
    return {"message": f"{type(error).__name__}: {error}", "data": data}


def over_http(kind: str, place: str, socket: str) -> Any:
    """A transport for a URL; ``sse+`` before it for HTTP+SSE, and through a Unix socket if there is one."""
    url = place.removeprefix("sse+")
    through = {"uds": socket} if socket else {}
    timeout = httpx2.Timeout(30.0, read=300.0)

    def made(**keys: Any) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(**{**keys, "timeout": timeout, "transport": httpx2.AsyncHTTPTransport(**through)})

    if kind == "fastmcp":
        transport = SSETransport if place != url else StreamableHttpTransport
        return transport(url, httpx_client_factory=made)
    if place != url:
        return sse_client(url, httpx_client_factory=made)
    return streamable_http_client(url, http_client=made())


def opened(kind: str, mode: Any, shim: str, words: list[str]) -> Any:
    """The client of an SDK."""
    if "http://" in shim:
        way = over_http(kind, shim, words[1])
    elif kind == "fastmcp":
        way = StdioTransport(shim, words, keep_alive=False)
    else:
        way = StdioServerParameters(command=shim, args=words)
    if kind == "fastmcp":
        return fastmcp.Client(way, mode=mode, timeout=30)
    return Client(
        way,
        mode=mode,
        read_timeout_seconds=30,
        elicitation_callback=elicit,
        sampling_callback=sample,
        list_roots_callback=roots,
        logging_callback=logged,
        message_handler=heard,
    )


async def fast(client: Any, name: str, *arguments: Any) -> Any:
    """One operation of fastmcp, whose results are shorter."""
    match name:
        case "tools":
            return sorted(tool.name for tool in await client.list_tools())
        case "read":
            return "".join(each.text for each in await client.read_resource(arguments[0]))
        case "resources":
            return sorted(str(each.uri) for each in await client.list_resources())
        case "call":
            return text(await client.call_tool(arguments[0], arguments[1], raise_on_error=False))
    return await step(client, name, *arguments)


async def main(kind: str, mode: str, shim: str, socket: str, server: str, *steps: str) -> None:
    """Every step, on one connection."""
    said: list[dict[str, Any]] = []
    try:
        async with opened(kind, mode, shim, ["--socket", socket, server]) as client:
            for each in steps:
                name, *arguments = json.loads(each)
                try:
                    said.append({"ok": await (fast if kind == "fastmcp" else step)(client, name, *arguments)})
                except Exception as error:
                    said.append(failed(error))
    except BaseException as error:
        said.append(failed(error))
    for line in said:
        print(json.dumps(line))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
