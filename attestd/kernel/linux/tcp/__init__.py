"""Peers of loopback TCP connections."""
