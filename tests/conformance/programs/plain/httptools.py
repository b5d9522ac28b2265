"""Hides httptools from a server, which then parses HTTP as it does where attestd is not installed."""

raise ImportError("hidden: see tests/conformance/stage.py")
