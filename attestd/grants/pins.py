"""Which program answered first at a server's address: trust on first use, kept in the grant store.

A pin is made once and never replaced by itself; a person takes it away (``attestctl servers trust``), and the next
program that answers is pinned. In user mode whoever runs as the same user can edit the store, as it can edit the
configuration that would name the program; there the pin guards against accidents and other users.
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """One row."""

    server: str
    url: str
    program: str
    """Program digest, 64 hex digits."""
    describe: str
    """The process that was seen, for a person."""
    since_ns: int


class PinStore(Protocol):
    """Where pins are kept; ``Store`` implements it."""

    def pin(self, server: str, url: str) -> Pin | None:
        """The pin of a server at this address."""

    def put_pin(self, pin: Pin) -> None:
        """Keep it. Raises AttestdError."""

    def drop_pins(self, server: str) -> int:
        """Forget every pin of a server; how many there were. Raises AttestdError."""
