"""The clients of the matrix: programs that stay and get cell after cell, and the Inspector, which starts for each step.

A program of ours is one process for all its cells, with a connection of its own for each: most of a cell's time would
else be the start of its client.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import msgspec

from tests.conformance.installed import Installed
from tests.conformance.matrix import plain
from tests.conformance.stage import environment

CELL_S = 300
SHOWN = 4000
PATIENCE = ("--connect-timeout", "60000")
"""Of the Inspector, milliseconds: as patient as the other clients."""
FRONTS = frozenset({"stdio", "http", "sse", "unix-http"})


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a client connects."""

    front: str
    """stdio, http, sse, unix-http; for the report."""
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    """For the command, beside what the client has itself."""
    url: str = ""
    sse: bool = False
    socket: str = ""

    def spoken(self) -> dict[str, Any]:
        """As our client programs read it."""
        if self.command:
            return {"command": list(self.command), "env": dict(self.env)}
        return {"url": self.url, "sse": self.sse, **({"socket": self.socket} if self.socket else {})}


class Client(Protocol):
    """A client of the matrix."""

    name: str
    program: str
    """Clients of one program are one identity before attestd, and are approved once at each server."""
    fronts: frozenset[str]

    def run(self, place: Place, steps: list[list[Any]]) -> list[Any]:
        """Outcomes of the steps at a place; None for a step that the client does not have."""

    def close(self) -> None:
        """End its process."""


class Program:
    """One of our client programs."""

    fronts = FRONTS

    def __init__(self, name: str, words: list[str], installed: Installed, log: Path) -> None:
        self.name = name
        self.program = words[1]
        self._words = words
        self._environment = environment([installed.node.parent])
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, place: Place, steps: list[list[Any]]) -> list[Any]:
        """One cell."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # then it has ended, and says nothing below
            process.stdin.write(json.dumps({"place": place.spoken(), "steps": steps}).encode() + b"\n")
            process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], CELL_S)
        said = process.stdout.readline() if ready else b""
        if said:
            return list(json.loads(said))
        self.close()
        text = f"the client ended with {process.returncode}" if ready else f"the client said nothing for {CELL_S} s"
        return [{"failed": {"code": None, "text": f"{text}: see {self._log}", "data": None}}] * len(steps)

    def close(self) -> None:
        """With all that it has started."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._words,
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                )
        return self._process


class Inspector:
    """The Inspector's CLI connects anew for every step; it has no subscription, and nothing to cancel."""

    name = "inspector"
    program = "inspector"
    fronts = frozenset({"stdio", "http", "sse"})

    def __init__(self, installed: Installed) -> None:
        self._installed = installed

    def run(self, place: Place, steps: list[list[Any]]) -> list[Any]:
        """One process for each step."""
        return [self._step(place, words) for words in steps]

    def close(self) -> None:
        """Nothing stays."""

    def _step(self, place: Place, words: list[Any]) -> Any:
        match words:
            case ["list"]:
                asked = ["--method", "tools/list"]
            case ["call", str(name), dict(arguments)]:
                pairs = [
                    word for key, value in arguments.items() for word in ("--tool-arg", f"{key}={_argument(value)}")
                ]
                asked = ["--method", "tools/call", "--tool-name", name, *pairs]
            case ["read", str(uri)]:
                asked = ["--method", "resources/read", "--uri", uri]
            case _:
                return None
        where = list(place.command)
        if not where:
            where = [place.url, "--transport", "sse" if place.sse else "http"]
        variables = [word for key, value in place.env for word in ("-e", f"{key}={value}")]
        done = subprocess.run(
            [*self._installed.inspector, *where, *variables, *PATIENCE, *asked, "--format", "json"],
            env=environment([self._installed.node.parent]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CELL_S,
            check=False,
        )
        said = re.sub(r"\s+", " ", done.stdout or done.stderr).strip()
        return {"exit": done.returncode, "said": said if len(said) < SHOWN else f"{len(said)} letters: {_digest(said)}"}


def _digest(said: str) -> str:
    return hashlib.sha256(plain(said).encode()).hexdigest()


def _argument(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def clients(installed: Installed, logs: Path) -> tuple[Client, ...]:
    """One of each; not started before they are needed. logs: where programs write what they complain of."""
    typescript = [str(installed.node), str(installed.programs / "client.mjs")]
    python = [sys.executable, str(installed.programs / "client.py")]
    kinds = (
        ("mcp auto", [*python, "mcp", "auto"]),
        ("mcp legacy", [*python, "mcp", "legacy"]),
        ("fastmcp auto", [*python, "fastmcp", "auto"]),
        ("ts1", [*typescript, "ts1", "legacy"]),
        ("ts2 legacy", [*typescript, "ts2", "legacy"]),
        ("ts2 auto", [*typescript, "ts2", "auto"]),
    )
    programs = (Program(name, words, installed, logs / f"{name.replace(' ', '-')}.log") for name, words in kinds)
    return (*programs, Inspector(installed))
