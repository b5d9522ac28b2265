"""One attestd before all servers of the rows W, three clients, and every front that attestd has.

``client`` and ``other`` are granted the same little of each server: what is attacked is everything else. ``stranger`` is
granted nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import msgspec

from attestd.audit.model import Record
from attestd.audit.query import Filters, query
from tests.support import machine
from tests.support.attack_backs import BACKS, STREAMS, Back, backs
from tests.support.attack_channels import Channel, Http, Lines, Sse
from tests.support.attack_variants import MESSAGE_BYTES
from tests.support.http_client import Caller, calling, loopback_port
from tests.support.instance import Instance, running

TOOLS = ("echo", "remember", "recall", "slow")
GRANTED = (*(word for name in TOOLS for word in ("--tool", name)), "--resource", "notes://one", "--prompt", "hello")
CLIENTS = ("client", "other", "stranger")


class Front(msgspec.Struct, frozen=True, kw_only=True):
    """One way to reach attestd."""

    kind: str
    place: str
    era: str


FRONTS = {
    "lines-legacy": Front(kind="lines", place="unix", era="legacy"),
    "lines-modern": Front(kind="lines", place="unix", era="modern"),
    "unix-legacy": Front(kind="http", place="unix", era="legacy"),
    "unix-modern": Front(kind="http", place="unix", era="modern"),
    "unix-sse": Front(kind="sse", place="unix", era="legacy"),
    "tcp-legacy": Front(kind="http", place="tcp", era="legacy"),
    "tcp-modern": Front(kind="http", place="tcp", era="modern"),
    "tcp-sse": Front(kind="sse", place="tcp", era="legacy"),
}


class Field:
    """Everything that is running."""

    def __init__(self, instance: Instance, port: int, found: dict[str, Back]) -> None:
        self.instance = instance
        self.port = port
        self.backs = found
        self.clients: dict[str, Caller] = {}
        self.refused_outside = 0
        """How often something was refused so far that was no message of a session: HTTP itself, and foreign names."""
        self._opened = 0

    @contextlib.contextmanager
    def fresh(self) -> Iterator[None]:
        """New processes of the clients: with them everything ends that they began."""
        unix = str(self.instance.socket())
        with contextlib.ExitStack() as stack:
            self.clients = {name: stack.enter_context(calling(self.instance, unix, mark=name)) for name in CLIENTS}
            yield

    def channel(self, front: str, back: str, client: str = "client") -> Channel:
        """A way of a client through a front to a server; not begun."""
        kind = FRONTS[front]
        process = self.clients[client]
        self._opened += 1
        name = f"{front} {back} {client} {self._opened}"
        unix = str(self.instance.socket(back))
        if kind.kind == "lines":
            return Lines(process, unix, name, kind.era)
        place: Any = unix if kind.place == "unix" else ("127.0.0.1", self.port)
        base = "" if kind.place == "unix" else f"/{back}"
        host = "localhost" if kind.place == "unix" else f"127.0.0.1:{self.port}"
        if kind.kind == "sse":
            return Sse(process, place, name, f"{base}/sse", host)
        return Http(process, place, name, kind.era, f"{base}/mcp", host)

    def port_of(self, front: str) -> int:
        """Of the listener; 0 for a Unix socket."""
        return self.port if FRONTS[front].place == "tcp" else 0

    def records(self, after: int = -1) -> list[Record]:
        """What was refused and recorded after the record of this number, newest first."""
        rows = query(self.instance.state / "audit", Filters(verdict="deny"), newest_first=True)
        return [row.record for row in takewhile(lambda row: row.record.seq > after, rows)]

    def approve_all(self) -> None:
        """Whatever waits."""
        for entry in self.instance.pending():
            self.instance.approve(entry["code"], *GRANTED)


@contextlib.contextmanager
def field(root: Path, names: Sequence[str] = ()) -> Iterator[Field]:
    """A started one, with these servers or all that attestd serves here. Raises MissingError."""
    port = loopback_port()
    limits = {"message_bytes": MESSAGE_BYTES, "refusals_per_minute": 100_000}
    with contextlib.ExitStack() as stack:
        found = stack.enter_context(
            backs(root, names or [each for each in BACKS if machine.chosen == "linux" or each in STREAMS])
        )
        instance = stack.enter_context(running(root, listen={"port": port}, limits=limits))
        for back in found.values():
            if back.command:
                instance.server(back.name, command=back.command)
            else:
                instance.server(back.name, transport=back.kind, url=back.url)
        instance.ctl("reload")
        made = Field(instance, port, found)
        with made.fresh():
            for name in CLIENTS[:2]:
                for back in found:
                    channel = made.channel("unix-legacy", back, name)
                    channel.offer(channel.proper("echo"))
        made.approve_all()
        with made.fresh():
            streams = next((name for name in found if found[name].command), "")
            if streams:  # the launcher lives on from the first server that it starts
                made.channel("unix-legacy", streams).begin()
        yield made
