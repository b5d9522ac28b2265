"""The other ends of sockets and pipes in tests: newline-delimited JSON, awaited with a time limit."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

WAIT_S = 10.0


class Far:
    """The far end of a stream socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.buffer = bytearray()

    async def send(self, *bodies: Any) -> None:
        """Messages, one a line; bytes as they are."""
        for body in bodies:
            data = body if isinstance(body, bytes) else json.dumps(body).encode() + b"\n"
            await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(self.sock, data), WAIT_S)

    async def line(self) -> bytes | None:
        """The next line without its end, or None at the end of the stream."""
        while b"\n" not in self.buffer:
            try:
                data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, 1 << 18), WAIT_S)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.buffer += data
        line, _, rest = bytes(self.buffer).partition(b"\n")
        self.buffer = bytearray(rest)
        return line

    async def message(self) -> Any:
        """The next message, or None at the end of the stream."""
        line = await self.line()
        return None if line is None else json.loads(line)

    def close(self) -> None:
        """Close it."""
        self.sock.close()


def pair() -> tuple[socket.socket, Far]:
    """Our non-blocking end, with credentials passed, and the far end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return ours, Far(theirs)
