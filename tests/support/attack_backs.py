"""The real servers that the rows W are run against: the SDKs of Python and TypeScript, over streams, HTTP and HTTP+SSE."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from tests.support.http_client import free_port
from tests.support.npm import install, node, program

HERE = Path(__file__).parents[1] / "attacks"
BACKS = ("python-stdio", "python-http", "ts1-stdio", "ts1-http", "ts1-sse", "ts2-stdio", "ts2-http")
STREAMS = tuple(each for each in BACKS if each.endswith("-stdio"))
WAIT_S = 60.0


class Serving:
    """A server that listens on a port, and can be started again if it ended by itself."""

    def __init__(self, words: Sequence[str], port: int, output: Path) -> None:
        self._words = list(words)
        self._port = port
        self._output = output
        self._start()

    def _start(self) -> None:
        with self._output.open("ab") as out:
            self._process = subprocess.Popen(self._words, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    @contextlib.contextmanager
    def again(self) -> Iterator[None]:
        """Start it once more, for as long as the context lasts."""
        self._start()
        try:
            self.ready()
            yield
        finally:
            self.end()

    def ready(self) -> None:
        """Wait until it listens."""
        await_true(lambda: reachable(self._port), f"{self._words[-1]} listens")

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def condition(self) -> str:
        """Whether it lives, and what it printed last."""
        words = self._output.read_text(encoding="utf-8", errors="replace")[-600:]
        return f"{'lives' if self.lives else f'ended with {self._process.returncode}'}, printed {words!r}"

    def end(self) -> None:
        """End it, and wait for it."""
        self._process.terminate()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Back(msgspec.Struct, frozen=True, kw_only=True):
    """One server."""

    name: str
    command: tuple[str, ...]
    """Over standard streams; empty if it listens."""
    url: str = ""
    log: Path
    serving: Serving | None = None
    """Of one that listens."""

    @property
    def kind(self) -> str:
        """stdio, http or sse."""
        return self.name.split("-")[1]

    @property
    def eras(self) -> tuple[str, ...]:
        """Those that it speaks itself."""
        return ("legacy",) if self.name.startswith("ts1") else ("legacy", "modern")

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.split(":")[2].split("/")[0])

    def noted(self, what: str, text: str) -> int:
        """How often it executed this: tool or kind, and text."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return lines.count(json.dumps([what, text], separators=(",", ":")))


def await_true(condition: Callable[[], object], what: str) -> None:
    """Until it is so."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}"
        time.sleep(0.01)


@contextlib.contextmanager
def backs(root: Path, names: Sequence[str] = ()) -> Iterator[dict[str, Back]]:
    """These, or all of them; those that listen are started. Raises MissingError."""
    place = install(HERE / "npm", "attacks")
    script = program(HERE / "servers" / "tools.mjs", place)
    found: dict[str, Back] = {}
    with contextlib.ExitStack() as stack:
        for name in names or BACKS:
            sdk, kind = name.split("-")
            log = root / f"{name}.log"
            if sdk == "python":
                words = [sys.executable, str(HERE / "servers" / "tools_server.py"), str(log), kind]
            else:
                words = [str(node(place)), str(script), sdk, str(log), kind]
            if kind == "stdio":
                found[name] = Back(name=name, command=tuple(words), log=log)
                continue
            port = free_port()
            serving = Serving([*words, str(port)], port, log.with_suffix(".out"))
            stack.callback(serving.end)
            url = f"http://127.0.0.1:{port}{'/sse' if kind == 'sse' else '/mcp'}"
            found[name] = Back(name=name, command=(), url=url, log=log, serving=serving)
        for back in found.values():
            if back.serving is not None:
                back.serving.ready()
        yield found


def reachable(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def listening(words: list[str], *, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A started server; the caller waits for it."""
    with contextlib.ExitStack() as stack:
        out = subprocess.DEVNULL if log is None else stack.enter_context(log.open("wb"))
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Piped:
    """A Unix socket that gives every connection a server process of its own, and judges nothing."""

    def __init__(self, back: Back, path: Path) -> None:
        self.path = path
        self._back = back
        self._started: list[subprocess.Popen[bytes]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._listener.settimeout(WAIT_S)

    def accept(self) -> None:
        """Serve the next connection."""
        connection, _ = self._listener.accept()
        with connection:
            words = list(self._back.command)
            self._started.append(
                subprocess.Popen(words, stdin=connection, stdout=connection, stderr=subprocess.DEVNULL)
            )

    def close(self) -> None:
        """End the servers."""
        self._listener.close()
        for process in self._started:
            process.kill()
            process.wait()
