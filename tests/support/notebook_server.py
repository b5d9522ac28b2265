"""A small stateful MCP server on the Python SDK: what is remembered in the process is there for whoever asks next."""

from __future__ import annotations

from mcp.server.mcpserver import MCPServer

server = MCPServer("notebook")
pages: list[str] = []


@server.tool()
def remember(text: str) -> str:
    """Write a page."""
    pages.append(text)
    return "written"


@server.tool()
def recall() -> str:
    """Read every page."""
    return ", ".join(pages) or "nothing"


if __name__ == "__main__":
    server.run()
