"""A kernel that seals in memory: rules live on when the sealer is forgotten, as they do in nftables."""

from __future__ import annotations

import os
import socket

from attestd.evidence.sealing import Door, Guard, SealError


class Rules:
    """What outlives a process: tables by name."""

    def __init__(self) -> None:
        self.tables: dict[str, tuple[Guard, ...]] = {}
        self.refusal = ""
        """Why nothing is possible; empty: everything is."""
        self.exchanges = 0


class FakeSealer:
    """Implements ``attestd.evidence.sealing.Sealer``."""

    def __init__(self, rules: Rules, table: str = "attestd-seal-fake") -> None:
        self.rules = rules
        self.table = table
        self.marked: list[int] = []

    def exists(self) -> bool:
        """Whether the table is there."""
        self._demand()
        return self.table in self.rules.tables

    def guards(self) -> tuple[Guard, ...]:
        """What it has."""
        self._demand()
        return self.rules.tables.get(self.table, ())

    def replace(self, guards: tuple[Guard, ...]) -> None:
        """At once."""
        if not guards:
            raise ValueError("an empty table seals nothing: remove it")
        self._demand()
        self.rules.exchanges += 1
        self.rules.tables[self.table] = guards

    def remove(self) -> None:
        """Gone."""
        self._demand()
        self.rules.tables.pop(self.table, None)

    def doors(self) -> tuple[Door, ...]:
        """Ordinary listeners."""
        self._demand()
        opened = []
        for family, address, name in ((socket.AF_INET, "127.0.0.1", "ip"), (socket.AF_INET6, "::1", "ip6")):
            try:
                sock = socket.create_server((address, 0), family=family)
            except OSError:
                continue
            sock.setblocking(False)
            port = int(sock.getsockname()[1])
            opened.append(Door(fd=sock.detach(), family="ip" if name == "ip" else "ip6", port=port))
        return tuple(opened)

    def let_through(self, sock_fd: int) -> None:
        """Remember it."""
        self._demand()
        os.fstat(sock_fd)
        self.marked.append(sock_fd)

    def _demand(self) -> None:
        if self.rules.refusal:
            raise SealError(self.rules.refusal, hint="get the right")
