"""An instance with servers behind HTTP, and SDK clients for them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.instance import Instance

SUPPORT = Path(__file__).parent
EVERY = ("--all-tools", "--resource", "*", "--prompt", "*")
ASKS = tuple(word for kind in ("sampling", "elicitation", "roots") for word in ("--server-request", kind))


class HttpServer:
    """A running process of ``http_server.py``, or of any program that prints its port first."""

    def __init__(self, *words: str, program: Path | None = None, env: dict[str, str] | None = None) -> None:
        self.words = words
        self._program = program or SUPPORT / "http_server.py"
        self._env = env
        self.port = ""
        self.start()

    def start(self, port: str | None = None) -> None:
        """Start it, at another port if one is named."""
        words = list(self.words)
        if port is not None:
            words[1] = port
        self.process = subprocess.Popen(
            [sys.executable, str(self._program), *words], stdout=subprocess.PIPE, text=True, env=self._env
        )
        assert self.process.stdout is not None
        self.port = self.process.stdout.readline().strip()
        assert self.port, "the server did not start"

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def restart(self) -> None:
        """A new process on the same port."""
        self.kill()
        self.start(self.port if self.port.isdigit() else None)


@contextlib.contextmanager
def serving(*words: str, program: Path | None = None, env: dict[str, str] | None = None) -> Iterator[HttpServer]:
    """An HTTP server while the block runs."""
    server = HttpServer(*words, program=program, env=env)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


class HttpDesk:
    """Runs SDK clients through the shim."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        text = (SUPPORT / "sdk_client.py").read_text(encoding="utf-8")
        self.client = instance.script("sdk_client.py", text)

    def register(self, name: str, url: str, *words: str, transport: str = "http", peer: str = "", **keys: Any) -> None:
        """A server file, loaded and granted with these words."""
        self.write(name, url, transport=transport, peer=peer, **keys)
        (refused,) = self.run("mcp", "auto", name)
        self.instance.approve(refused["data"]["code"], *(words or EVERY))

    def write(self, name: str, url: str, *, transport: str = "http", peer: str = "", **keys: Any) -> None:
        """Only the file, and a reload."""
        lines = ["[server]", f'name = "{name}"', f'transport = "{transport}"', f'url = "{url}"']
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
        self.instance.server(name, text="\n".join([*lines, *(("[server.peer]", peer) if peer else ())]) + "\n")
        self.instance.ctl("reload")

    def run(self, kind: str, mode: str, server: str, *steps: Any) -> list[Any]:
        """What each step said."""
        words = [sys.executable, str(self.client), kind, mode, str(self.instance.scripts / "attestd-connect")]
        words += [str(self.instance.socket(server)), server, *map(json.dumps, steps)]
        environment = {**self.instance.environment, "FASTMCP_CHECK_FOR_UPDATES": "off"}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def good(self, kind: str, mode: str, server: str, *steps: Any) -> list[Any]:
        """What each step said, all of them well."""
        said = self.run(kind, mode, server, *steps)
        assert all("ok" in each for each in said), said
        return [each["ok"] for each in said]
