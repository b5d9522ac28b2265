"""Typed admin requests, their protocol over a Unix socket, and the client of it."""
