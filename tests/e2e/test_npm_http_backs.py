"""The reference server of npm (TypeScript SDK 1) behind attestd, over both of its HTTP transports."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_desk import EVERY, HttpDesk
from tests.support.instance import running

pytestmark = pytest.mark.linux("TCP peers: who listens is attested")

PACKAGE = "@modelcontextprotocol/server-everything"
VERSION = "2026.8.31"
START_S = 30.0

CLIENT = '''
"""A legacy SDK client that calls, waits for a line on standard input, and calls again on the same session."""
import asyncio, json, sys
from mcp import Client, StdioServerParameters

async def main():
    shim, path, server = sys.argv[1:]
    parameters = StdioServerParameters(command=shim, args=["--socket", path, server])
    async with Client(parameters, mode="legacy") as client:
        tools = sorted(tool.name for tool in (await client.list_tools()).tools)
        print(json.dumps(tools), flush=True)
        while True:
            text = await asyncio.to_thread(sys.stdin.readline)
            if not text:
                return
            try:
                result = await client.call_tool("echo", {"message": text.strip()})
                print(json.dumps(result.content[0].text), flush=True)
            except Exception as error:
                print(json.dumps({"refused": str(error)}), flush=True)

try:
    asyncio.run(main())
except BaseException as error:
    first = error
    while getattr(first, "exceptions", None):
        first = first.exceptions[0]
    print(json.dumps({"failed": str(first), "data": getattr(getattr(first, "error", None), "data", None)}), flush=True)
'''


class Everything:
    """One running server on a port of its own."""

    def __init__(self, node: str, root: Path, kind: str) -> None:
        self._words = [node, str(root / "node_modules" / PACKAGE / "dist" / "index.js"), kind]
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.process = subprocess.Popen(
            self._words, env={"PORT": str(self.port)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert time.monotonic() < deadline, "the server did not start"
                assert self.process.poll() is None
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module", name="package")
def _package() -> Iterator[tuple[str, Path]]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    root = Path(tempfile.mkdtemp(prefix="npm-", dir="/tmp"))
    words = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--silent"]
    installed = subprocess.run(
        [*words, f"{PACKAGE}@{VERSION}"], cwd=root, capture_output=True, text=True, timeout=300, check=False
    )
    if installed.returncode:
        shutil.rmtree(root, ignore_errors=True)
        pytest.skip(f"npm cannot install {PACKAGE}: {installed.stderr.strip()[-200:]}")
    yield node, root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module", name="desk")
def _desk() -> Iterator[HttpDesk]:
    root = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    with running(root) as instance:
        yield HttpDesk(instance)
    shutil.rmtree(root, ignore_errors=True)


class Waiting:
    """The client above, running."""

    def __init__(self, desk: HttpDesk, server: str) -> None:
        script = desk.instance.script("waiting_client.py", CLIENT)
        shim, path = str(desk.instance.scripts / "attestd-connect"), str(desk.instance.socket(server))
        self.process = subprocess.Popen(
            [sys.executable, str(script), shim, path, server],
            env=desk.instance.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def line(self) -> Any:
        """What it says next."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def echo(self, text: str) -> Any:
        """One call."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n")
        self.process.stdin.flush()
        return self.line()

    def close(self) -> None:
        """End it."""
        self.process.communicate()


@pytest.mark.parametrize(("kind", "transport", "path"), [("streamableHttp", "http", "mcp"), ("sse", "sse", "sse")])
def test_server_everything(desk: HttpDesk, package: tuple[str, Path], kind: str, transport: str, path: str):
    """SDK clients of both eras list and call; when the server is killed and started again, the session goes on."""
    server = Everything(*package, kind)
    client = None
    try:
        desk.register(kind.lower(), f"http://127.0.0.1:{server.port}/{path}", *EVERY, transport=transport)
        steps = [["tools"], ["call", "echo", {"message": "hi"}], ["call", "get-sum", {"a": 2, "b": 3}], ["prompts"]]
        for mode in ("auto", "legacy"):
            tools, echoed, total, prompts = desk.good("mcp", mode, kind.lower(), *steps)
            assert {"echo", "get-sum"} <= set(tools)
            assert echoed == "Echo: hi"
            assert "5" in total
            assert prompts
        stranger = Waiting(desk, kind.lower())
        refused = stranger.line()
        stranger.close()
        desk.instance.approve(refused["data"]["code"], *EVERY)
        client = Waiting(desk, kind.lower())
        assert "echo" in client.line()
        assert client.echo("one") == "Echo: one"
        server.kill()
        assert "not available" in client.echo("two")["refused"]
        server.start()
        answer = client.echo("three")
        deadline = time.monotonic() + START_S
        while answer != "Echo: three" and time.monotonic() < deadline:
            assert "not available" in answer["refused"], answer
            time.sleep(0.2)
            answer = client.echo("three")
        assert answer == "Echo: three"
    finally:
        if client is not None:
            client.close()
        server.kill()
