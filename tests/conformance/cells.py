"""The matrix: every server with every client, directly and at every front of one attestd; a few servers at a time.

A server runs twice, once for the direct cells and once behind attestd, and both stay for all clients. So do the clients'
processes: each worker has one of each. What a client says directly is compared with what it says at every front.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import msgspec

from tests.conformance import matrix
from tests.conformance.clients import Client, Place, clients
from tests.conformance.expected import Difference, entries, judge
from tests.conformance.installed import Installed
from tests.conformance.mediated import Attestd, attestd
from tests.conformance.stage import listening

WORKERS = 3
"""Most of a cell is waiting, for starts and for what is due after some time."""


class Found(msgspec.Struct, kw_only=True):
    """What came of one row."""

    name: str
    direct: dict[str, list[Any]] = {}
    """Client to outcomes."""
    cells: int = 0
    steps: int = 0
    differences: list[Difference] = []
    seconds: float = 0.0

    @property
    def line(self) -> str:
        """For people."""
        clients = ", ".join(f"{name} {sum(out is not None for out in outs)}" for name, outs in self.direct.items())
        if not self.cells:
            return f"{self.name:<20} direct steps: {clients}"
        unexpected = judge(self.differences, entries(), set())[0]
        verdict = (
            "the same" if not self.differences else f"{len(self.differences)} differ, {len(unexpected)} unexpected"
        )
        return (
            f"{self.name:<20} {self.cells} cells, {self.steps} steps through attestd: {verdict} ({self.seconds:.0f} s)"
        )


class Matrix:
    """One run of the matrix."""

    def __init__(self, installed: Installed, scratch: Path, daemon: Attestd | None, wanted: str) -> None:
        """Prepare. daemon: None for the direct side only. wanted: a part of ``client server``."""
        self._installed = installed
        self._scratch = scratch
        self._daemon = daemon
        self._wanted = wanted
        self._control = threading.Lock()
        self._over = threading.Event()
        self._desks: queue.SimpleQueue[tuple[Client, ...]] = queue.SimpleQueue()

    def run(self, shown: Any) -> list[Found]:
        """Every row; ``shown`` gets a line for each when it is done."""
        desks = [clients(self._installed, self._logs(number)) for number in range(WORKERS)]
        rows = [row for row in matrix.rows(self._installed, self._scratch) if self._chosen(desks[0], row)]
        for desk in desks:
            self._desks.put(desk)
        found: list[Found] = []
        with ThreadPoolExecutor(WORKERS) as pool:
            longest_first = sorted(rows, key=lambda row: -len(row.steps))
            rest = [pool.submit(self._row, row) for row in longest_first]
            try:
                for done in as_completed(rest):
                    found.append(done.result())
                    shown(found[-1].line)
            finally:
                self._over.set()
                for each in rest:
                    each.cancel()
                for client in (client for desk in desks for client in desk):
                    client.close()
        return found

    def _logs(self, number: int) -> Path:
        place = self._scratch / f"clients-{number}"
        place.mkdir(exist_ok=True)
        return place

    def _chosen(self, desk: tuple[Client, ...], row: matrix.Row) -> list[Client]:
        return [client for client in desk if self._wanted in f"{client.name} {row.server.name}"]

    def _row(self, row: matrix.Row) -> Found:
        started = time.monotonic()
        found = Found(name=row.server.name)
        desk = self._desks.get()
        try:
            with contextlib.ExitStack() as stack:
                direct = self._direct(row, stack)
                if self._daemon is not None:
                    url = stack.enter_context(listening(row.server, self._scratch)) if row.server.listens else ""
                    with self._control:
                        self._daemon.register(row.server, row.server.name, url)
                admitted: set[str] = set()
                for client in self._chosen(desk, row):
                    if self._over.is_set():
                        break
                    self._client(row, client, direct, found, admitted)
        finally:
            self._desks.put(desk)
        found.seconds = time.monotonic() - started
        return found

    def _direct(self, row: matrix.Row, stack: contextlib.ExitStack) -> Place:
        if not row.server.listens:
            return Place(front="stdio", command=row.server.command, env=row.server.env)
        url = stack.enter_context(listening(row.server, self._scratch))
        return Place(front="sse" if row.server.sse else "http", url=url, sse=row.server.sse)

    def _client(self, row: matrix.Row, client: Client, direct: Place, found: Found, admitted: set[str]) -> None:
        name, steps = row.server.name, [words for _, words in row.steps]
        outcomes = found.direct[client.name] = client.run(direct, steps)
        if self._daemon is None:
            return
        places = [each for each in self._daemon.places(name) if each.front in client.fronts]
        if client.program not in admitted:
            admitted.add(client.program)
            self._daemon.admit(name, lambda: client.run(places[0], [["list"]]))
        for place in places:
            if self._over.is_set():
                return
            mediated = client.run(place, steps)
            case = f"{client.name} > {place.front} > {name}"
            found.differences += matrix.compare(case, row, outcomes, mediated)
            found.cells += 1
            found.steps += sum(outcome is not None for outcome in mediated)


def run(installed: Installed, scratch: Path, *, mediated: bool, wanted: str, shown: Any) -> list[Found]:
    """The matrix, with an attestd of its own or with none."""
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(attestd()) if mediated else None
        return Matrix(installed, scratch, daemon, wanted).run(shown)
