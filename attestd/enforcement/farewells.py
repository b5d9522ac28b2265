"""What one server is still told when sessions with it are over: that they are, in turn and on few connections.

When attestd stops, hundreds of sessions end at once. A connection for each would cost as many attestations of who
accepted it, and the servers would be told of none in time. So these connections are shared, as no others are: nothing
of a session is said on them but that it has ended, and nobody looks at the answers. Idle connections of links that are
closed are taken over, so most farewells need no new one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from attestd.enforcement.http_client import IDLE_MAX, Door, HttpClient
from attestd.enforcement.http_wire import HttpError

FAREWELL_S: Final = 2.0
"""How long after its end a session is still worth a word: a server forgets it by itself, too."""

Words = Callable[[HttpClient], Awaitable[None]]
"""Says it, over this client. Raises HttpError."""


class Farewells:
    """Of one server. Lives on the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, door: Door) -> None:
        self._loop = loop
        self._client = HttpClient(loop, door)
        self._words: deque[tuple[float, Words]] = deque()
        self.speaking: set[asyncio.Task[None]] = set()
        """Ends when everything was said, or will not be."""

    def say(self, client: HttpClient, words: Words) -> None:
        """The link of this client is closed, and so is the client from now on."""
        self._client.adopt(client)
        client.close()
        self._words.append((self._loop.time() + FAREWELL_S, words))
        if len(self.speaking) < min(IDLE_MAX, len(self._words)):
            task = self._loop.create_task(self._speak())
            self.speaking.add(task)
            task.add_done_callback(self.speaking.discard)

    def close(self) -> None:
        """Say nothing more."""
        self._words.clear()
        for task in self.speaking:
            task.cancel()
        self._client.close()

    async def _speak(self) -> None:
        while self._words:
            until, words = self._words.popleft()
            if self._loop.time() > until:
                continue
            try:
                async with asyncio.timeout_at(until):
                    await words(self._client)
            except (HttpError, TimeoutError):
                continue  # it forgets the session by itself
