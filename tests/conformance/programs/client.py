"""A client made with the Python SDK or fastmcp: client.py mcp|fastmcp legacy|auto, and cells on standard input.

A line is {"place": PLACE, "steps": [STEP...]}; for each, one connection, and one line of JSON with the outcome of every
step. A PLACE is {"command": [...], "env": {...}} or {"url": "...", "sse": true, "socket": "path of a Unix socket"}; a STEP
is an array of an operation and its arguments.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import Any

import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

TIMEOUT_S = 60
SOON_S = 10
CELL_S = 240


class Session:
    """One connected client and its operations."""

    def __init__(self, client: Any, *, fast: bool) -> None:
        self.client = client
        self.fast = fast
        self.heard: asyncio.Queue[str] = asyncio.Queue()

    async def told(self, message: Any) -> None:
        """A message of the server that nobody asked for."""
        inner = getattr(message, "root", message)
        if type(inner).__name__ == "ResourceUpdatedNotification":
            self.heard.put_nowait(str(inner.params.uri))

    async def _tools(self) -> list[str]:
        listed = await self.client.list_tools()
        return sorted(tool.name for tool in (listed if self.fast else listed.tools))

    async def _call(self, name: str, arguments: dict[str, Any], **options: Any) -> Any:
        extra = {"raise_on_error": False} if self.fast else {}
        if "progress" in options:
            extra["progress_handler" if self.fast else "progress_callback"] = options["progress"]
        return said(await self.client.call_tool(name, arguments, **extra))

    async def era(self) -> Any:
        """The negotiated revision."""
        return self.client.protocol_version if not self.fast else "auto"

    async def list(self) -> Any:
        """The names of the tools."""
        return await self._tools()

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """One call."""
        return await self._call(name, arguments)

    async def big(self, name: str, arguments: dict[str, Any]) -> Any:
        """The length of a large result."""
        return len(await self._call(name, arguments))

    async def read(self, uri: str) -> Any:
        """A resource."""
        result = await self.client.read_resource(uri)
        return "".join(getattr(item, "text", "<blob>") for item in (result if self.fast else result.contents))

    async def subscribe(self, uri: str, name: str, arguments: dict[str, Any]) -> Any:
        """Subscribe, let something happen, and hear of it."""
        inner = self.client.session if self.fast else self.client
        if self.fast and inner.protocol_version == "2026-07-28":
            return "fastmcp offers no subscriptions in the modern era"
        if inner.protocol_version == "2026-07-28":
            async with inner.listen(resource_subscriptions=[uri]) as events:
                await self._call(name, arguments)
                async with asyncio.timeout(SOON_S):
                    async for event in events:
                        return str(getattr(event, "uri", event))
        subscribe = inner.subscribe_resource
        await subscribe(uri)
        await self._call(name, arguments)
        return await asyncio.wait_for(self.heard.get(), SOON_S)

    async def cancel(self, name: str, arguments: dict[str, Any]) -> Any:
        """Cancel a call that has begun, and go on."""
        started = asyncio.Event()

        async def progress(*_: Any) -> None:
            started.set()

        task = asyncio.ensure_future(self._call(name, arguments, progress=progress))
        await asyncio.wait_for(started.wait(), SOON_S)
        task.cancel()
        ended = "answered"
        with contextlib.suppress(asyncio.CancelledError):
            await task
        ended = "cancelled" if task.cancelled() else ended
        return [ended, bool(await self._tools())]


def said(result: Any) -> Any:
    """The text of a result."""
    content = getattr(result, "content", None) or []
    text = "".join(getattr(item, "text", f"<{item.type}>") for item in content)
    return {"is_error": text} if getattr(result, "is_error", False) else text


def failed(raised: BaseException) -> dict[str, Any]:
    """What was said."""
    error: BaseException = raised
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    inner = error.error if isinstance(error, MCPError) else None
    shown = {"code": getattr(inner, "code", None), "text": str(error) or type(error).__name__, "data": None}
    return {"failed": {**shown, "data": getattr(inner, "data", None)}}


def opened(kind: str, mode: str, place: dict[str, Any], told: Any) -> Any:
    """The client of an SDK."""
    socket = place.get("socket")

    def http(headers: Any = None, timeout: Any = None, auth: Any = None, **_: Any) -> httpx2.AsyncClient:
        if socket is None:
            return create_mcp_http_client(headers=headers, timeout=timeout, auth=auth)
        way = httpx2.AsyncHTTPTransport(uds=socket)
        return httpx2.AsyncClient(headers=headers, timeout=timeout or TIMEOUT_S, transport=way)

    return (fast if kind == "fastmcp" else plain)(mode, place, told, http)


def fast(mode: str, place: dict[str, Any], told: Any, http: Any) -> Any:
    """Of fastmcp, whose import takes a second that the others need not wait."""
    from fastmcp import Client as FastClient
    from fastmcp.client.transports import SSETransport, StdioTransport, StreamableHttpTransport

    if command := place.get("command"):
        environment = {**os.environ, **place.get("env", {})}
        transport: Any = StdioTransport(command[0], command[1:], keep_alive=False, env=environment)
    else:
        transport = (SSETransport if place.get("sse") else StreamableHttpTransport)(
            place["url"], httpx_client_factory=http
        )
    return FastClient(transport, mode=mode, timeout=TIMEOUT_S, message_handler=told)


def plain(mode: str, place: dict[str, Any], told: Any, http: Any) -> Any:
    """Of the SDK."""
    target: Any
    if command := place.get("command"):
        environment = {**os.environ, **place.get("env", {})}
        target = StdioServerParameters(command=command[0], args=command[1:], env=environment)
    elif place.get("sse"):
        target = sse_client(place["url"], httpx_client_factory=http)
    else:
        target = streamable_http_client(place["url"], http_client=http(), max_sse_event_size=None)
    return Client(target, mode=mode, read_timeout_seconds=TIMEOUT_S, message_handler=told)


async def cell(kind: str, mode: str, place: dict[str, Any], steps: list[list[Any]]) -> list[dict[str, Any]]:
    """Every step, on one connection."""
    outcomes: list[dict[str, Any]] = []
    session = Session(None, fast=kind == "fastmcp")
    try:
        async with asyncio.timeout(CELL_S), opened(kind, mode, place, session.told) as client:
            session.client = client
            for name, *arguments in steps:
                try:
                    outcomes.append({"ok": await getattr(session, name)(*arguments)})
                except Exception as error:
                    outcomes.append(failed(error))
    except BaseException as error:
        outcomes.append(failed(error))
    return (outcomes + [outcomes[-1]] * len(steps))[: len(steps)]


def main(kind: str, mode: str) -> None:
    """Cell by cell, each in an event loop of its own."""
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(asyncio.run(cell(kind, mode, asked["place"], asked["steps"]))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
