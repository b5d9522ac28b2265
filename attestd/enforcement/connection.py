"""One client connection: the socket, its session and its link to a back end. Carries out what the session says.

The client's end names the writer of every byte. A relay may offer its client's own descriptors with its first byte;
from then on these are the client's end. Nothing is read while the other side is congested, and nothing from a client
that does not read its own answers: refusals take room, too.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable

from attestd.enforcement.client_end import DECLINED, OFFER, TAKEN, ClientEnd, SocketEnd
from attestd.enforcement.clock import MessageClock
from attestd.enforcement.effects import Effect, End, State, ToClient, ToServer, Withdraw
from attestd.enforcement.outbox import Outbox
from attestd.enforcement.session import Session
from attestd.enforcement.uplink import OpenUplink, Uplink
from attestd.errors import Cause
from attestd.evidence.protocol import Watch
from attestd.wire.framing import Line, LineFramer
from attestd.wire.model import Limits, WireError
from attestd.wire.server import ServerMessage

TURN_S = 0.005
"""How long the lines of one client may keep the loop; a block of short lines would take a second."""
LAST_WORDS_S = 2.0
"""How long an ended session tries to deliver what it has queued for the client."""


Take = Callable[[tuple[int, ...]], ClientEnd | None]
"""What to do with the descriptors that a relay offers: the client's end from now on, or None after closing them."""


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
        open_link: OpenUplink,
        ended: Callable[[Connection, str, str], None],
        take: Take | None = None,
    ) -> None:
        """``take``: where the peer may be a relay, which may step aside."""
        self._loop = loop
        self._sock = sock
        self._socket_end = SocketEnd(sock)
        self._end: ClientEnd = self._socket_end
        self._take = take
        self.session = session
        self._watch = watch
        self._peer_pid = peer_pid
        self._framer = LineFramer(limits.message_bytes)
        self._lines: deque[Line | WireError] = deque()
        self._ended = ended
        self._uplink = Uplink(loop, self, open_link)
        self._outbox = self._new_outbox()
        self._reading = False
        self._closed = False
        for fd in watch.exit_fds():
            loop.add_reader(fd, self._exited)
        self._resume()

    # -- the client's side ------------------------------------------------------------------------------------------

    def _new_outbox(self) -> Outbox:
        end = self._end
        return Outbox(
            self._loop, end.out_fd, write=end.write, relieved=self._client_relieved, broken=self._client_broken
        )

    def _readable(self) -> None:
        try:
            if self._take is not None:
                self._first_bytes(self._take)
                return
            data, writer = self._end.read()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, writer = b"", 0
        self._received(data, writer)

    def _received(self, data: bytes, writer: int) -> None:
        if not data:
            self._finished(MessageClock())
        elif writer != self._peer_pid:
            self._carry_out(self.session.foreign_writer(writer, MessageClock()))
        else:
            lines = self._framer.feed(data)
            if len(lines) == 1 and not self._lines:  # as with nearly every call
                self._carry_out(self.session.client_line(lines[0], self._peer_pid, MessageClock()))
                if not self._reading:
                    self._resume()
            else:
                self._lines.extend(lines)
                self._mediate()

    def _first_bytes(self, take: Take) -> None:
        """What a relay sends first: bytes of the client, or the offer to step aside, which is answered in one byte."""
        data, writer, fds = self._socket_end.read_first()
        self._take = None
        if data != OFFER or writer != self._peer_pid:
            for fd in fds:
                os.close(fd)
            self._received(data, writer)
            return
        end = take(fds)
        if end is None:
            self._sock.send(DECLINED)
            return
        self._pause()
        self._outbox.discard()
        self._end = end
        self._outbox = self._new_outbox()
        self._sock.send(TAKEN)
        self._resume()

    def _mediate(self) -> None:
        """Take the lines that were read, for one turn of the loop; what is left waits until the others had theirs."""
        began = self._loop.time() if len(self._lines) > 1 else 0.0
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
        self._carry_out(self.session.grants_changed(MessageClock()))

    def _client_relieved(self) -> None:
        self._uplink.resume()
        self._resume()

    def _client_broken(self) -> None:
        self._carry_out([*self.session.client_closed(MessageClock()), End("", "the client closed the connection")])

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._end.in_fd)

    @property
    def _held_back(self) -> bool:
        """Whether the client must wait: for its turn, for its own reading, or for the back end."""
        return bool(self._lines) or self._outbox.congested or self._uplink.congested

    def _resume(self) -> None:
        if not self._reading and not self._closed and self.session.state is State.OPEN and not self._held_back:
            self._reading = True
            self._loop.add_reader(self._end.in_fd, self._readable)

    # -- the server's side ------------------------------------------------------------------------------------------

    def server_message(self, message: ServerMessage) -> None:
        """From the link."""
        self._carry_out(self.session.server_message(message, MessageClock()))

    def server_malformed(self, request_id: str | int, error: WireError) -> None:
        """From the link."""
        self._carry_out(self.session.server_malformed(request_id, error, MessageClock()))

    def server_streams(self, request_id: str | int) -> None:
        """Nothing: an answer in lines has no head."""

    def server_gone(self, cause: Cause, text: str) -> None:
        """From the link."""
        self._uplink.lost()
        self._carry_out(self.session.server_gone(cause, text, MessageClock()))

    @property
    def backlog(self) -> int:
        """Bytes that wait for the client."""
        return self._outbox.queued

    def server_relieved(self) -> None:
        """From the link."""
        self._resume()

    def server_failed(self, cause: Cause, text: str) -> None:
        """The link could not be opened; the next request tries again."""
        self._carry_out(self.session.server_failed(cause, text, MessageClock()))
        self._resume()

    # -- effects ----------------------------------------------------------------------------------------------------

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if self._closed:
                return
            if type(effect) is ToServer:
                self._to_server(effect)
            elif type(effect) is ToClient:
                self._to_client(effect)
            elif type(effect) is Withdraw:
                if self._uplink.withdraw(effect.request_id):
                    self.session.unsent(effect.request_id)
            elif type(effect) is End:
                self._close(effect.cause, effect.text)

    def _to_client(self, effect: ToClient) -> None:
        outbox = self._outbox
        for chunk in effect.chunks:
            outbox.write(chunk)
        if outbox.congested:
            self._pause()
            self._uplink.pause()

    def _to_server(self, effect: ToServer) -> None:
        uplink = self._uplink
        uplink.send(effect)
        if uplink.congested:
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
        self._uplink.close()
        self._watch.close()
        self._ended(self, cause, text)

        def release() -> None:
            timeout.cancel()
            self._outbox.discard()
            self._end.close()
            self._sock.close()

        timeout = self._loop.call_later(LAST_WORDS_S, release)
        self._outbox.finish(release)
