"""One client connection: the socket, its session and its link to a back end. Carries out what the session says.

Reads with ``recvmsg``, because SO_PASSCRED credentials are the only proof of who wrote. Nothing is read while the other
side is congested, and nothing from a client that does not read its own answers: refusals take room, too.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from attestd.enforcement.clock import MessageClock
from attestd.enforcement.effects import Effect, End, State, ToClient, ToServer
from attestd.enforcement.outbox import Outbox
from attestd.enforcement.session import Session
from attestd.errors import AttestdError, Cause
from attestd.evidence.protocol import Watch
from attestd.wire.framing import Line, LineFramer
from attestd.wire.model import Limits, WireError
from attestd.wire.server import ServerMessage

READ_BYTES = 1 << 16
UCRED = struct.Struct("=iII")
ANCILLARY = socket.CMSG_SPACE(UCRED.size)
SCM_CREDENTIALS = 2
TURN_S = 0.005
"""How long the lines of one client may keep the loop; a block of short lines would take a second."""
LAST_WORDS_S = 2.0
"""How long an ended session tries to deliver what it has queued for the client."""


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


OpenLink = Callable[["Connection"], Awaitable[Link]]
"""Opens the session's link. Raises ServerError."""


class ServerError(AttestdError):
    """The back end cannot be used; ``cause`` says which way."""

    code = "server"

    def __init__(self, cause: Cause, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.cause = cause


class Connection:
    """Glue between a socket, a session and a link; lives on the loop's thread."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        session: Session,
        watch: Watch,
        peer_pid: int,
        limits: Limits,
        open_link: OpenLink,
        ended: Callable[[Connection, str, str], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self.session = session
        self._watch = watch
        self._peer_pid = peer_pid
        self._framer = LineFramer(limits.message_bytes)
        self._lines: deque[Line | WireError] = deque()
        self._open_link = open_link
        self._ended = ended
        self._link: Link | None = None
        self._opening: asyncio.Task[None] | None = None
        self._waiting: list[ToServer] = []
        self._outbox = Outbox(loop, self._fd, relieved=self._client_relieved, broken=self._client_broken)
        self._reading = False
        self._closed = False
        for fd in watch.exit_fds():
            loop.add_reader(fd, self._exited)
        self._resume()

    # -- the client's side ------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data, ancillary, _flags, _address = self._sock.recvmsg(READ_BYTES, ANCILLARY)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, ancillary = b"", []
        if not data:
            self._finished(MessageClock())
            return
        writer = writer_of(ancillary)
        if writer != self._peer_pid:
            self._carry_out(self.session.foreign_writer(writer, MessageClock()))
            return
        self._lines.extend(self._framer.feed(data))
        self._mediate()

    def _mediate(self) -> None:
        """Take the lines that were read, for one turn of the loop; what is left waits until the others had theirs."""
        began = self._loop.time()
        while self._lines and not self._closed:
            self._carry_out(self.session.client_line(self._lines.popleft(), self._peer_pid, MessageClock()))
            if self._lines and self._loop.time() - began > TURN_S:
                self._pause()
                self._loop.call_soon(self._mediate)
                return
        self._resume()

    def _finished(self, clock: MessageClock) -> None:
        """End of the client's stream; half a message before it is answered as malformed."""
        self._pause()
        half = self._framer.finish()
        if half is not None:
            self._carry_out(self.session.client_line(half, self._peer_pid, clock))
        self._carry_out(self.session.client_closed(clock))

    def _exited(self) -> None:
        """The peer or the accountable client exited: whatever it wrote before is still its own, but nobody is there."""
        self._carry_out(self.session.tick(MessageClock()))

    def tick(self) -> None:
        """The periodic look."""
        self._carry_out(self.session.tick(MessageClock()))

    def grants_changed(self) -> None:
        """Tell the session."""
        self._carry_out(self.session.grants_changed())

    def _client_relieved(self) -> None:
        if self._link is not None:
            self._link.resume()
        self._resume()

    def _client_broken(self) -> None:
        self._carry_out([*self.session.client_closed(MessageClock()), End("", "the client closed the connection")])

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    @property
    def _held_back(self) -> bool:
        """Whether the client must wait: for its turn, for its own reading, or for the back end."""
        if self._lines or self._outbox.congested:
            return True
        return self._opening is not None if self._link is None else self._link.congested

    def _resume(self) -> None:
        if not self._reading and not self._closed and self.session.state is State.OPEN and not self._held_back:
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)

    # -- the server's side ------------------------------------------------------------------------------------------

    def server_message(self, message: ServerMessage) -> None:
        """From the link."""
        self._carry_out(self.session.server_message(message, MessageClock()))

    def server_malformed(self, request_id: str | int, error: WireError) -> None:
        """From the link."""
        self._carry_out(self.session.server_malformed(request_id, error, MessageClock()))

    def server_gone(self, cause: Cause, text: str) -> None:
        """From the link."""
        self._link = None
        self._carry_out(self.session.server_gone(cause, text, MessageClock()))

    @property
    def backlog(self) -> int:
        """Bytes that wait for the client."""
        return self._outbox.queued

    def server_relieved(self) -> None:
        """From the link."""
        self._resume()

    async def _open(self) -> None:
        try:
            link = await self._open_link(self)
        except ServerError as error:
            self._opening = None
            self._waiting.clear()
            self._carry_out(self.session.server_failed(error.cause, error.message, MessageClock()))
            self._resume()
            return
        if self._closed:
            link.close()
            return
        self._link = link
        waiting, self._waiting = self._waiting, []
        for effect in waiting:
            link.send(effect.body, effect.line)
        self._resume()

    def _opened(self, task: asyncio.Task[None]) -> None:
        """An error that ``_open`` does not expect is our bug: the client is told, and so is the loop."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            text = f"{type(error).__name__}: {error}"[:256]
            self._carry_out(self.session.server_gone(Cause.INTERNAL, text, MessageClock()))
            self._loop.call_exception_handler({"message": "cannot open a back end", "exception": error})

    # -- effects ----------------------------------------------------------------------------------------------------

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if self._closed:
                return
            match effect:
                case ToClient(chunks=chunks):
                    for chunk in chunks:
                        self._outbox.write(chunk)
                    if self._outbox.congested:
                        self._pause()
                        if self._link is not None:
                            self._link.pause()
                case ToServer():
                    self._to_server(effect)
                case End(cause=cause, text=text):
                    self._close(cause, text)

    def _to_server(self, effect: ToServer) -> None:
        if self._link is not None:
            self._link.send(effect.body, effect.line)
            if self._link.congested:
                self._pause()
            return
        self._waiting.append(effect)
        if self._opening is None:
            self._opening = self._loop.create_task(self._open())
            self._opening.add_done_callback(self._opened)
            self._pause()

    def close(self, cause: Cause, text: str) -> None:
        """End from outside: shutdown, a removed server."""
        self._carry_out(self.session.server_gone(cause, text, MessageClock()))

    def _close(self, cause: str, text: str) -> None:
        if self._closed:
            return
        self._closed = True
        self._lines.clear()
        self._pause()
        for fd in self._watch.exit_fds():
            self._loop.remove_reader(fd)
        if self._link is not None:
            self._link.finish()
            self._link.close()
            self._link = None
        self._watch.close()
        self._ended(self, cause, text)

        def release() -> None:
            timeout.cancel()
            self._outbox.discard()
            self._sock.close()

        timeout = self._loop.call_later(LAST_WORDS_S, release)
        self._outbox.finish(release)


def writer_of(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The pid that the kernel names as the writer; 0, which is nobody, if it names none."""
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == SCM_CREDENTIALS:
            return int(UCRED.unpack_from(value)[0])
    return 0
