"""A server made with fastmcp, over HTTP. Prints its port. Usage: fastmcp_server.py."""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from fastmcp import FastMCP

server: FastMCP[None] = FastMCP("fast")


@server.tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(server.http_app(path="/mcp"), log_level="critical")
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))
