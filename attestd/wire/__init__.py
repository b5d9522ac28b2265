"""Bytes to MCP messages and back: sans-I/O, strict, for every revision."""
