"""200 real SDK clients that call at the same time over Streamable HTTP: nothing fails, and memory stays bounded.

Half of them speak 2025-11-25 and half 2026-07-28, 25 in each of eight processes. They connect, and call in two waves:
what the second wave adds to the daemon's memory is what would go on growing.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.http_stage import fronted, http_server
from tests.bench.report import Figure
from tests.bench.stage import ENDING, let_in, memory_kib
from tests.support.instance import Instance

PROCESSES = 8
CLIENTS = 25
"""In each process."""
EVERYONE = PROCESSES * CLIENTS
CROWD = (
    '''\
"""Clients that call together: many.py legacy|auto CLIENTS CALLS URL; a wave for each line of standard input.

Prints a line when all are connected, and one for each wave: how many calls were answered, and what went wrong.
"""
import asyncio, contextlib, json, sys
from mcp import Client, MCPError

mode, clients, calls, url = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]


async def one(client, errors):
    done = 0
    for number in range(calls):
        try:
            result = await client.call_tool("echo", {"text": str(number)})
            if result.is_error or result.content[0].text != str(number):
                raise RuntimeError(f"another answer: {result}"[:200])
            done += 1
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}"[:200])
    return done


async def main():
    async with contextlib.AsyncExitStack() as stack:
        everyone = [Client(url, mode=mode, read_timeout_seconds=120) for _ in range(clients)]
        for each in everyone:
            await stack.enter_async_context(each)
            await each.call_tool("echo", {"text": "hello"})
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            errors = []
            done = await asyncio.gather(*(one(each, errors) for each in everyone))
            print(json.dumps({"done": sum(done), "errors": errors}), flush=True)
'''
    + ENDING
)


def measure(*, quick: bool) -> list[Figure]:
    """One daemon, one server, eight processes."""
    calls = 4 if quick else 20
    with fronted() as (made, port), http_server(made) as url, contextlib.ExitStack() as stack:
        made.server("sdk", transport="http", url=url)
        script = made.script("many.py", CROWD)
        made.start()
        assert made.process is not None
        at = f"http://127.0.0.1:{port}/sdk/mcp"
        for mode in ("legacy", "auto"):
            let_in(made, [str(script), mode, "1", "1", at])
        before = memory_kib(made.process.pid, "VmRSS")
        crowd = [
            stack.enter_context(
                _clients(made, script, ["legacy" if number % 2 else "auto", str(CLIENTS), str(calls), at])
            )
            for number in range(PROCESSES)
        ]
        for each in crowd:
            _said(each, "ready")
        start = time.monotonic()
        told = [_wave(crowd)]
        first = memory_kib(made.process.pid, "VmRSS")
        told.append(_wave(crowd))
        seconds = time.monotonic() - start
        second, peak = memory_kib(made.process.pid, "VmRSS"), memory_kib(made.process.pid, "VmHWM")
    errors = [text for wave in told for text in wave["errors"]]
    done = sum(wave["done"] for wave in told)
    parts = {"daemon before MiB": before / 1024, "after one wave MiB": first / 1024, "after two MiB": second / 1024}
    return [
        Figure(
            name=f"{EVERYONE} concurrent SDK clients over Streamable HTTP: calls that failed",
            value=2 * EVERYONE * calls - done,
            unit="",
            limit=0,
            parts={"calls": done, "calls/s": done / seconds},
            note="; ".join(sorted(set(errors))[:3]),
        ),
        Figure(
            name=f"peak extra memory of the daemon per client ({EVERYONE} that call at once)",
            value=(peak - before) / EVERYONE,
            unit="KiB",
            limit=256,
            parts={**parts, "most ever MiB": peak / 1024},
        ),
        Figure(
            name="memory of the daemon after a second wave of calls ÷ after the first",
            value=second / first,
            unit="×",
            limit=1.1,
            parts=parts,
        ),
    ]


@contextlib.contextmanager
def _clients(made: Instance, script: Path, words: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(script), *words],
        env=made.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.communicate()


def _wave(crowd: list[subprocess.Popen[str]]) -> dict[str, Any]:
    """Everybody calls; how many were answered, and what went wrong."""
    for each in crowd:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    told = [json.loads(_said(each)) for each in crowd]
    return {"done": sum(each["done"] for each in told), "errors": [text for each in told for text in each["errors"]]}


def _said(process: subprocess.Popen[str], expected: str = "") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line.startswith(expected) or not line:
        raise RuntimeError(f"a client of the crowd ended: {line[:300]}")
    return line
