"""Whole messages on a stream socket, where the system has no SOCK_SEQPACKET: four bytes of length, then the message.

Standard library only: the daemon and an isolated interpreter speak this with each other, and trust each other.
"""

import socket

HEAD_BYTES = 4


class Frames:
    """One end, used like a SOCK_SEQPACKET socket that does not block."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def fileno(self) -> int:
        """The descriptor; -1 after ``close``."""
        return self._sock.fileno()

    def recv(self, size: int) -> bytes:
        """The next message of up to ``size`` bytes; empty at the end. Raises BlockingIOError: it is not whole yet."""
        head = self._peek(HEAD_BYTES)
        if not head:
            return b""
        length = HEAD_BYTES + int.from_bytes(head, "big")
        if length > HEAD_BYTES + size:
            raise ConnectionError(f"cannot read a message of {length} bytes")
        self._peek(length)
        return self._sock.recv(length, socket.MSG_DONTWAIT)[HEAD_BYTES:]

    def send(self, message: bytes) -> int:
        """One short message. Raises OSError."""
        return self._sock.send(framed(message), socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Idempotent."""
        self._sock.close()

    def _peek(self, size: int) -> bytes:
        """So many bytes, left where they are, so that the descriptor stays readable; empty at the end."""
        found = self._sock.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        if found and len(found) < size:
            raise BlockingIOError
        return found


def framed(message: bytes) -> bytes:
    """A message as it is sent."""
    return len(message).to_bytes(HEAD_BYTES, "big") + message


def receive(sock: socket.socket) -> bytes:
    """The next message of a socket that blocks, of any size; empty at the end."""
    head = _exactly(sock, HEAD_BYTES)
    return _exactly(sock, int.from_bytes(head, "big")) if head else b""


def _exactly(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = sock.recv(size - len(found))
        if not more:
            return b""
        found += more
    return found
