"""What the starter of a server is told of its end."""

from __future__ import annotations

import asyncio


class Exits:
    """Collects what ``on_exit`` is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._told = asyncio.Event()

    def __call__(self, text: str) -> None:
        self.texts.append(text)
        self._told.set()

    async def text(self) -> str:
        """The text, when it has come."""
        async with asyncio.timeout(10):
            await self._told.wait()
        return self.texts[0]
