"""A back end on a socket pair, with its far end in the test: implements ``enforcement.link.Back``."""

from __future__ import annotations

import socket

from tests.support.streams import Far


class SocketBack:
    """What ``UnixBack`` is, without a listener. ``far`` is the server."""

    describe = "test"

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        self._ours.setblocking(False)
        self.far = Far(theirs)
        self.read_fd = self._ours.fileno()
        self.write_fd = self.read_fd
        self.finished = 0
        self.stopped = 0

    def finish(self) -> None:
        """No more requests."""
        self.finished += 1
        self._ours.shutdown(socket.SHUT_WR)

    def stop(self) -> None:
        """End it."""
        self.stopped += 1
        self._ours.close()

    def failure(self) -> str:
        """Why it ended."""
        return "the server exited with status 3"
