"""Links to back ends: what a link is, whom it tells, and the plain one, a pair of descriptors with JSON-RPC in lines.

Lines of the server that are not MCP are dropped and counted (servers print to standard output by mistake); where one
appears to answer a request, its owner is told, so that nobody waits for an answer that will not come. A line above
the limit, or a flood of bad ones, ends the link.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Protocol

from attestd.enforcement.outbox import Outbox
from attestd.errors import AttestdError, Cause
from attestd.wire.framing import LineFramer
from attestd.wire.model import Limits, WireError
from attestd.wire.serialise import to_line
from attestd.wire.server import ServerMessage, parse_server_line

READ_BYTES = 1 << 16
BAD_LINES = 1000


class Link(Protocol):
    """A way to a back end."""

    @property
    def congested(self) -> bool:
        """Whether the client must wait."""

    def send(self, body: dict[str, Any], line: bytes | None = None) -> None:
        """One message to the server."""

    def finish(self) -> None:
        """The client is done."""

    def pause(self) -> None:
        """Stop reading from the server."""

    def resume(self) -> None:
        """Read from the server again."""

    def close(self) -> None:
        """Let go of the back end."""


class ServerError(AttestdError):
    """The back end cannot be used; ``cause`` says which way."""

    code = "server"

    def __init__(self, cause: Cause, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.cause = cause


class Back(Protocol):
    """An opened back end. Its descriptors are non-blocking and stay its own."""

    read_fd: int
    write_fd: int
    describe: str
    """The attested server for the audit log, e.g. ``mcp-server-time sha256 ab12cd34``."""

    def finish(self) -> None:
        """No more requests: close the write side."""

    def stop(self) -> None:
        """End it now; idempotent."""

    def failure(self) -> str:
        """What is known about why it ended, for a person."""


class LinkOwner(Protocol):
    """Who is told of what arrives."""

    def server_message(self, message: ServerMessage) -> None:
        """One message of the server."""

    def server_malformed(self, request_id: str | int, error: WireError) -> None:
        """A line that appears to answer this request is not MCP; nothing of it is passed on."""

    def server_streams(self, request_id: str | int) -> None:
        """The answer to this request has begun as a stream; nothing of what it will say is here yet."""

    def server_gone(self, cause: Cause, text: str) -> None:
        """The back end ended or broke the protocol; called once."""

    def server_relieved(self) -> None:
        """The back end takes bytes again."""


class Attached(LinkOwner, Protocol):
    """An owner whose client may be slow: what several owners share must not wait for it."""

    @property
    def backlog(self) -> int:
        """Bytes that wait for the client."""


class StreamLink:
    """One session's own back end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, back: Back, owner: LinkOwner, limits: Limits) -> None:
        self._loop = loop
        self._back = back
        self._owner = owner
        self._limits = limits
        self._framer = LineFramer(limits.message_bytes)
        self._outbox = Outbox(loop, back.write_fd, relieved=owner.server_relieved, broken=self._write_broken)
        self.bad_lines = 0
        """Lines so far that were not MCP."""
        self._open = True
        self._reading = False
        self.resume()

    @property
    def congested(self) -> bool:
        """Whether the client must wait."""
        return self._outbox.congested

    def send(self, body: dict[str, Any], line: bytes | None = None) -> None:
        """One message to the server; ``line`` is its serialisation, where it is at hand."""
        self._outbox.write(to_line(body) if line is None else line)

    def finish(self) -> None:
        """The client is done: tell the server by closing its input."""
        self._outbox.finish(self._back.finish)

    def pause(self) -> None:
        """Stop reading from the server."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._back.read_fd)

    def resume(self) -> None:
        """Read from the server again."""
        if self._open and not self._reading:
            self._reading = True
            self._loop.add_reader(self._back.read_fd, self._readable)

    def close(self) -> None:
        """End the back end."""
        if self._open:
            self._open = False
            self.pause()
            self._outbox.discard()
            self._back.stop()

    def _readable(self) -> None:
        try:
            data = os.read(self._back.read_fd, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._gone(Cause.SERVER_UNAVAILABLE, f"cannot read from the server: {error.strerror}")
            return
        if not data:
            self._gone(Cause.SERVER_UNAVAILABLE, self._back.failure())
            return
        for line in self._framer.feed(data):
            if not self._open:
                return
            if isinstance(line, WireError):
                self._too_large()
                return
            try:
                message = parse_server_line(line.data, self._limits)
            except WireError as error:
                self._malformed(error)
                continue
            self._owner.server_message(message)
        if self._framer.overlong:  # its end may never come
            self._too_large()

    def _too_large(self) -> None:
        self._gone(Cause.SERVER_MALFORMED, f"the server sent a message above {self._limits.message_bytes} bytes")

    def _malformed(self, error: WireError) -> None:
        self.bad_lines += 1
        if error.request_id is not None:
            self._owner.server_malformed(error.request_id, error)
        if self.bad_lines >= BAD_LINES:
            self._gone(Cause.SERVER_MALFORMED, f"the server sent {BAD_LINES} lines that are not MCP")

    def _write_broken(self) -> None:
        """The server closed its input; what it still has to say is read until its end of file."""

    def _gone(self, cause: Cause, text: str) -> None:
        if self._open:
            self.close()
            self._owner.server_gone(cause, text)
