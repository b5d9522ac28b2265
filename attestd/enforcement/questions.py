"""What the server has asked this client, and what of it is still open. Pure.

A question is shown when the client is proven, answered once, and taken back when no grant accepts it any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import msgspec

from attestd.wire.methods import Method
from attestd.wire.model import Json
from attestd.wire.server import ServerMessage


class Question(msgspec.Struct, frozen=True):
    """An open request of the server."""

    method: str
    action: str
    token: Json
    """Progress token that the client may answer with, or None."""


class Questions:
    """The open questions of one session, by the server's id."""

    def __init__(self) -> None:
        self._open: dict[str | int, Question] = {}
        self._unshown: deque[ServerMessage] = deque()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def __contains__(self, message_id: object) -> bool:
        """Whether this one is."""
        return message_id in self._open

    def ask(self, message: ServerMessage, row: Method, *, shown: bool) -> None:
        """One more, which has an id and a method; ``shown``: the client sees it now."""
        if message.id is None or message.method is None:
            return
        meta = message.params.get("_meta")
        token = meta.get("progressToken") if isinstance(meta, dict) else None
        self._open[message.id] = Question(message.method, row.action, token)
        if not shown:
            self._unshown.append(message)

    def close(self, message_id: str | int) -> bool:
        """It is answered or withdrawn. False if it was not open."""
        return self._open.pop(message_id, None) is not None

    def awaits(self, token: str | int | None) -> bool:
        """Whether the client may tell progress with this token."""
        return token is not None and any(question.token == token for question in self._open.values())

    def show(self) -> Iterator[ServerMessage]:
        """What waited for the proof and is still open, in order."""
        while self._unshown:
            message = self._unshown.popleft()
            if message.id in self._open:
                yield message

    def recall(self, accepted: Callable[[str], bool]) -> list[tuple[str | int, str, bool]]:
        """Take back what is not accepted any more: id, method, and whether the client has seen it."""
        gone = [
            (message_id, question.method, all(message.id != message_id for message in self._unshown))
            for message_id, question in self._open.items()
            if question.action != "pass" and not accepted(question.action)
        ]
        for message_id, _, _ in gone:
            del self._open[message_id]
        return gone
