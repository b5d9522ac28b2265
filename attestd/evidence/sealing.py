"""Sealing: a loopback port of this machine that only attestd may connect to.

A seal is kept by the kernel, not by attestd's process: what dies with the process must not open the port. Everything
that may connect is named by what it *is allowed to do* (the mark of a packet, which needs a capability), never by its
uid, name or cgroup, because other programs of the same user have these too.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from attestd.errors import AttestdError


class SealError(AttestdError):
    """The kernel does not seal: no right to, or it lacks what sealing needs."""

    code = "seal"


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """One sealed port, as the kernel has it."""

    server: str
    port: int
    ip: int = 0
    """Our listener on 127.0.0.1 to which connections are redirected; 0: they are refused."""
    ip6: int = 0
    """The same on ::1."""


class Door(msgspec.Struct, frozen=True, kw_only=True):
    """A listening socket that takes redirected connections; whoever gets it closes the descriptor."""

    fd: int
    family: Literal["ip", "ip6"]
    port: int


class Sealer(Protocol):
    """The kernel's seals of one instance. Every method raises SealError."""

    @property
    def table(self) -> str:
        """What an administrator sees in the kernel."""

    def exists(self) -> bool:
        """Whether the kernel has seals of this instance, of this process or an earlier one."""

    def guards(self) -> tuple[Guard, ...]:
        """What the kernel has."""

    def replace(self, guards: tuple[Guard, ...]) -> None:
        """Have exactly these (at least one), from one packet to the next; nothing is open in between."""

    def remove(self) -> None:
        """Have none."""

    def doors(self) -> tuple[Door, ...]:
        """Listeners for the redirected connections of one server.

        On what they accept, the own address is the one that the client connected to.
        """

    def let_through(self, sock_fd: int) -> None:
        """Let a TCP socket of ours, not connected yet, through the seals of this instance."""
