"""An attestd for the harness: its servers, its fronts, and the grants of every client.

A client is refused once at each server, and what then waits is approved in full; after that its runs are compared.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from attestd.daemon.config import ServerSettings, Settings
from tests.conformance.clients import Place
from tests.conformance.stage import Server, free_port
from tests.support.instance import SCRIPTS, Instance, approver_digest

EVERYTHING = ("--all-tools", "--resource", "*", "--prompt", "*")
QUESTIONS = ("sampling", "elicitation", "roots")
PENDING_S = 10.0
TRANSPORTS = frozenset(msgspec.inspect.type_info(ServerSettings).fields[1].type.values)  # type: ignore[union-attr,attr-defined]
HAS_TCP = "listen" in {field.name for field in msgspec.structs.fields(Settings)}


class Attestd:
    """A running instance with the servers of the harness."""

    def __init__(self, instance: Instance, port: int | None) -> None:
        self.instance = instance
        self.port = port
        """Of the TCP listener."""

    def register(self, server: Server, name: str, url: str = "") -> bool:
        """Make a server known; False if this attestd has no back of that kind."""
        if not server.listens:
            self.instance.server(name, command=server.command)
            if server.env:
                path = self.instance.config / "servers.d" / f"{name}.toml"
                lines = [path.read_text(encoding="utf-8"), "[server.env]"]
                lines += [f'{key} = "{value}"' for key, value in server.env]
                path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        elif "http" not in TRANSPORTS:
            return False
        else:
            self.instance.server(name, transport="sse" if server.sse else "http", url=url)
        self.instance.ctl("reload")
        return True

    def places(self, name: str) -> list[Place]:
        """Every front of a server."""
        shim = (str(SCRIPTS / "attestd-connect"), "--socket", str(self.instance.socket(name)), name)
        found = [Place(front="stdio", command=shim)]
        if self.port is not None:
            at = f"http://127.0.0.1:{self.port}/{name}"
            found += [
                Place(front="http", url=f"{at}/mcp"),
                Place(front="sse", url=f"{at}/sse", sse=True),
                Place(front="unix-http", url=f"http://localhost/{name}/mcp", socket=str(self.instance.socket(name))),
            ]
        return found

    def admit(self, server: str, run: Callable[[], object]) -> None:
        """Let a client be refused, and approve all that it may want of this server."""
        run()
        deadline = time.monotonic() + PENDING_S
        while not (waiting := [each for each in self.instance.pending() if each["server"] == server]):
            if time.monotonic() > deadline:
                return  # it was admitted before
            time.sleep(0.05)
        asks = [word for kind in QUESTIONS for word in ("--server-request", kind)]
        for each in waiting:
            self.instance.approve(each["code"], *EVERYTHING, *asks)


@contextlib.contextmanager
def attestd(environment: Mapping[str, str] | None = None) -> Iterator[Attestd]:
    """A started instance without servers."""
    with tempfile.TemporaryDirectory(prefix="at-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        instance = Instance(Path(scratch), approvers=[approver_digest()])
        instance.environment |= environment or {}
        port = free_port() if HAS_TCP else None
        if port is not None:
            instance.settings["listen"] = {"port": port}
        instance.start()
        try:
            yield Attestd(instance, port)
        finally:
            instance.stop()
