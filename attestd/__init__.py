"""attestd: attests local callers of MCP servers and mediates every call they make."""

__version__ = "0.1.0"
