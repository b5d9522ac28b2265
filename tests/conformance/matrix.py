"""The servers of the matrix, what is done with each, and what of an outcome is compared.

A row is a server with its steps; a client (``clients``) carries out those it can, directly and at every front of attestd
(``cells``). What a client says of a step is compared as it is: the value, or the code and text of its error. Only what
must differ is taken out first (``plain``).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from tests.conformance.expected import Difference
from tests.conformance.installed import Installed
from tests.conformance.stage import Server

BIG = 10 << 20
SUPPORT = Path(__file__).parents[1] / "support"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A server and what is done with it."""

    server: Server
    steps: tuple[tuple[str, list[Any]], ...]
    """Name and words of each step; the name is the operation, with a mark where it is done twice."""


def rows(installed: Installed, scratch: Path) -> tuple[Row, ...]:
    """The servers, with files for them below ``scratch``."""
    files = scratch / "files"
    files.mkdir(exist_ok=True)
    (files / "note.txt").write_text("first", encoding="utf-8")
    (files / "big.txt").write_text("x" * (BIG // 2), encoding="utf-8")  # the server sends it twice in one result
    repository = _repository(scratch)
    npm = installed.server("everything")
    reference = (
        ("list", ["list"]),
        ("call", ["call", "echo", {"message": "hi"}]),
        ("error", ["call", "get-sum", {"a": "no number"}]),
        ("read", ["read", "demo://resource/dynamic/text/1"]),
        ("cancel", ["cancel", "trigger-long-running-operation", {"duration": 20, "steps": 100}]),
        ("subscribe", ["subscribe", "demo://resource/dynamic/text/1", "toggle-subscriber-updates", {}]),
    )
    return (
        Row(server=Server(name="npm-everything", command=(*npm, "stdio")), steps=reference),
        Row(server=Server(name="npm-everything-http", command=(*npm, "streamableHttp"), path="/mcp"), steps=reference),
        Row(server=Server(name="npm-everything-sse", command=(*npm, "sse"), path="/sse", sse=True), steps=reference),
        Row(
            server=Server(name="npm-filesystem", command=(*installed.server("filesystem"), str(files))),
            steps=(
                ("list", ["list"]),
                ("call", ["call", "read_text_file", {"path": str(files / "note.txt")}]),
                ("error", ["call", "read_text_file", {"path": str(files / "none.txt")}]),
                ("big", ["big", "read_text_file", {"path": str(files / "big.txt")}]),
            ),
        ),
        Row(
            server=Server(
                name="npm-memory",
                command=tuple(installed.server("memory")),
                env=(("MEMORY_FILE_PATH", str(scratch / "memory.jsonl")),),
            ),
            steps=(
                ("list", ["list"]),
                ("call", ["call", "read_graph", {}]),
                ("error", ["call", "open_nodes", {"names": 3}]),
            ),
        ),
        Row(
            server=Server(name="pypi-time", command=(_script("mcp-server-time"), "--local-timezone", "UTC")),
            steps=(
                ("list", ["list"]),
                ("call", ["call", "convert_time", _TOKYO]),
                ("error", ["call", "get_current_time", {"timezone": "Nowhere/Else"}]),
            ),
        ),
        Row(
            server=Server(name="pypi-git", command=(_script("mcp-server-git"), "--repository", str(repository))),
            steps=(
                ("list", ["list"]),
                ("call", ["call", "git_log", {"repo_path": str(repository)}]),
                ("error", ["call", "git_show", {"repo_path": str(repository), "revision": "none"}]),
                ("big", ["big", "git_show", {"repo_path": str(repository), "revision": "HEAD"}]),
            ),
        ),
        *_sdks(installed),
    )


def _sdks(installed: Installed) -> tuple[Row, ...]:
    """Servers of our own, made with each SDK."""
    node = str(installed.node)
    own = str(installed.programs / "server.mjs")
    sdk = str(SUPPORT / "sdk_server.py")
    typescript = (
        ("list", ["list"]),
        ("call", ["call", "echo", {"message": "hi"}]),
        ("error", ["call", "fail", {}]),
        ("read", ["read", "notes://one"]),
        ("cancel", ["cancel", "slow", {"seconds": 30}]),
        ("subscribe", ["subscribe", "notes://one", "touch", {}]),
        ("big", ["big", "big", {"size": BIG}]),
    )
    python = (
        ("list", ["list"]),
        ("call", ["call", "add", {"a": 2, "b": 3}]),
        ("error", ["call", "fail", {}]),
        ("read", ["read", "notes://one"]),
        ("cancel", ["cancel", "slow", {"seconds": 30}]),
        ("subscribe", ["subscribe", "notes://one", "note", {"name": "one", "text": "new"}]),
        ("big", ["big", "big", {"size": BIG}]),
    )
    return (
        Row(server=Server(name="python-sdk", command=(sys.executable, sdk)), steps=python),
        Row(server=Server(name="ts1", command=(node, own, "ts1", "stdio")), steps=typescript),
        Row(
            server=Server(name="ts1-http", command=(node, own, "ts1", "http", "{port}"), path="/mcp"), steps=typescript
        ),
        Row(
            server=Server(name="ts1-sse", command=(node, own, "ts1", "sse", "{port}"), path="/sse", sse=True),
            steps=typescript,
        ),
        Row(server=Server(name="ts2", command=(node, own, "ts2", "stdio")), steps=typescript),
        Row(
            server=Server(name="ts2-http", command=(node, own, "ts2", "http", "{port}"), path="/mcp"), steps=typescript
        ),
    )


_TOKYO = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}


def _script(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _repository(scratch: Path) -> Path:
    """A repository whose newest commit is 10 MiB of text."""
    place = scratch / "repository"
    words = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    if not place.exists():
        subprocess.run([*words, "init", "-q", str(place)], check=True)
        (place / "big.txt").write_text("\n".join(["x" * 99] * (BIG // 100)), encoding="utf-8")
        subprocess.run([*words, "-C", str(place), "add", "big.txt"], check=True)
        subprocess.run([*words, "-C", str(place), "commit", "-q", "-m", "first"], check=True)
    return place


_VARYING = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<session>"),
    (re.compile(r"session undefined"), "session <session>"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)"), "<time>"),
    (re.compile(r"\d{1,2}:\d\d:\d\d [AP]M"), "<time>"),
    (re.compile(r"127\.0\.0\.1:\d+"), "<address>"),
)


def plain(outcome: Any) -> str:
    """An outcome without what differs from run to run: session ids, times, ports."""
    text = json.dumps(outcome, sort_keys=True)
    for pattern, word in _VARYING:
        text = pattern.sub(word, text)
    return text


def compare(case: str, row: Row, direct: list[Any], mediated: list[Any]) -> list[Difference]:
    """Step by step."""
    return [
        Difference(group="matrix", case=case, step=name, direct=plain(one), mediated=plain(other))
        for (name, _), one, other in zip(row.steps, direct, mediated, strict=True)
        if plain(one) != plain(other)
    ]
