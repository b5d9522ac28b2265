"""The stage of the figures over HTTP: a server and a client made with the SDK, and an attestd with a loopback port."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence

from tests.bench.stage import ENDING, instance, let_in
from tests.conformance.stage import Server, free_port, listening
from tests.support.instance import Instance

Target = str | Sequence[str]
"""A URL, or the words of a command."""
SERVER = '''\
"""A server made with the SDK: sdk_server.py [PORT]; without a port over stdio."""
import asyncio, sys, time
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("bench", log_level="ERROR")


@server.tool()
def echo(text: str) -> str:
    """What it was told."""
    return text


@server.tool()
async def tell(seconds: float, context: Context) -> str:
    """Says when it began, before its result."""
    await context.report_progress(1, 2, str(time.monotonic_ns()))
    await asyncio.sleep(seconds)
    return "done"


if len(sys.argv) > 1:
    server.run(transport="streamable-http", port=int(sys.argv[1]))
else:
    server.run(transport="stdio")
'''
CALLER = (
    '''\
"""Times a tool in turn: http_caller.py legacy|auto BLOCKS CALLS NAME=TARGET…; a target is a command as JSON, or a URL.

Prints one line of JSON: for each name the microseconds of every call; or a refusal, with status 3. Who is ten times as
slow as the first one is called once in five blocks.
"""
import asyncio, contextlib, json, os, statistics, sys, time
from mcp import Client, MCPError, StdioServerParameters


async def block(name, client, calls):
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        result = await client.call_tool("echo", {"text": "hello world"})
        times.append(round((time.perf_counter() - start) * 1e6, 1))
        if result.is_error or result.content[0].text != "hello world":
            raise RuntimeError(f"{name}: {result}")
    return times


async def main():
    mode, blocks, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    async with contextlib.AsyncExitStack() as stack:
        clients = {}
        for word in sys.argv[4:]:
            name, _, target = word.partition("=")
            if not target.startswith("http"):
                command, *args = json.loads(target)
                target = StdioServerParameters(command=command, args=args, env=dict(os.environ))
            clients[name] = await stack.enter_async_context(Client(target, mode=mode, read_timeout_seconds=60))
        found = {name: [] for name in clients}
        warm = {name: statistics.median(await block(name, client, 3)) for name, client in clients.items()}
        slow = {name for name in warm if warm[name] > 10 * next(iter(warm.values()))}
        for number in range(blocks):
            for name, client in clients.items():
                if name not in slow or number % 5 == 0:
                    found[name] += await block(name, client, 1 if name in slow else calls)
    print(json.dumps(found))
'''
    + ENDING
)


def sdk_server(made: Instance) -> list[str]:
    """The command of the server over stdio; with a port behind it, over HTTP."""
    return [sys.executable, str(made.script("sdk_server.py", SERVER))]


@contextlib.contextmanager
def http_server(made: Instance) -> Iterator[str]:
    """The server over Streamable HTTP; its URL."""
    server = Server(name="sdk", command=(*sdk_server(made), "{port}"), path="/mcp")
    with listening(server, made.root) as url:
        yield url


@contextlib.contextmanager
def fronted(**limits: int) -> Iterator[tuple[Instance, int]]:
    """A throw-away instance with a loopback port, not yet started; and the port."""
    with instance(**limits) as made:
        port = free_port()
        made.settings["listen"] = {"port": port}
        yield made, port


def time_calls(
    made: Instance, mode: str, blocks: int, calls: int, targets: Mapping[str, Target]
) -> dict[str, list[float]]:
    """The microseconds of every call by target. What attestd refuses is approved, and all tried again."""
    script = made.script("http_caller.py", CALLER)
    words = [
        f"{name}={target if isinstance(target, str) else json.dumps(list(target))}" for name, target in targets.items()
    ]
    return dict(json.loads(let_in(made, [str(script), mode, str(blocks), str(calls), *words])))
