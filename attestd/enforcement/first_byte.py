"""Which framing a connection speaks: its first byte decides, and is looked at without being taken.

A JSON text never begins with a capital letter, and an HTTP method always does. A connection that says nothing is
kept, attested, until it does.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import msgspec


class _Silent(msgspec.Struct, frozen=True):
    then: Callable[[bool], None]
    forget: Callable[[], None]
    changed: Callable[[], bool]


class FirstBytes:
    """Connections that have said nothing yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._silent: dict[socket.socket, _Silent] = {}

    def await_one(
        self,
        sock: socket.socket,
        then: Callable[[bool], None],
        forget: Callable[[], None],
        changed: Callable[[], bool],
    ) -> None:
        """Call ``then`` once: whether it is HTTP. ``forget`` instead, if everything is closed or ``changed`` before.

        ``changed``: whether whoever is there is not who was attested any more; asked by ``tick``.
        """
        self._silent[sock] = _Silent(then, forget, changed)
        self._loop.add_reader(sock.fileno(), self._look, sock)
        self._look(sock)

    def tick(self) -> None:
        """The periodic look: who has changed meanwhile is forgotten."""
        gone = {sock for sock, silent in self._silent.items() if silent.changed()}
        self.close(gone.__contains__)

    def close(self, wanted: Callable[[socket.socket], bool] = lambda _: True) -> None:
        """Forget the silent ones."""
        for sock in [each for each in self._silent if wanted(each)]:
            silent = self._silent.pop(sock)
            self._loop.remove_reader(sock.fileno())
            silent.forget()

    def _look(self, sock: socket.socket) -> None:
        try:
            first = sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            first = b""  # whoever takes it over finds out
        self._loop.remove_reader(sock.fileno())
        self._silent.pop(sock).then(speaks_http(first))


def speaks_http(first: bytes) -> bool:
    """Whether these first bytes begin an HTTP request."""
    return b"A" <= first[:1] <= b"Z"
