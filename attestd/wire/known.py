"""What one connection remembers of the heads that it has seen or said: a few small ones, and nothing beyond it."""

from __future__ import annotations

from typing import Final, TypeVar

HEADS: Final = 8
"""How many are remembered."""
HEAD_BYTES: Final = 1024
"""The largest of them."""
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class KnownHeads(dict[_Key, _Value]):
    """What a head means, or how it is written. It is a plain dict for who looks something up."""

    __slots__ = ()

    def keep(self, key: _Key, value: _Value, size: int) -> None:
        """Remember it unless the head (``size`` bytes) is too large; where there is no room, instead of the others."""
        if size <= HEAD_BYTES:
            if len(self) >= HEADS:
                self.clear()
            self[key] = value
