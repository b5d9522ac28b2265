"""An MCP client that knows only a URL: the SDK's own, over Streamable HTTP, in the system under test.

web.py once URL TOOL ARGUMENTS     one session, one call; prints what came
web.py load URL TOOL ARGUMENTS     calls without a pause until its input has something; a session that is gone is opened anew
"""

import asyncio
import contextlib
import json
import select
import sys
import time

sys.path.insert(0, "/opt/mcp/lib")

import httpx2
from mcp import Client, MCPError

PATIENCE_S = 30.0


def show(value):
    """One line for the harness."""
    print(json.dumps(value), flush=True)


def seen(error):
    """A refusal, as the harness reads it."""
    data = error.error.data
    return {"ok": False, "text": error.error.message, "data": data if isinstance(data, dict) else {}}


def inside(error, kind):
    """The error of this kind that an error is, or has in its group; None."""
    if isinstance(error, kind):
        return error
    found = (inside(each, kind) for each in getattr(error, "exceptions", ()))
    return next((each for each in found if each is not None), None)


async def call(client, tool, arguments):
    """What one call came to."""
    result = await client.call_tool(tool, arguments)
    return {"ok": not result.is_error, "text": "".join(item.text for item in result.content), "data": {}}


async def once(url, tool, arguments):
    try:
        async with Client(url, mode="legacy") as client:
            show(await call(client, tool, json.loads(arguments)))
    except Exception as error:
        refused = inside(error, MCPError)
        if refused is None:
            raise
        show(seen(refused))


async def load(url, tool, arguments):
    """A call is lost if nobody took its connection, or it has no good answer after many sessions."""
    calls = lost = sessions = 0
    why = ""
    longest = 0.0
    began = time.monotonic()
    while not select.select([sys.stdin], [], [], 0)[0]:
        try:
            async with Client(url, mode="legacy", read_timeout_seconds=PATIENCE_S) as client:
                sessions += 1
                while not select.select([sys.stdin], [], [], 0)[0]:
                    answer = await call(client, tool, json.loads(arguments))
                    longest = max(longest, time.monotonic() - began)
                    began = time.monotonic()
                    calls += answer["ok"]
                    lost += not answer["ok"]
        except Exception as error:
            # Whatever the session's end looks like to the SDK; a connection that nobody takes is never a part of it.
            if inside(error, httpx2.ConnectError) or time.monotonic() > began + PATIENCE_S:
                lost += 1
                why = repr(error)
                break
    show({"calls": calls, "lost": lost, "sessions": sessions, "longest_s": round(longest, 3), "why": why})


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run({"once": once, "load": load}[sys.argv[1]](*sys.argv[2:]))
