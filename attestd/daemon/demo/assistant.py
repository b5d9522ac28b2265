"""A real MCP client: the Python SDK, which starts ``attestd-connect`` as if it were the server.

Usage: assistant.py SHIM SOCKET SERVER TOOL JSON-ARGUMENTS. Prints the tool's text and exits 0, or prints what attestd
(or the server) said, as one line of JSON with message and data, and exits 1.
"""

from __future__ import annotations

import asyncio
import json
import sys

from mcp import Client, MCPError, StdioServerParameters


async def main(shim: str, socket: str, server: str, tool: str, arguments: str) -> int:
    """One call."""
    parameters = StdioServerParameters(command=shim, args=["--socket", socket, server])
    try:
        async with Client(parameters, read_timeout_seconds=20) as client:
            result = await client.call_tool(tool, json.loads(arguments))
    except (MCPError, BaseExceptionGroup) as raised:
        error: BaseException = raised
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        data = error.error.data if isinstance(error, MCPError) else None
        print(json.dumps({"message": str(error), "data": data}))  # noqa: T201 - the client's answer
        return 1
    print(" ".join(item.text for item in result.content if hasattr(item, "text")))  # noqa: T201 - the client's answer
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:6])))
