"""Pins in memory: implements ``grants.pins.PinStore``; ``failure`` is raised instead of keeping."""

from __future__ import annotations

from attestd.errors import AttestdError
from attestd.grants.pins import Pin


class Pins:
    """Implements ``PinStore`` in memory."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Pin] = {}
        self.failure: AttestdError | None = None

    def pin(self, server: str, url: str) -> Pin | None:
        """As kept."""
        return self.kept.get((server, url))

    def put_pin(self, pin: Pin) -> None:
        """Keep."""
        if self.failure is not None:
            raise self.failure
        self.kept[pin.server, pin.url] = pin

    def drop_pins(self, server: str) -> int:
        """Forget."""
        gone = [key for key in self.kept if key[0] == server]
        for key in gone:
            del self.kept[key]
        return len(gone)
