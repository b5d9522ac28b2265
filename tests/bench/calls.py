"""A whole call: the real SDK client and the real mcp-server-time over stdio, directly, through attestd and others.

The client holds all its connections open at once and calls on them in turn. Where ``mcp-proxy`` cannot be had the others
are shown without it.
"""

from __future__ import annotations

import json
import statistics
import sys

from tests.bench.peers import mcp_proxy, started
from tests.bench.report import Figure
from tests.bench.stage import ENDING, instance, let_in, one_cpu
from tests.support.instance import SCRIPTS, Instance

PROXY = "mcp-proxy (HTTP)"
NAME = "whole call, SDK client and mcp-server-time over stdio, through the shim ÷ direct"
CALLER = (
    '''\
"""Times get_current_time in turn: sdk_caller.py BLOCKS CALLS NAME=TARGET…; a target is a command as JSON, or a URL."""
import asyncio, contextlib, json, os, statistics, sys, time
from mcp import Client, MCPError, StdioServerParameters


async def main():
    blocks, calls = int(sys.argv[1]), int(sys.argv[2])
    async with contextlib.AsyncExitStack() as stack:
        clients = {}
        for word in sys.argv[3:]:
            name, _, target = word.partition("=")
            if not target.startswith("http"):
                command, *args = json.loads(target)
                target = StdioServerParameters(command=command, args=args, env=dict(os.environ))
            clients[name] = await stack.enter_async_context(Client(target, read_timeout_seconds=60))
        found = {name: [] for name in clients}
        for number in range(blocks + 1):
            for name, client in clients.items():
                times = []
                for _ in range(calls):
                    start = time.perf_counter()
                    result = await client.call_tool("get_current_time", {"timezone": "UTC"})
                    times.append(time.perf_counter() - start)
                    if result.is_error:
                        raise RuntimeError(f"{name}: {result}")
                if number:
                    found[name].append(statistics.median(times) * 1e6)
    print(json.dumps(found))

'''
    + ENDING
)
FASTMCP = '''\
"""fastmcp's own proxy in front of a stdio server: fastmcp_proxy.py COMMAND…"""
import sys
from fastmcp.client.transports import StdioTransport
from fastmcp.server import create_proxy

create_proxy(StdioTransport(command=sys.argv[1], args=sys.argv[2:])).run(transport="stdio", show_banner=False)
'''


def measure(*, quick: bool) -> list[Figure]:
    """Blocks of calls in turn; medians over blocks."""
    blocks, calls = (12, 25) if quick else (50, 50)
    server = [sys.executable, "-m", "mcp_server_time"]
    with one_cpu(), instance() as made, started({PROXY: (mcp_proxy, server)}, made.root) as (others, why):
        fast = made.script("fastmcp_proxy.py", FASTMCP)
        made.server("time", command=server)
        made.start()
        targets = {"direct": server, "attestd": [str(SCRIPTS / "attestd-connect"), "--user", "time"]}
        _time_calls(made, 1, 5, targets)  # lets the client in
        everyone = {**targets, "fastmcp proxy": [sys.executable, str(fast), *server], **others}
        found = _time_calls(made, blocks, calls, everyone)
    parts = {name: statistics.median(values) for name, values in found.items()}
    return [
        Figure(
            name=NAME,
            value=parts["attestd"] / parts["direct"],
            unit="×",
            limit=1.15,
            parts={f"{name} µs": value for name, value in parts.items()},
            note="all on one CPU" + "".join(f"; without {name}: {text}" for name, text in why.items()),
            rounds=blocks,
        )
    ]


def _time_calls(made: Instance, blocks: int, calls: int, targets: dict[str, object]) -> dict[str, list[float]]:
    script = made.script("sdk_caller.py", CALLER)
    words = [f"{name}={target if isinstance(target, str) else json.dumps(target)}" for name, target in targets.items()]
    return dict(json.loads(let_in(made, [str(script), str(blocks), str(calls), *words])))
